"""The closing line, and the order in which findings are shown."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.diagnostics.model import Diagnostic


def counted(number: int, noun: str) -> str:
    """`1 error`, `3 errors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def summary(diagnostics: Sequence[Diagnostic]) -> str:
    """One line that counts the findings; empty where there are none.

    >>> summary([Diagnostic("NL0101", "a brace is left open")])
    'Found 1 error'
    """
    counts = {kind: sum(d.severity == kind for d in diagnostics) for kind in ("error", "warning", "note")}
    found = [counted(number, kind) for kind, number in counts.items() if number]
    if not found:
        return ""
    files = {d.span.source.name for d in diagnostics if d.span is not None}
    where = f" in {counted(len(files), 'file')}" if files else ""
    fixable = sum(d.fix is not None and d.fix.safe for d in diagnostics)
    fixes = f" ({fixable} fixable with `--fix`)" if fixable else ""
    return f"Found {', '.join(found)}{where}{fixes}"


def in_order(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Findings sorted by file (in the order first met) and place; those without a place come first."""
    rank: dict[str, int] = {}
    for diagnostic in diagnostics:
        if diagnostic.span is not None:
            rank.setdefault(diagnostic.span.source.name, len(rank))

    def key(diagnostic: Diagnostic) -> tuple[int, int, int, str]:
        span = diagnostic.span
        if span is None:
            return (-1, 0, 0, diagnostic.code)
        return (rank[span.source.name], span.start, span.end, diagnostic.code)

    return sorted(diagnostics, key=key)
