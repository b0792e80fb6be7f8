"""The time line: when each level changes, over at most two periods of the slowest clock.

Scales are linear while that shows most levels' updates apart, else logarithmic; updates too close to be told
apart become a filled band.  The first update of a clock with offset 0 comes after one whole period.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nldsl.levels.draw.words import level_clocks
from nldsl.levels.graph import Clock, LevelGraph

APART = 3.5  # px between marks that an eye can tell apart
PERIODS = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One clock of one level; `period` and `offset` in tokens, `math.inf` for never, 0 for always."""

    rank: int
    clock: Clock
    period: float
    offset: float

    def first(self, after: float = 0.0) -> float:
        """The first update later than `after` tokens."""
        start = self.offset if self.offset > 0 else self.period
        return (
            start if start > after else start + (math.floor((after - start) / self.period) + 1) * self.period
        )


@dataclass(frozen=True, slots=True)
class Scale:
    """Tokens to px: `kind` over (0, `end`] onto `width` px; the logarithmic one starts at `start` tokens."""

    kind: Literal["linear", "log"]
    start: float
    end: float
    width: float

    def x(self, tokens: float) -> float:
        if self.kind == "linear":
            return tokens / self.end * self.width
        if tokens <= self.start:
            return 0.0
        return math.log(tokens / self.start) / math.log(self.end / self.start) * self.width


def rows_of(graph: LevelGraph) -> tuple[Row, ...]:
    """One row for each distinct clock of each level, fast to slow."""
    return tuple(
        Row(level[0].rank, clock, tokens, clock.offset * tokens / clock.period if clock.period else 0.0)
        for level in graph.levels
        for clock, tokens in level_clocks(level)
    )


def scale_for(rows: Sequence[Row], width: float) -> Scale | None:
    """The scale that shows most; None when no level ever changes by a clock."""
    periods = [r.period for r in rows if 0 < r.period < math.inf]
    if not periods:
        return None
    end = max(
        PERIODS * r.period + r.offset if r.offset < r.period else PERIODS * r.period
        for r in rows
        if r.period in periods
    )
    apart = sum(p / end * width >= APART for p in set(periods))
    if apart * 2 > len(set(periods)):
        return Scale("linear", 0.0, end, width)
    return Scale("log", min(periods) / 2, end, width)


def marks(row: Row, scale: Scale) -> tuple[list[float], float | None]:
    """Places in px of the updates that can be told apart, and where a band of them begins, if any."""
    if row.period == 0:
        return [], 0.0
    if math.isinf(row.period):
        return [], None
    out: list[float] = []
    at = row.first()
    while at <= scale.end * (1 + 1e-9):
        x = scale.x(at)
        # On either scale gaps never widen along the axis, so that one narrow gap starts the band.
        if scale.x(at + row.period) - x < APART:
            return out, x if out or scale.kind == "log" else 0.0
        out.append(x)
        at += row.period
    return out, None


def ticks(rows: Sequence[Row], scale: Scale) -> list[float]:
    """Places of axis labels, in tokens: quarters of the slowest period, or powers of ten."""
    if scale.kind == "linear":
        step = _round_step(max(r.period for r in rows if r.period < math.inf) / 4)
        return [i * step for i in range(int(scale.end / step + 1e-9) + 1)]
    ratio = 10 if scale.end / scale.start < 1e7 else 100
    first = ratio ** math.ceil(math.log(scale.start, ratio) - 1e-9)
    powers = [first * ratio**i for i in range(40)]
    return [p for p in powers if p <= scale.end]


def _round_step(wanted: float) -> float:
    """`wanted` itself when it is whole (clocks are mostly powers of two), else the next whole number."""
    return max(1.0, float(math.ceil(wanted)))
