"""Excerpts of source lines with the places of a finding underlined.

An excerpt shows the lines that hold labels, carets under the primary place and dashes under the
others, with the label texts beside or below.  A place of several lines is drawn as a bracket on the
left.  Columns are terminal cells, so tabs, wide characters and emoji stay aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.diagnostics.model import Label, Source
from nldsl.diagnostics.render.cells import char_widths, printable, shown
from nldsl.diagnostics.render.paint import paint

_CUT = "..."
_LONGEST_WHOLE = 6  # a place of more lines than this is shown by its first and last two


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A label by line and column (lines from 1, columns from 0, end exclusive).

    Two labels may say the same, so places are told apart by identity.
    """

    line: int
    column: int
    end_line: int
    end_column: int
    text: str
    primary: bool
    style: str

    @property
    def mark(self) -> str:
        """The sign that underlines the place."""
        return "^" if self.primary else "-"

    @property
    def whole(self) -> bool:
        """True where the place lies within one line."""
        return self.line == self.end_line


@dataclass(frozen=True, slots=True)
class Fitted:
    """A source line as shown: `cell[i]` is where code point i starts, `cell[-1]` where the line ends."""

    text: str
    cell: tuple[int, ...]

    def at(self, column: int) -> int:
        """The cell of a column; beyond the line's end, the end."""
        return self.cell[min(column, len(self.cell) - 1)]


class Row:
    """One row under construction: cells with styles, written at positions."""

    def __init__(self) -> None:
        self._cells: dict[int, tuple[str, str]] = {}

    def write(self, start: int, text: str, style: str) -> None:
        """Put `text` at cell `start`, over what stands there."""
        for i, character in enumerate(text):
            self._cells[start + i] = (character, style)

    def append(self, text: str, style: str) -> None:
        """Put `text` one cell after the last one, if it says anything."""
        if text:
            self.write(max(self._cells, default=-2) + 2, text, style)

    def render(self, color: bool, width: int = 0) -> str:
        """The row as text of at least `width` cells."""
        runs: list[tuple[str, str]] = []
        for i in range(max(width, max(self._cells, default=-1) + 1)):
            character, style = self._cells.get(i, (" ", ""))
            if runs and runs[-1][1] == style:
                runs[-1] = (runs[-1][0] + character, style)
            else:
                runs.append((character, style))
        return "".join(paint(text, style, color) if style else text for text, style in runs)


def place_of(label: Label, *, primary: bool, style: str) -> Place:
    """The lines and columns of a label; a line end at the end of its span does not count."""
    span = label.span
    start = min(span.start, len(span.source.text))
    end = min(max(span.end, start), len(span.source.text))
    while end > start + 1 and span.source.text[end - 1] in "\r\n":
        end -= 1
    line, column = span.source.position(start)
    end_line, end_column = span.source.position(end)
    if end == start + 1 and span.source.text[start] == "\n":
        end_line, end_column = line, column  # only a line end: one mark after the line's text
    text = printable(" ".join(label.text.split("\n")))
    return Place(line, column - 1, end_line, end_column - 1, text, primary, style)


def lines_shown(places: Sequence[Place]) -> list[int]:
    """Numbers of the lines an excerpt shows, in order."""
    wanted: set[int] = set()
    for place in places:
        if place.end_line - place.line < _LONGEST_WHOLE:
            wanted.update(range(place.line, place.end_line + 1))
        else:
            wanted.update((place.line, place.line + 1, place.end_line - 1, place.end_line))
    wanted.update(n + 1 for n in tuple(wanted) if n + 2 in wanted)
    return sorted(wanted)


def excerpt(
    source: Source, places: Sequence[Place], *, number_width: int, width: int, color: bool
) -> list[str]:
    """The rows of an excerpt, without the rows of frame before and after it."""
    brackets = sorted((p for p in places if not p.whole), key=lambda p: (p.line, -p.end_line))
    gutter = 2 * len(brackets)
    limit = max(30, width - number_width - 3 - gutter)
    bar = paint(" " * number_width + " |", "frame", color)
    open_brackets: list[Place] = []
    rows: list[str] = []
    previous: int | None = None
    for number in lines_shown(places):
        if previous is not None and number != previous + 1:
            rows.append(paint("...", "frame", color))
        previous = number
        line = source.line(number)
        here = [p for p in places if p.whole and p.line == number]
        starts = [p for p in brackets if p.line == number]
        ends = [p for p in brackets if p.end_line == number]
        fitted = fit(line, _marks(here, starts, ends), limit)
        left = _bars(brackets, open_brackets)
        for place in starts:
            if not _indented(place, line):
                left.write(2 * brackets.index(place), "/", place.style)
                open_brackets.append(place)
        head = paint(f"{number:>{number_width}} |", "frame", color)
        rows.append(f"{head} {left.render(color, gutter)}{fitted.text}".rstrip())
        marked: list[Row] = []
        for place in starts:
            if place not in open_brackets:
                marked.append(_corner(brackets, open_brackets, place, place.column, fitted))
                open_brackets.append(place)
        marked += _under(here, fitted, brackets, open_brackets)
        for place in reversed(ends):
            row = _corner(brackets, open_brackets, place, max(0, place.end_column - 1), fitted)
            row.append(place.text, place.style)
            marked.append(row)
            open_brackets.remove(place)
        rows += [f"{bar} {row.render(color)}".rstrip() for row in marked]
    return rows


def _marks(here: Sequence[Place], starts: Sequence[Place], ends: Sequence[Place]) -> list[tuple[int, int]]:
    """The columns of a line that must stay visible where it is cut."""
    return [
        *((p.column, p.end_column) for p in here),
        *((p.column, p.column + 1) for p in starts),
        *((max(0, p.end_column - 1), p.end_column) for p in ends),
    ]


def fit(line: str, marks: Sequence[tuple[int, int]], limit: int) -> Fitted:
    """The line cut to `limit` cells around the columns in `marks`, with `...` where it is cut."""
    widths = char_widths(line)
    starts = [0]
    for width in widths:
        starts.append(starts[-1] + width)
    if starts[-1] <= limit:
        return Fitted("".join(shown(c) for c in line), tuple(starts))
    first, last = _window(starts, marks, limit)
    text = "".join(shown(c) for c in line[first:last])
    before = _CUT if first > 0 else ""
    after = _CUT if last < len(line) else ""
    offset = len(before) - starts[first]
    low, high = (0 if before else offset), starts[last] + offset + len(after)
    return Fitted(before + text + after, tuple(min(max(cell + offset, low), high) for cell in starts))


def _window(starts: Sequence[int], marks: Sequence[tuple[int, int]], limit: int) -> tuple[int, int]:
    """First and last (exclusive) code point to show of a line that is too long."""
    room = limit - 2 * len(_CUT)
    size = len(starts) - 1
    low = starts[min((min(m[0] for m in marks) if marks else 0), size)]
    high = starts[min((max(m[1] for m in marks) if marks else 0), size)]
    wanted = low if high - low > room else low - (room - (high - low)) // 2
    if low <= room // 2:
        wanted = 0
    wanted = max(0, min(wanted, starts[-1] - room))
    first = next(i for i, cell in enumerate(starts) if cell >= wanted)
    last = max(i for i, cell in enumerate(starts) if cell <= starts[first] + room)
    return first, last


def _indented(place: Place, line: str) -> bool:
    """True where something stands before the place on its first line, so that its corner needs a row."""
    return bool(line[: place.column].strip())


def _bars(brackets: Sequence[Place], open_brackets: Sequence[Place]) -> Row:
    row = Row()
    for place in open_brackets:
        row.write(2 * brackets.index(place), "|", place.style)
    return row


def _corner(
    brackets: Sequence[Place], open_brackets: Sequence[Place], place: Place, column: int, fitted: Fitted
) -> Row:
    """The row that leads a bracket to the column where its place starts or ends."""
    row = _bars(brackets, open_brackets)
    slot = brackets.index(place)
    end = 2 * len(brackets) + fitted.at(column)
    row.write(2 * slot + 1, "_" * (end - 2 * slot - 1), place.style)
    row.write(end, place.mark, place.style)
    return row


def _under(
    here: Sequence[Place], fitted: Fitted, brackets: Sequence[Place], open_brackets: Sequence[Place]
) -> list[Row]:
    """The rows below a line for the places within it: marks, the last text beside them, the others below."""
    if not here:
        return []
    gutter = 2 * len(brackets)

    def reach(place: Place) -> tuple[int, int]:
        start = gutter + fitted.at(place.column)
        return start, max(start + 1, gutter + fitted.at(place.end_column))

    def row_with(hanging: Sequence[Place]) -> Row:
        row = _bars(brackets, open_brackets)
        for place in hanging:
            row.write(reach(place)[0], "|", place.style)
        return row

    ordered = sorted(here, key=lambda p: (reach(p)[0], p.primary))
    marks = row_with(())
    for place in sorted(here, key=lambda p: p.primary):
        start, end = reach(place)
        marks.write(start, place.mark * (end - start), place.style)
    last = ordered[-1]
    beside = all(reach(p)[1] <= reach(last)[0] for p in ordered[:-1])
    if beside:
        marks.append(last.text, last.style)
    hanging = [p for p in (ordered[:-1] if beside else ordered) if p.text]
    if not hanging:
        return [marks]
    rows = [marks, row_with(hanging)]
    while hanging:
        place = hanging.pop()
        row = row_with(hanging)
        row.write(reach(place)[0], place.text, place.style)
        rows.append(row)
    return rows
