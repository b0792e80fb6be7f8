"""Findings for people: headline, excerpts with the places marked, notes and help.

error[NL0312]: level `fast` updates less often than the level it feeds
  --> specs/hope.nl:9:12
   |
 9 |     update every 64 tokens
   |            ^^^^^^^^^^^^^^^ once per 64 tokens
   |
   = help: swap the two periods
   = explain: nldsl explain NL0312
"""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.diagnostics.model import Diagnostic, Source
from nldsl.diagnostics.render.cells import printable
from nldsl.diagnostics.render.excerpt import Place, excerpt, lines_shown, place_of
from nldsl.diagnostics.render.paint import paint


def render(diagnostics: Sequence[Diagnostic], *, color: bool = False, width: int = 110) -> str:
    """All findings, an empty line between two; `width` in cells bounds the excerpts' source lines."""
    return "\n".join(_finding(diagnostic, color, width) for diagnostic in diagnostics)


def _finding(diagnostic: Diagnostic, color: bool, width: int) -> str:
    word = f"{diagnostic.severity}[{diagnostic.code}]"
    message = printable(diagnostic.message).replace("\n", "\n  ")
    rows = [paint(word, diagnostic.severity, color) + paint(f": {message}", "bold", color)]
    groups = _by_source(diagnostic)
    numbers = [lines_shown(places)[-1] for _, places in groups]
    number_width = len(str(max(numbers))) if numbers else 0
    bar = paint(" " * number_width + " |", "frame", color)
    for i, (source, places) in enumerate(groups):
        arrow = "-->" if i == 0 else ":::"
        first = places[0]
        where = f"{printable(source.name)}:{first.line}:{first.column + 1}"
        rows += [bar] if i else []
        rows += [f"{paint(' ' * number_width + arrow, 'frame', color)} {where}", bar]
        rows += excerpt(source, places, number_width=number_width, width=width, color=color)
    rows += [bar] if groups else []
    rows += [_remark(kind, text, number_width, color) for kind, text in _remarks(diagnostic)]
    return "\n".join(rows) + "\n"


def _by_source(diagnostic: Diagnostic) -> list[tuple[Source, list[Place]]]:
    """The labels grouped by file, that of the primary label first."""
    groups: dict[int, tuple[Source, list[Place]]] = {}
    for i, label in enumerate(diagnostic.labels):
        style = diagnostic.severity if i == 0 else "secondary"
        place = place_of(label, primary=i == 0, style=style)
        groups.setdefault(id(label.span.source), (label.span.source, []))[1].append(place)
    return list(groups.values())


def _remarks(diagnostic: Diagnostic) -> list[tuple[str, str]]:
    remarks = [("note", note) for note in diagnostic.notes]
    if diagnostic.help:
        remarks.append(("help", diagnostic.help))
    if diagnostic.fix is not None:
        effect = "`--fix` does it" if diagnostic.fix.safe else "changes the meaning, so `--fix` leaves it"
        remarks.append(("fix", f"{diagnostic.fix.title} ({effect})"))
    remarks.append(("explain", f"nldsl explain {diagnostic.code}"))
    return remarks


def _remark(kind: str, text: str, number_width: int, color: bool) -> str:
    indent = " " * (number_width + 1)
    body = printable(text).rstrip("\n").replace("\n", f"\n{indent}  {' ' * (len(kind) + 2)}")
    style = {"note": "bold", "help": "help", "fix": "help", "explain": "dim"}[kind]
    return f"{indent}{paint('=', 'frame', color)} {paint(kind + ':', style, color)} {body}"
