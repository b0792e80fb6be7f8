"""`nldsl graph`: draw the level graph of a spec."""

from __future__ import annotations

from pathlib import Path

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import set_option, variant_option, with_plain_console
from nldsl.cli.output import deliver

DRAWINGS = ("text", "mermaid", "dot", "svg", "html", "json")
_SUFFIXES = {".txt": "text", ".mmd": "mermaid", ".gv": "dot", ".htm": "html"} | {f".{d}": d for d in DRAWINGS}


def graph(
    console: Console,
    path: str,
    *,
    drawing: str | None = None,
    output: str | None = None,
    settings: tuple[str, ...] = (),
    variant: str | None = None,
) -> int:
    """Draw the level graph as `drawing`, else as the suffix of `output` says, else as text."""
    from nldsl.levels.draw import render

    spec = inputs.load_spec(console, path, settings=settings, variant=variant)
    chosen = drawing or _SUFFIXES.get(Path(output).suffix if output else "", "text")
    color = output is None and chosen == "text" and console.color_out
    width = console.width if output is None else 100
    deliver(console, render(spec.levels(), chosen, width=width, color=color), output)
    return 0


@click.command("graph")
@click.argument("spec", type=click.Path())
@click.option(
    "--format", "drawing", type=click.Choice(DRAWINGS), help="Default: from the suffix of FILE, else text."
)
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="Write here; default: standard output."
)
@variant_option
@set_option
@with_plain_console
def command(
    console: Console,
    spec: str,
    drawing: str | None,
    output: str | None,
    variant: str | None,
    settings: tuple[str, ...],
) -> int:
    """Draw the level graph of SPEC: what learns, how often, from what, and at which cost."""
    return graph(console, spec, drawing=drawing, output=output, settings=settings, variant=variant)
