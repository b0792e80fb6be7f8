"""Which variants an `ablate` block makes, as amendments of its base."""

from __future__ import annotations

import math
from itertools import product

from nldsl.diagnostics.model import Span
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.records import record
from nldsl.resolve.amend import amendment, in_words

MOST = 1000
"""Variants that one block may make."""


@record
class Planned:
    """One variant to make: its name, the changes of the base, the same in words, and where they are written.

    `spans` has the path, and after it the values where the block gives any.
    """

    name: str
    amendments: tuple[doc.Amendment, ...]
    words: str
    spans: tuple[Span, ...]


def count(ablate: doc.Ablate) -> int:
    """How many variants a block makes, without making them."""
    return sum(_size(axis) for axis in ablate.axes)


def _size(axis: doc.Axis) -> int:
    match axis.action:
        case "without":
            return len(axis.paths)
        case "vary" | "grid":
            return math.prod(len(values) for values in axis.values)
        case "zip":
            return min((len(values) for values in axis.values), default=0)


def variants(ablate: doc.Ablate) -> list[Planned]:
    """The variants of a block, in the order in which it is written.

    `without` removes each of its paths in turn, `vary` gives one path each of its values, `grid` gives
    several paths all combinations, and `zip` the values side by side.  Paths are checked when the
    amendments are applied (`nldsl.resolve.resolve(module, variant=ablate.base, extra=...)`).
    """
    planned: list[Planned] = []
    for axis in ablate.axes:
        if axis.action == "without":
            planned += [_removed(path, _span(axis, i)) for i, path in enumerate(axis.paths)]
            continue
        rows = zip(*axis.values, strict=False) if axis.action == "zip" else product(*axis.values)
        planned += [_given(axis, row) for row in rows]
    return planned


def _span(axis: doc.Axis, index: int) -> Span | None:
    return axis.path_spans[index] if index < len(axis.path_spans) else axis.span


def _removed(path: str, span: Span | None) -> Planned:
    one = amendment("remove", path, None, span)
    return Planned(f"without {path}", (one,), f"without {path}", (span,) if span is not None else ())


def _given(axis: doc.Axis, values: tuple[e.Expr, ...]) -> Planned:
    items = [
        amendment("set", path, value, _span(axis, index))
        for index, (path, value) in enumerate(zip(axis.paths, values, strict=False))
    ]
    words = ", ".join(in_words(item).removeprefix("set ") for item in items)
    spans = [*(item.path_span for item in items), *(value.span for value in values)]
    return Planned(words, tuple(items), words, tuple(s for s in spans if s is not None))
