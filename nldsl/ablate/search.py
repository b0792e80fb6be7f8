"""The search for widths: one that is narrowed to the goal, or a coarse one and a finer one together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, islice
from math import log

from nldsl import checks
from nldsl.ablate.surface import Surface
from nldsl.ablate.widths import Measured, Width
from nldsl.resolve import Resolution

NEAR = 2.0
"""A width stays between its value divided and multiplied by this, unless nothing else meets the bound."""
FAR = 8.0
"""And within this many times its value in any case."""
GRAINS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
"""Steps of a width that are tried after its divisors."""
SCANNED = 8
"""Values of a coarse width that are tried one by one; of more, those that a fitted surface says."""
TRIES = 64
"""Values beside one with errors that are tried in its place."""

Given = dict[str, int]


@dataclass(slots=True)
class Search:
    """One variant on its way to a goal."""

    measured: Measured
    variant: Resolution
    within: float
    goal: int
    grains: dict[str, int] = field(default_factory=dict)
    judged: dict[tuple[tuple[str, int], ...], bool] = field(default_factory=dict)
    known: set[tuple[str, str]] | None = None

    # ------------------------------------------------------------------ how near

    def meets(self, amount: int | None) -> bool:
        return amount is not None and abs(amount - self.goal) <= self.within * self.goal * (1 + 1e-12)

    def distance(self, given: Given) -> float:
        amount = self.measured.amount(given)
        return abs(amount - self.goal) if amount is not None else float("inf")

    def sound(self, given: Given) -> bool:
        """Whether the variant passes the checks with these widths as it does without."""
        key = tuple(sorted(given.items()))
        if key not in self.judged:
            if self.known is None:
                self.known = errors_of(self.variant)
            self.judged[key] = not new_errors(self.measured.resolved(given), self.known)
        return self.judged[key]

    def order(self, given: Given, chosen: list[Width]) -> tuple[float, float, tuple[tuple[str, int], ...]]:
        """Nearest first, then the smallest change."""
        return self.distance(given), change_of(given, chosen), tuple(sorted(given.items()))

    def closest(self, found: Iterable[Given], chosen: list[Width]) -> Given | None:
        """The nearest of `found` that has no errors and passes the checks."""
        known = [one for one in found if self.measured.amount(one) is not None]
        return next(
            (one for one in sorted(known, key=lambda g: self.order(g, chosen)) if self.sound(one)), None
        )

    # ------------------------------------------------------------------ stages

    def best(self, chosen: list[Width]) -> Given | None:
        """The widths to take: what meets the bound, else the nearest of all."""
        seen: list[Given] = []
        for factor in (NEAR, FAR):
            for stage in (self._singles, self._pairs):
                found = stage(chosen, factor, seen)
                if found is not None:
                    return found
        return self.closest(seen, chosen)

    def _singles(self, chosen: list[Width], factor: float, seen: list[Given]) -> Given | None:
        """One width: of those that touch the fewest components, the one that changes least."""
        for touched in sorted({len(one.touches) for one in chosen}):
            met: list[Given] = []
            for width in (one for one in chosen if len(one.touches) == touched):
                ends = self.bracket(width, {}, self.values(width, factor))
                seen += ends
                one = self.closest(ends, chosen)
                if one is not None and self.meets(self.measured.amount(one)):
                    met.append(one)
            if met:
                return min(met, key=lambda g: (change_of(g, chosen), tuple(g)))
        return None

    def _pairs(self, chosen: list[Width], factor: float, seen: list[Given]) -> Given | None:
        """Two widths: of the first pair that meets the bound, the values that change least."""
        for coarse, fine in self._by_touch(chosen):
            rows, columns = self._ranges(coarse, fine, factor)
            if not self._between(coarse, fine, rows, columns):
                continue
            found = self._along(coarse, fine, rows, columns)
            seen += found
            met = [one for one in found if self.meets(self.measured.amount(one)) and self.sound(one)]
            if met:
                return min(met, key=lambda g: (change_of(g, chosen), self.distance(g), sorted(g.items())))
        return None

    def _by_touch(self, chosen: list[Width]) -> list[tuple[Width, Width]]:
        """Pairs of widths, a coarse one and a finer one; those first that touch the fewest components."""
        pairs = [(max(p, key=self._grade), min(p, key=self._grade)) for p in combinations(chosen, 2)]
        return sorted(pairs, key=lambda p: (len(p[0].touches | p[1].touches), p[0].path, p[1].path))

    def _between(self, coarse: Width, fine: Width, rows: range, columns: range) -> bool:
        """Whether the goal lies between the least and the most that two ranges give; true where that is not
        known.
        """
        least, most = (self.measured.amount({coarse.path: rows[i], fine.path: columns[i]}) for i in (0, -1))
        return (least is None or least <= self.goal) and (most is None or most >= self.goal)

    def _along(self, coarse: Width, fine: Width, rows: range, columns: range) -> list[Given]:
        """The values of two widths at which the amount is nearest the goal, or near it with little change."""
        if len(rows) <= SCANNED:
            return [g for value in rows for g in self.bracket(fine, {coarse.path: value}, columns)]
        surface = Surface.fit(
            lambda a, b: self.measured.amount({coarse.path: a, fine.path: b}), rows, columns
        )
        if surface is None:  # some of the widths have errors: the values around the coarse one's own best
            near = [one[coarse.path] for one in self.bracket(coarse, {}, rows)]
            middle = rows.index(near[0]) if near else len(rows) // 2
            some = rows[max(0, middle - SCANNED // 2) : middle + SCANNED // 2]
            return [g for value in some for g in self.bracket(fine, {coarse.path: value}, columns)]
        curve = surface.curve(self.goal)
        slack = self.within * self.goal
        small = sorted(
            (max(abs(log(a / coarse.value)), abs(log(b / fine.value))), a, b)
            for away, a, b in curve
            if away <= slack
        )
        places = [(a, b) for _, a, b in (*sorted(curve)[:SCANNED], *small[:SCANNED])]
        return [{coarse.path: a, fine.path: b} for a, b in dict.fromkeys(places)]

    # ------------------------------------------------------------------ one width

    def values(self, width: Width, factor: float) -> range:
        """Values that a width can take at most so far from its own, in the steps that it allows."""
        grain = self.grain(width)
        low = width.value - int((width.value - width.value / factor) // grain) * grain
        high = width.value + int(width.value * (factor - 1) // grain) * grain
        return range(low, high + 1, grain)

    def grain(self, width: Width) -> int:
        """The smallest step that leaves the spec without errors: 4 where 4 heads divide the width."""
        if width.path not in self.grains:
            divisors = [d for d in range(1, width.value + 1) if width.value % d == 0]
            steps = sorted({*divisors, *GRAINS}, key=lambda d: (d not in divisors, d))
            works = (d for d in steps if self.measured.at({width.path: width.value + d}) is not None)
            self.grains[width.path] = next(works, width.value)
        return self.grains[width.path]

    def _grade(self, width: Width) -> tuple[float, str]:
        """How much one step of a width changes the amount: the finest first."""
        origin, point = (
            self.measured.amount({}),
            self.measured.amount({width.path: width.value + self.grain(width)}),
        )
        return abs((point or 0) - (origin or 0)), width.path

    def _ranges(self, coarse: Width, fine: Width, factor: float) -> tuple[range, range]:
        """The values of two widths that can matter: none beyond the goal where the other is least."""
        rows, columns = self.values(coarse, factor), self.values(fine, factor)
        return self._until(coarse, rows, {fine.path: columns[0]}), self._until(
            fine, columns, {coarse.path: rows[0]}
        )

    def _until(self, width: Width, values: range, given: Given) -> range:
        ends = self.bracket(width, given, values)
        last = max((one[width.path] for one in ends), default=values[-1])
        return range(values[0], last + 1, values.step)

    def bracket(self, width: Width, given: Given, values: range) -> list[Given]:
        """The two neighbouring values between which the goal lies; or the end that is nearest to it."""
        found = neighbours(
            lambda value: self.measured.amount({**given, width.path: value}), values, self.goal
        )
        return [{**given, width.path: value} for value in found]


def neighbours(amount: Callable[[int], int | None], values: range, goal: int) -> list[int]:
    """The values on both sides of `goal`, next to each other, of an amount that grows with the value.

    One value where all are above or below the goal.  Values without an amount are left out.
    """
    low = _valid(amount, values, range(len(values)))
    high = _valid(amount, values, range(len(values) - 1, -1, -1))
    if low is None or high is None:
        return []
    (left, least), (right, most) = low, high
    if least >= goal or left == right:
        return [values[left]]
    if most <= goal:
        return [values[right]]
    halve = False
    while right - left > 1:
        share = 0.5 if halve or most == least else (goal - least) / (most - least)
        middle = min(max(left + round(share * (right - left)), left + 1), right - 1)
        found = _valid(amount, values, _around(middle, left, right))
        if found is None:
            break
        index, here = found
        width = right - left
        if here == goal:
            return [values[index]]
        if here < goal:
            left, least = index, here
        else:
            right, most = index, here
        halve = right - left > width / 2
    return [values[left], values[right]]


def _around(middle: int, left: int, right: int) -> Iterator[int]:
    """Indices between two others, from the middle outwards."""
    for away in range(TRIES):
        for index in dict.fromkeys((middle - away, middle + away)):
            if left < index < right:
                yield index


def _valid(
    amount: Callable[[int], int | None], values: range, indices: Iterable[int]
) -> tuple[int, int] | None:
    """The first of some `indices` whose value has an amount, with it."""
    for index in islice(indices, TRIES):
        found = amount(values[index])
        if found is not None:
            return index, found
    return None


def errors_of(resolution: Resolution) -> set[tuple[str, str]]:
    """Errors of a resolved spec, those of its checks included."""
    found = [*resolution.findings, *checks.run(resolution, studies=False)]
    return {(d.code, d.message) for d in found if d.severity == "error"}


def new_errors(resolution: Resolution, known: set[tuple[str, str]]) -> list[str]:
    """What a spec gets wrong beside `known`."""
    return sorted(one[1] for one in errors_of(resolution) - known)


def change_of(given: Given, chosen: list[Width]) -> float:
    """The largest relative change of a width, doubled as much as halved."""
    values = {one.path: one.value for one in chosen}
    return max((abs(log(value / values[path])) for path, value in given.items()), default=0.0)
