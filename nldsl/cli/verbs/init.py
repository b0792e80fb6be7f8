"""`nldsl init`: write a starter spec."""

from __future__ import annotations

from pathlib import Path

import click

from nldsl.cli.console import Console
from nldsl.cli.options import with_plain_console
from nldsl.cli.starters import STARTERS
from nldsl.run.files import FileProblem, make_folder, write_text


def init(console: Console, folder: str, *, template: str = "delta", force: bool = False) -> int:
    """Write the starter `template` into `folder`, which is made where it is missing."""
    target = make_folder(folder) / f"{template}.nl"
    if target.exists() and not force:
        raise FileProblem(f"`{target}` exists already", "`--force` overwrites it")
    write_text(target, STARTERS[template])
    console.say(f"wrote {target}")
    for verb in ("check", "graph", "train"):
        console.say(f"  nldsl {verb} {_quoted(target)}")
    return 0


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


@click.command("init")
@click.argument("folder", type=click.Path(), metavar="[DIR]", default=".")
@click.option("--template", type=click.Choice(tuple(STARTERS)), default="delta", show_default=True)
@click.option("--force", is_flag=True, help="Overwrite a spec that is there.")
@with_plain_console
def command(console: Console, folder: str, template: str, force: bool) -> int:
    """Write a commented starter spec into DIR (default: here)."""
    return init(console, folder, template=template, force=force)
