"""What a finding is: one value, made by any stage, shown by any renderer.

A `Diagnostic` states a fact (`message`), shows where (`labels`), and says how to
mend it (`help`).  Headlines are lower case, without a full stop, code in backticks;
only `help` gives advice.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import field
from typing import Literal

from nldsl.records import record

Severity = Literal["error", "warning", "note"]


@record
class Source:
    """The text of one file (or of `--set` arguments), with the name shown to the user."""

    name: str
    text: str = field(repr=False)
    _line_starts: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        starts = [0]
        starts.extend(i + 1 for i, c in enumerate(self.text) if c == "\n")
        object.__setattr__(self, "_line_starts", tuple(starts))

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a character offset, both counted from 1."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of line `number` (from 1), without its line end."""
        start = self._line_starts[number - 1]
        end = self._line_starts[number] if number < len(self._line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n")

    @property
    def line_count(self) -> int:
        return len(self._line_starts)


@record
class Span:
    """A stretch of a source, `[start, end)` in characters (code points)."""

    source: Source
    start: int
    end: int

    def to(self, other: Span | None) -> Span:
        """The span from the start of this one to the end of `other`."""
        if other is None or other.source is not self.source:
            return self
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))

    @property
    def where(self) -> str:
        """`file:line:column`, as shown to people."""
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]


@record
class Label:
    """A place that takes part in a finding, with three to six words on its part."""

    span: Span
    text: str = ""


@record
class Edit:
    """Replace the text of `span` by `text`."""

    span: Span
    text: str


@record
class Fix:
    """Edits that mend a finding; `safe` ones never change a meaning and are applied by `check --fix`."""

    title: str
    edits: tuple[Edit, ...]
    safe: bool = True


@record
class Diagnostic:
    """One finding.  `labels[0]` is the primary place; the others are secondary."""

    code: str
    message: str
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str | None = None
    fix: Fix | None = None
    severity: Severity = "error"

    @property
    def span(self) -> Span | None:
        return self.labels[0].span if self.labels else None


class SpecError(Exception):
    """A spec has errors.  `diagnostics` holds every finding, warnings included."""

    def __init__(self, diagnostics: list[Diagnostic] | tuple[Diagnostic, ...]) -> None:
        self.diagnostics = tuple(diagnostics)
        errors = [d for d in self.diagnostics if d.severity == "error"]
        lines = [f"{d.span.where + ': ' if d.span else ''}[{d.code}] {d.message}" for d in errors]
        super().__init__("\n".join(lines))
