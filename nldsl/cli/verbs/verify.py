"""`nldsl verify`: probe a compiled folder on random data."""

from __future__ import annotations

from typing import Any

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import with_plain_console


def verify(console: Console, folder: str) -> int:
    """Print one line for each probe; 1 where one fails."""
    from nldsl.run.verify import verify as probe

    results = list(probe(inputs.build_folder(folder)))
    for result in results:
        console.out(line(result, console.color_out))
    failed = sum(not result.ok for result in results)
    console.say(f"{len(results) - failed} of {len(results)} probes passed")
    return int(failed > 0)


def line(result: Any, color: bool) -> str:
    """One probe: whether it passed, its name and what was found."""
    from nldsl.diagnostics.render.paint import paint

    word = paint("ok    ", "help", color) if result.ok else paint("failed", "error", color)
    detail = f": {result.detail}" if result.detail else ""
    return f"{word} {result.name}{detail}"


@click.command("verify")
@click.argument("folder", type=click.Path(), metavar="DIR")
@with_plain_console
def command(console: Console, folder: str) -> int:
    """Probe the compiled folder DIR on random data.

    Looks for future leaks, sequences of a batch that touch each other, dead parameters, how far back
    the loss reaches, and streaming that differs from whole.
    """
    return verify(console, folder)
