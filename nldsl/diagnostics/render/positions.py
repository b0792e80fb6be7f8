"""Lines and columns of spans for the machine formats."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.diagnostics.model import Span


@dataclass(frozen=True, slots=True)
class Range:
    """A span by lines and columns, all from 1, columns in code points, the end exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


def range_of(span: Span) -> Range:
    """The range of a span."""
    line, column = span.source.position(span.start)
    end_line, end_column = span.source.position(max(span.start, span.end))
    return Range(line, column, end_line, end_column)
