"""A small layout engine: pieces of text that share a line if they fit, after Wadler's "A prettier printer".

A document is a string, a tuple of documents, or one of the classes below.  A group is laid out on one
line when it fits into the width and holds no hard line end; otherwise each of its own `Line`s breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

REMARK = "\x00"
"""Marks, in laid out text, where a trailing comment begins."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line end, or `flat` when the group stays on one line."""

    flat: str = " "


@dataclass(frozen=True, slots=True)
class Hard:
    """A line end in any case, with `blank` empty lines after it."""

    blank: bool = False


@dataclass(frozen=True, slots=True)
class IfBroken:
    """`broken` when the group is broken, else `flat`."""

    broken: str
    flat: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """A trailing comment; it takes no part in what fits."""

    text: str


@dataclass(frozen=True, slots=True)
class Nest:
    """Lines inside are indented by `width` more; None indents them to the column where the nest begins."""

    width: int | None
    inner: Doc


@dataclass(frozen=True, slots=True)
class Group:
    """Laid out on one line if it fits; one that `yields` breaks before anything in front of it does."""

    inner: Doc
    yields: bool = False


Doc = Union[str, tuple["Doc", ...], Line, Hard, IfBroken, Remark, Nest, Group]  # noqa: UP007 (recursive)
_Item = tuple[int, bool, Doc]


def flat_width(doc: Doc) -> int | None:
    """The width of `doc` on one line, or None if it cannot stand on one.

    >>> flat_width(("a", Line(), "b"))
    3
    """
    match doc:
        case str():
            return len(doc)
        case Line(flat=flat) | IfBroken(flat=flat):
            return len(flat)
        case Hard() | Remark():
            return None
        case Nest(inner=inner) | Group(inner=inner):
            return flat_width(inner)
        case _:
            total = 0
            for part in doc:
                width = flat_width(part)
                if width is None:
                    return None
                total += width
            return total


def _fits(doc: Doc, room: int, rest: list[_Item]) -> bool:
    """Whether `doc` on one line, and what follows up to the next line end, takes at most `room`."""
    width = flat_width(doc)
    if width is None or width > room:
        return False
    room -= width
    for _, broken, item in reversed(rest):
        used, ended = _until_line(item, broken)
        room -= used
        if room < 0:
            return False
        if ended:
            return True
    return True


def _until_line(doc: Doc, broken: bool) -> tuple[int, bool]:
    match doc:
        case str():
            return len(doc), False
        case Line(flat=flat):
            return (0, True) if broken else (len(flat), False)
        case IfBroken(broken=text, flat=flat):
            return len(text if broken else flat), False
        case Hard() | Remark():
            return 0, True
        case Nest(inner=inner):
            return _until_line(inner, broken)
        case Group(inner=inner, yields=yields):
            return _until_line(inner, yields)
        case _:
            used = 0
            for part in doc:
                width, ended = _until_line(part, broken)
                used += width
                if ended:
                    return used, True
            return used, False


def render(doc: Doc, width: int) -> str:
    """The text of `doc`, its groups broken so that lines stay within `width` where they can.

    >>> render(Group(("f(", Nest(2, (Line(""), "a,", Line(), "b")), Line(""), ")")), 80)
    'f(a, b)'
    """
    out: list[str] = []
    column = 0
    stack: list[_Item] = [(0, True, doc)]
    while stack:
        indent, broken, item = stack.pop()
        match item:
            case str():
                out.append(item)
                column += len(item)
            case Line(flat=flat) if not broken:
                out.append(flat)
                column += len(flat)
            case Line():
                out.append("\n" + " " * indent)
                column = indent
            case Hard(blank=blank):
                out.append(("\n\n" if blank else "\n") + " " * indent)
                column = indent
            case IfBroken(broken=text, flat=flat):
                chosen = text if broken else flat
                out.append(chosen)
                column += len(chosen)
            case Remark(text=text):
                out.append(REMARK + text)
            case Nest(width=more, inner=inner):
                stack.append((column if more is None else indent + more, broken, inner))
            case Group(inner=inner):
                stack.append((indent, not _fits(inner, width - column, stack), inner))
            case _:
                stack.extend((indent, broken, part) for part in reversed(item))
    return "".join(out)
