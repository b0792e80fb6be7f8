"""`nldsl check`: find mistakes in specs, and mend those with one safe answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import with_console
from nldsl.diagnostics.model import Diagnostic, Source
from nldsl.diagnostics.render.summary import counted
from nldsl.run.files import FileProblem, write_text

_ROUNDS = 10  # a fix may uncover another finding with a fix


def check(
    console: Console,
    paths: Sequence[str],
    *,
    stdin_name: str = "<stdin>.nl",
    fix: bool = False,
    warn_as_error: bool = False,
    variant: str | None = None,
) -> int:
    """Check every spec that `paths` mean.

    0 where none has an error, 1 where one has, 2 where one cannot be read.
    """
    unreadable: list[FileProblem] = []

    def complain(problem: FileProblem) -> None:
        unreadable.append(problem)
        console.problem(problem.message, problem.help)

    found = inputs.sources(paths, stdin_name, complain)
    diagnostics: list[Diagnostic] = []
    fixed = 0
    for source in found:
        text, findings, applied = _mend(source, variant) if fix else (source.text, _check(source, variant), 0)
        diagnostics += findings
        fixed += applied
        if fix and source.name == stdin_name and inputs.STDIN in paths:
            sys.stdout.write(text)
        elif text != source.text:
            write_text(source.name, text)
    to_stdout = not (fix and inputs.STDIN in paths)
    console.report(_distinct(diagnostics), machine_to_stdout=to_stdout)
    if fixed:
        console.say(f"Mended {counted(fixed, 'finding')}")
    if found and not diagnostics and console.format in ("full", "concise"):
        console.say(f"{counted(len(found), 'file')} checked, nothing found")
    if unreadable:
        return 2
    return int(any(d.severity == "error" or (warn_as_error and d.severity == "warning") for d in diagnostics))


def _check(source: Source, variant: str | None) -> list[Diagnostic]:
    from nldsl import api

    return api.check_source(source, read_file=inputs.importer(source), variant=variant)


def _mend(source: Source, variant: str | None) -> tuple[str, list[Diagnostic], int]:
    """The text with its safe fixes applied, the findings that remain, and how many fixes were applied."""
    from nldsl.diagnostics.fix import apply_fixes

    findings, applied = _check(source, variant), 0
    for _ in range(_ROUNDS):
        fixed = apply_fixes(findings, only=[source.name])
        text = fixed.texts.get(source.name, source.text)
        if text == source.text:
            break
        source, applied = Source(source.name, text), applied + fixed.applied
        findings = _check(source, variant)
    return source.text, findings, applied


def _distinct(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Each finding once: one in an imported file is found from every file that imports it."""
    seen: dict[tuple[object, ...], Diagnostic] = {}
    for diagnostic in diagnostics:
        span = diagnostic.span
        place = (span.source.name, span.start, span.end) if span is not None else ()
        seen.setdefault((diagnostic.code, diagnostic.message, *place), diagnostic)
    return list(seen.values())


@click.command("check")
@click.argument("paths", nargs=-1, type=click.Path(allow_dash=True), required=True)
@click.option("--fix", is_flag=True, help="Mend what has one safe answer, in place.")
@click.option("--warn-as-error", is_flag=True, help="Let warnings fail, too.")
@click.option("--variant", metavar="NAME", help="Check this variant.")
@click.option("--stdin-filename", default="<stdin>.nl", metavar="NAME", help="What to call standard input.")
@with_console
def command(
    console: Console,
    paths: tuple[str, ...],
    fix: bool,
    warn_as_error: bool,
    variant: str | None,
    stdin_filename: str,
) -> int:
    """Find mistakes in specs: files, folders, or `-` for standard input.

    Findings go to standard error; with --format json, github or sarif they are the result and go to
    standard output.
    """
    return check(
        console, paths, stdin_name=stdin_filename, fix=fix, warn_as_error=warn_as_error, variant=variant
    )
