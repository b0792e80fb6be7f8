"""`nldsl compile`: write a folder of PyTorch code that runs without nldsl."""

from __future__ import annotations

from pathlib import Path

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import set_option, variant_option, with_console
from nldsl.cli.problem import Problem


def compile_spec(
    console: Console,
    path: str,
    folder: str | None,
    *,
    check: bool = False,
    verify: bool = False,
    print_after: str | None = None,
    force: bool = False,
    settings: tuple[str, ...] = (),
    variant: str | None = None,
) -> int:
    """Compile the spec at `path` into `folder`.

    `check` writes nothing and returns 1 where the folder is stale; `print_after` prints the value
    after one pass and writes nothing; `verify` compares what was written with
    what the level graph promises.
    """
    if print_after is None and folder is None:
        raise Problem("no folder to write to", f"add `-o build/{Path(path).stem}`")
    spec = inputs.load_spec(console, path, settings=settings, variant=variant)
    if print_after is not None:
        console.out(spec.print_after(print_after))
        return 0
    assert folder is not None
    if check:
        stale = spec.stale(folder)
        for line in stale:
            console.out(line)
        console.say(f"{folder} is {'stale' if stale else 'up to date'}")
        return int(bool(stale))
    if Path(folder).is_file():
        raise Problem(f"`{folder}` is a file, and a folder is needed", "name another one after `-o`")
    build = spec.compile(folder, force=force)
    console.say(f"wrote {folder}: {len(build.files)} files, {build.parameters:,} parameters")
    if not verify:
        return 0
    from nldsl.cli.verbs.verify import keep_promises

    return keep_promises(console, folder)


@click.command("compile")
@click.argument("spec", type=click.Path())
@click.option("-o", "--output", "folder", type=click.Path(), metavar="DIR", help="The folder to write.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where DIR is stale.")
@click.option("--verify", is_flag=True, help="Trace what was written and compare it with the level graph.")
@click.option("--print-after", metavar="PASS", help="Print the value after one pass; write nothing.")
@click.option("--force", is_flag=True, help="Overwrite files that were edited by hand.")
@variant_option
@set_option
@with_console
def command(
    console: Console,
    spec: str,
    folder: str | None,
    check: bool,
    verify: bool,
    print_after: str | None,
    force: bool,
    variant: str | None,
    settings: tuple[str, ...],
) -> int:
    """Write a folder of readable PyTorch code for SPEC that runs without nldsl."""
    return compile_spec(
        console,
        spec,
        folder,
        check=check,
        verify=verify,
        print_after=print_after,
        force=force,
        settings=settings,
        variant=variant,
    )
