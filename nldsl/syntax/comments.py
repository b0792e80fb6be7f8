"""Comments: found by position, then handed to the statements they belong to.

The same rules serve `.nl` text and YAML, which both start a comment with `#`:

- a comment on the line where a statement ends is that statement's `trailing` one;
- a comment inside a statement, or on lines above it, is one of its `comments`;
- what is left before the closing brace (or the end of the file) closes the body.

An empty line among a statement's comments is kept as `BLANK_LINE`, so that a file's
opening remark does not melt into the first declaration's.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nldsl.diagnostics.model import Span
from nldsl.document.expr import Expr, Name, Statement

BLANK_LINE = "\n"

_STRING_OR_COMMENT = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"?|#[^\n]*')
_EMPTY_LINE = re.compile(r"\n[ \t\r]*\n")


@dataclass(slots=True)
class Comment:
    """One comment: `[start, end)` in the text, and what it says without its `#`."""

    start: int
    end: int
    text: str
    taken: bool = False


def comment_text(raw: str) -> str:
    """What a comment says: without `#`, one leading space and trailing blanks."""
    return raw[1:].rstrip().removeprefix(" ")


def find_comments(text: str) -> list[Comment]:
    """All comments of `.nl` text, in order; a `#` inside a string is none."""
    return [
        Comment(m.start(), m.end(), comment_text(m.group()))
        for m in _STRING_OR_COMMENT.finditer(text)
        if m.group().startswith("#")
    ]


@dataclass(slots=True)
class Draft:
    """A statement that does not have its comments yet; `value` is None where one could not be read."""

    start: int
    end: int
    value: Expr | None = None
    target: Expr | None = None
    label: Name | None = None
    span: Span | None = None
    trailing: str | None = None
    comments: list[str] = field(default_factory=list)
    head_end: int | None = None
    """A comment on the line that ends here is a trailing one too: YAML keys with a body."""
    inner_comments: tuple[str, ...] = ()
    inner_trailing: str | None = None


class CommentBook:
    """The comments of one text, given away body by body, innermost first."""

    def __init__(self, text: str, comments: list[Comment]) -> None:
        self._text = text
        self._comments = comments
        self._starts = [c.start for c in comments]

    def _within(self, start: int, end: int) -> Iterator[Comment]:
        low, high = bisect_left(self._starts, start), bisect_left(self._starts, end)
        return (c for c in self._comments[low:high] if not c.taken)

    def _empty_line(self, start: int, end: int) -> bool:
        return _EMPTY_LINE.search(self._text, start, end) is not None

    def _same_line(self, start: int, end: int) -> bool:
        return self._text.find("\n", start, end) < 0

    def _leading(self, comments: list[Comment], end: int) -> list[str]:
        lines: list[str] = []
        for i, comment in enumerate(comments):
            lines.append(comment.text)
            following = comments[i + 1].start if i + 1 < len(comments) else end
            if self._empty_line(comment.end, following):
                lines.append(BLANK_LINE)
        return lines

    def finish(
        self, drafts: Sequence[Draft], start: int, end: int
    ) -> tuple[tuple[Statement, ...], tuple[str, ...]]:
        """The statements of a body at `[start, end)`, with their comments, and its closing comments."""
        kept: list[tuple[Draft, bool]] = []
        waiting: list[Comment] = []
        queue = list(self._within(start, end))
        at, previous, previous_end = 0, None, start
        for draft in drafts:
            while at < len(queue) and queue[at].start < draft.start:
                at = self._place(queue, at, previous, previous_end, waiting)
            above = waiting[0].start if waiting else draft.start
            blank = previous is not None and self._empty_line(previous_end, above)
            draft.comments = self._leading(waiting, draft.start)
            waiting = []
            while at < len(queue) and queue[at].start < draft.end:
                self._take_inside(queue[at], draft)
                at += 1
            kept.append((draft, blank))
            previous, previous_end = draft, draft.end
        while at < len(queue):
            at = self._place(queue, at, previous, previous_end, waiting)
        closing = self._leading(waiting, end)
        if closing and closing[-1] == BLANK_LINE:
            closing.pop()
        return tuple(_statement(d, d.value, blank) for d, blank in kept if d.value is not None), tuple(
            closing
        )

    def _take_inside(self, comment: Comment, draft: Draft) -> None:
        comment.taken = True
        beside_head = draft.head_end is not None and self._same_line(draft.head_end, comment.start)
        if beside_head and draft.trailing is None:
            draft.trailing = comment.text
        else:
            draft.comments.append(comment.text)

    def _place(
        self, queue: list[Comment], at: int, previous: Draft | None, end: int, waiting: list[Comment]
    ) -> int:
        comment = queue[at]
        comment.taken = True
        trails = previous is not None and previous.trailing is None and self._same_line(end, comment.start)
        if previous is not None and trails:
            previous.trailing = comment.text
        else:
            waiting.append(comment)
        return at + 1


def _statement(draft: Draft, value: Expr, blank_before: bool) -> Statement:
    return Statement(
        value,
        draft.target,
        draft.label,
        span=draft.span,
        comments=(*draft.comments, *draft.inner_comments),
        trailing=draft.trailing if draft.trailing is not None else draft.inner_trailing,
        blank_before=blank_before,
    )
