"""`nldsl verify`: probe a compiled folder on random data."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import with_plain_console


def verify(console: Console, folder: str) -> int:
    """Print one line for each promise and each probe; 1 where one fails."""
    from nldsl.run.promises import promises
    from nldsl.run.verify import verify as probe

    where = inputs.build_folder(folder)
    return report(console, chain(promises(where), probe(where)))


def keep_promises(console: Console, folder: str) -> int:
    """Print one line for each promise of the front end, kept or broken; 1 where one is broken."""
    from nldsl.run.promises import promises

    return report(console, promises(inputs.build_folder(folder)))


def report(console: Console, results: Iterable[Any]) -> int:
    """Print what was found, and how much of it is well; 1 where something is not."""
    found = list(results)
    for result in found:
        console.out(line(result, console.color_out))
    failed = sum(not result.ok for result in found)
    console.say(f"{len(found) - failed} of {len(found)} probes passed")
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
    the loss reaches, and streaming that differs from whole; and compares the code with its level graph:
    parameters, gradients, costs and clocks.
    """
    return verify(console, folder)
