"""Where reading goes on after a mistake, and which bracket or brace a mistake is really about.

All functions look at the text alone, skipping strings and comments; none needs the parser.
"""

from __future__ import annotations

import re
from bisect import bisect_right

_MARKS = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"?|#[^\n]*|[(){}\[\]\n]')
_CLOSES = {")": "(", "]": "[", "}": "{"}


def matching_close(text: str, opening: int, limit: int = 20_000) -> int | None:
    """The place of the bracket that closes the one at `opening`, or None if another kind comes first."""
    stack: list[str] = []
    for mark in _MARKS.finditer(text, opening, opening + limit):
        kind = mark.group()
        if kind in "([{":
            stack.append(kind)
        elif kind in _CLOSES:
            if stack.pop() != _CLOSES[kind]:
                return None
            if not stack:
                return mark.start()
    return None


def indent_at(text: str, position: int) -> int:
    """How far the line of `position` is indented, in characters."""
    start = text.rfind("\n", 0, position) + 1
    return len(text[start:position]) - len(text[start:position].lstrip(" \t"))


def statement_end(text: str, position: int, *, indent: int | None = None) -> int:
    """Where the statement that is broken at `position` ends: at a line end, before a `}`, or at the end.

    Braces and well-closed brackets that open on the way are skipped whole.  With `indent`, lines that
    are indented deeper than that still belong to it.
    """
    at, depth = position, 0
    while mark := _MARKS.search(text, at):
        kind, at = mark.group(), mark.end()
        if kind in "([":
            close = matching_close(text, mark.start())
            at = at if close is None else close + 1
        elif kind == "{":
            depth += 1
        elif kind == "}":
            if depth == 0:
                return mark.start()
            depth -= 1
        elif kind == "\n" and depth == 0 and not _goes_on(text, at, indent):
            return mark.start()
    return len(text)


def _goes_on(text: str, line_start: int, indent: int | None) -> bool:
    end = text.find("\n", line_start)
    line = text[line_start : len(text) if end < 0 else end]
    bare = line.lstrip(" \t")
    if bare.startswith("|>"):
        return True
    return indent is not None and bool(bare.strip()) and len(line) - len(bare) > indent


def unclosed_by_indent(text: str) -> list[tuple[int, int]]:
    """Braces that by indentation are not closed: the brace, and the line start to close it before."""
    found: list[tuple[int, int]] = []
    stack: list[tuple[int, int, int]] = []  # position, indent of its line, line
    line_starts = [0, *(m.end() for m in re.finditer(r"\n", text))]
    for kind, position in _braces_and_lines(text):
        line = bisect_right(line_starts, position)
        indent = indent_at(text, position)
        first = text[line_starts[line - 1] : position].strip() == ""
        if first:
            closing = kind == "}"
            while (
                stack
                and stack[-1][2] < line
                and (indent < stack[-1][1] or (indent == stack[-1][1] and not closing))
            ):
                found.append((stack.pop()[0], position))
        if kind == "{":
            stack.append((position, indent, line))
        elif kind == "}" and stack:
            stack.pop()
    return found


def _braces_and_lines(text: str) -> list[tuple[str, int]]:
    """Every brace, and the first character of every line that holds more than a comment, in order."""
    events: list[tuple[str, int]] = []
    fresh, depth = True, 0
    for mark in re.finditer(r'"(?:[^"\\\n]|\\[^\n])*"?|#[^\n]*|\n|[ \t\r]+|\|>|.', text):
        piece = mark.group()
        if piece == "\n":
            fresh = True
        elif piece[0] in " \t\r#":
            continue
        else:
            if piece in "{}" or (fresh and piece != "|>" and depth == 0):
                events.append((piece, mark.start()))
            depth = max(0, depth + (piece in "([") - (piece in ")]"))
            fresh = False
    return events
