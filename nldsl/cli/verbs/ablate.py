"""`nldsl ablate`: plan the variants of an ablation."""

from __future__ import annotations

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import set_option, with_console


def ablate(console: Console, path: str, *, name: str | None = None, settings: tuple[str, ...] = ()) -> int:
    """Print the plan of the `ablate` declaration called `name`, or of the only one."""
    from nldsl.ablate.plan import plan
    from nldsl.ablate.table import as_text

    spec = inputs.load_spec(console, path, settings=settings)
    console.out(as_text(plan(spec, name)))
    return 0


@click.command("ablate")
@click.argument("spec", type=click.Path())
@click.option("--name", metavar="NAME", help="Which `ablate` declaration; default: the only one.")
@set_option
@with_console
def command(console: Console, spec: str, name: str | None, settings: tuple[str, ...]) -> int:
    """Print which variants an ablation of SPEC makes, what each changes, and what it costs. Runs nothing."""
    return ablate(console, spec, name=name, settings=settings)
