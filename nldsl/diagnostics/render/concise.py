"""`file:line:column: error[NL0312]: headline`, one line a finding."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.diagnostics.model import Diagnostic
from nldsl.diagnostics.render.cells import printable
from nldsl.diagnostics.render.paint import paint


def render(diagnostics: Sequence[Diagnostic], *, color: bool = False) -> str:
    """One line for each finding.

    >>> render([Diagnostic("NL0001", "the file holds no declaration")])
    'error[NL0001]: the file holds no declaration\\n'
    """
    return "".join(_line(diagnostic, color) + "\n" for diagnostic in diagnostics)


def _line(diagnostic: Diagnostic, color: bool) -> str:
    head = paint(f"{diagnostic.severity}[{diagnostic.code}]", diagnostic.severity, color)
    place = f"{printable(diagnostic.span.where)}: " if diagnostic.span is not None else ""
    message = printable(diagnostic.message).replace("\n", " ")
    return f"{place}{head}: {message}"
