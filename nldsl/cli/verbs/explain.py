"""`nldsl explain`: the page of a code, the list of codes, or how a spec is computed."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from textwrap import wrap

import click

from nldsl.cli.console import Console
from nldsl.cli.options import set_option, variant_option, with_console
from nldsl.cli.problem import Problem
from nldsl.run.files import SPEC_SUFFIXES


def explain(
    console: Console,
    subject: str | None,
    *,
    settings: tuple[str, ...] = (),
    variant: str | None = None,
    memory: bool = False,
) -> int:
    """Explain a code or kebab name, or a spec's engines, chains and rules; without a subject, list the codes.

    With `memory`, say what a spec holds where: in weights, cache and context.
    """
    from nldsl.diagnostics import codes

    if memory and (subject is None or not _is_spec(subject)):
        raise Problem("`--memory` explains a spec", "write `nldsl explain SPEC --memory`")
    if subject is None:
        console.out(code_list(console))
        return 0
    if _is_spec(subject):
        from nldsl.cli import inputs

        spec = inputs.load_spec(console, subject, settings=settings, variant=variant)
        console.out(spec.memory() if memory else spec.plan())
        return 0
    page = codes.page(subject)
    if page is None:
        raise Problem(f"no finding has the code or name `{subject}`", _near(subject))
    console.out(styled(page, console.color_out, min(console.width, 100)))
    return 0


def _is_spec(subject: str) -> bool:
    return Path(subject).suffix in SPEC_SUFFIXES or Path(subject).is_file()


def code_list(console: Console) -> str:
    """Every code with its name and what it states, by group."""
    from nldsl.diagnostics import codes
    from nldsl.diagnostics.render.paint import paint

    color = console.color_out
    groups: dict[str, list[codes.Code]] = {}
    for code in codes.registry().values():
        groups.setdefault(code.group, []).append(code)
    rows: list[str] = []
    for group, members in groups.items():
        rows += ["", paint(group, "bold", color)] if rows else [paint(group, "bold", color)]
        width = max(len(code.name) for code in members)
        rows += [
            f"  {paint(f'{c.code}', c.severity, color)}  {c.name:<{width}}  {c.summary.removesuffix('.')}"
            for c in members
        ]
    return "\n".join(rows)


def styled(page: str, color: bool, width: int = 100) -> str:
    """A Markdown page for a terminal: headings bold, fences left out, code indented, lines of text wrapped.

    >>> print(styled("# A\\n\\n```nl\\nx = 1\\n```", False))
    A
    <BLANKLINE>
        x = 1
    """
    from nldsl.diagnostics.render.paint import paint

    rows: list[str] = []
    fenced = False
    for line in page.rstrip("\n").split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        elif fenced:
            rows.append(paint(f"    {line}".rstrip(), "help", color))
        elif line.startswith("#"):
            rows.append(paint(line.lstrip("# "), "bold", color))
        else:
            indent = "  " if line.startswith(("- ", "* ")) else ""
            rows += wrap(line, width, subsequent_indent=indent, break_on_hyphens=False) or [""]
    return "\n".join(rows)


def _near(subject: str) -> str:
    from nldsl.diagnostics import codes

    names = [name for code in codes.registry().values() for name in (code.code, code.name)]
    wanted = subject.upper() if subject[:2].upper() == "NL" else subject.lower()
    near = get_close_matches(wanted, names, n=2, cutoff=0.7)
    if near:
        return f"did you mean {' or '.join(f'`{name}`' for name in near)}?"
    return "`nldsl explain` lists them all"


@click.command("explain")
@click.argument("subject", required=False, type=click.Path(), metavar="[CODE|SPEC]")
@variant_option
@set_option
@click.option("--memory", is_flag=True, help="What SPEC holds in weights, cache and context.")
@with_console
def command(
    console: Console, subject: str | None, variant: str | None, settings: tuple[str, ...], memory: bool
) -> int:
    """Explain a finding by its code (NL0312) or name; of SPEC, say which engine each memory gets and why,
    what chains compute, and what rules keep.

    Without an argument, list every code.
    """
    return explain(console, subject, settings=settings, variant=variant, memory=memory)
