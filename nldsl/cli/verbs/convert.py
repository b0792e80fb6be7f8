"""`nldsl convert`: turn .nl into YAML, or YAML into .nl."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import with_console
from nldsl.cli.output import deliver
from nldsl.cli.problem import Problem
from nldsl.diagnostics.model import Source

Surface = Literal["nl", "yaml"]


def convert(
    console: Console,
    path: str,
    *,
    to: Surface | None = None,
    output: str | None = None,
    force: bool = False,
    stdin_name: str = "<stdin>.nl",
) -> int:
    """Write the spec at `path` in the surface of `to` or of the suffix of `output`, else in the other."""
    source = inputs.one_source(path, stdin_name)
    surface = to or _surface_of(output) or ("nl" if _surface_of(source.name) == "yaml" else "yaml")
    if output is not None and _surface_of(output) not in (None, surface):
        raise Problem(
            f"`{output}` is no name for {surface} text", f"write `-o {Path(output).stem}.{surface}`"
        )
    if output is not None and path != "-" and os.path.realpath(output) == os.path.realpath(path):
        raise Problem(f"`{output}` is the spec itself", "name another file")
    text = converted(console, source, surface)
    if text is None:
        return 1
    deliver(console, text, output, force=force)
    return 0


def converted(console: Console, source: Source, surface: Surface) -> str | None:
    """The text of a source in a surface, or None with its errors reported."""
    from nldsl.syntax import parse_body

    body, diagnostics = parse_body(source)
    console.report(diagnostics)
    if any(d.severity == "error" for d in diagnostics):
        return None
    if surface == "yaml":
        from nldsl.syntax.yaml import to_yaml

        return to_yaml(body)
    from nldsl.syntax.fmt import format_body

    return format_body(body)


def _surface_of(name: str | None) -> Surface | None:
    suffix = Path(name).suffix if name is not None else ""
    if suffix == ".nl":
        return "nl"
    return "yaml" if suffix in (".yaml", ".yml") else None


@click.command("convert")
@click.argument("spec", type=click.Path(allow_dash=True))
@click.option("--to", type=click.Choice(("nl", "yaml")), help="The surface to write; default: the other one.")
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="Write here; default: standard output."
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--stdin-filename", default="<stdin>.nl", metavar="NAME", help="What to call standard input.")
@with_console
def command(
    console: Console, spec: str, to: Surface | None, output: str | None, force: bool, stdin_filename: str
) -> int:
    """Turn SPEC from .nl into YAML or back, with its comments."""
    return convert(console, spec, to=to, output=output, force=force, stdin_name=stdin_filename)
