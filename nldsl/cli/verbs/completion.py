"""`nldsl completion`: a shell completion script."""

from __future__ import annotations

import click

from nldsl.cli.console import Console
from nldsl.cli.options import with_plain_console

SHELLS = ("bash", "zsh", "fish")


def completion(console: Console, shell: str) -> int:
    """Print the script that teaches `shell` to complete nldsl's verbs and options."""
    from click.shell_completion import get_completion_class

    from nldsl.cli.app import cli

    kind = get_completion_class(shell)
    assert kind is not None
    console.out(kind(cli, {}, "nldsl", "_NLDSL_COMPLETE").source())
    return 0


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@with_plain_console
def command(console: Console, shell: str) -> int:
    """Print a completion script, to be used as in `eval "$(nldsl completion bash)"`."""
    return completion(console, shell)
