"""`nldsl fmt`: bring .nl files into their one canonical form."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import with_console
from nldsl.cli.output import painted_diff_line
from nldsl.diagnostics.model import Diagnostic, Source
from nldsl.diagnostics.render.summary import counted
from nldsl.run.files import FileProblem, write_text


def fmt(
    console: Console,
    paths: Sequence[str],
    *,
    check: bool = False,
    diff: bool = False,
    stdin_name: str = "<stdin>.nl",
) -> int:
    """Format files in place, and `-` to standard output; YAML is left alone.

    With `check` or `diff` nothing is written, and 1 says that something would change.
    """
    unreadable: list[FileProblem] = []

    def complain(problem: FileProblem) -> None:
        unreadable.append(problem)
        console.problem(problem.message, problem.help)

    broken: list[Diagnostic] = []
    changed: list[str] = []
    for source in inputs.sources(paths, stdin_name, complain):
        if not source.name.endswith(".nl"):
            if source.name in paths:
                console.say(f"{source.name}: YAML is left as it is")
            continue
        text, errors = formatted(source)
        if errors:
            broken += errors
            continue
        if text != source.text:
            changed.append(source.name)
        _deliver(
            console, source, text, check=check, diff=diff, to_stdout=_is_stdin(source, paths, stdin_name)
        )
    console.report(broken)
    if changed and not (diff or (check and inputs.STDIN in paths)):
        verb = "would be" if check else ("was" if len(changed) == 1 else "were")
        console.say(f"{counted(len(changed), 'file')} {verb} reformatted")
    if unreadable:
        return 2
    return int(bool(broken) or (bool(changed) and (check or diff)))


def formatted(source: Source) -> tuple[str, list[Diagnostic]]:
    """The canonical text of a .nl source, or the errors that keep it from being read.

    The text is read again before anybody writes it: a formatter that changes a meaning is a bug of ours.
    """
    from nldsl.syntax import parse_body
    from nldsl.syntax.fmt import format_body

    body, diagnostics = parse_body(source)
    errors = [d for d in diagnostics if d.severity == "error"]
    if errors:
        return "", errors
    text = format_body(body)
    if parse_body(Source(source.name, text))[0] != body:
        raise AssertionError(
            f"the formatter would change the meaning of {source.name}, which is left as it was"
        )
    return text, []


def _is_stdin(source: Source, paths: Sequence[str], stdin_name: str) -> bool:
    return inputs.STDIN in paths and source.name == stdin_name


def _deliver(
    console: Console, source: Source, text: str, *, check: bool, diff: bool, to_stdout: bool
) -> None:
    if diff:
        for line in unified(source.text, text, source.name).splitlines():
            console.out(painted_diff_line(line, console.color_out))
    elif check:
        if text != source.text:
            console.out(source.name)
    elif to_stdout:
        console.out(text, end="")
    elif text != source.text:
        write_text(source.name, text)


def unified(before: str, after: str, name: str) -> str:
    """A unified diff of two texts, empty where they are equal."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), name, f"{name} (formatted)"
    )
    ended = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return "".join(ended)


@click.command("fmt")
@click.argument("paths", nargs=-1, type=click.Path(allow_dash=True), required=True)
@click.option("--check", is_flag=True, help="Write nothing; list what would change, and exit with 1.")
@click.option("--diff", is_flag=True, help="Write nothing; show what would change, and exit with 1.")
@click.option("--stdin-filename", default="<stdin>.nl", metavar="NAME", help="What to call standard input.")
@with_console
def command(console: Console, paths: tuple[str, ...], check: bool, diff: bool, stdin_filename: str) -> int:
    """Bring .nl files, folders of them, or `-` (to standard output) into canonical form.

    There are no options of style. A file with syntax errors is left as it is.
    """
    return fmt(console, paths, check=check, diff=diff, stdin_name=stdin_filename)
