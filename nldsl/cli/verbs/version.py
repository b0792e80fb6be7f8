"""`nldsl version`."""

from __future__ import annotations

import click

from nldsl.cli.about import version
from nldsl.cli.console import Console
from nldsl.cli.options import with_plain_console


@click.command("version")
@with_plain_console
def command(console: Console) -> int:
    """Print the version."""
    console.out(f"nldsl {version()}")
    return 0
