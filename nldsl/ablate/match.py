"""Budgets that are held: widths, or the number of steps, at which a variant costs what its base does.

The search asks the level graph what a variant costs at other widths; nothing is built or run.  A cost grows
with a width, so that one width is found by narrowing an interval; where its steps are too coarse, as those of
a width that heads divide, a second one takes up the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import log

from nldsl import checks
from nldsl.ablate.rows import Keep
from nldsl.ablate.surface import Surface
from nldsl.ablate.widths import Measured, Site, Width, amount_of, sites, width_of, widths
from nldsl.diagnostics.model import Diagnostic, Span
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.levels.build import build
from nldsl.resolve import Resolution, resolve
from nldsl.resolve.amend import amendment, value_at
from nldsl.resolve.modules import Module
from nldsl.resolve.rewriting import NoSuchPath

__all__ = ["Held", "finding", "hold"]

UNITS = {"parameters": "parameters", "flops": "FLOPs per token", "time": "seconds"}
NEAR = 2.0
"""A width stays between its value divided and multiplied by this, unless nothing else holds the budget."""
FAR = 1024
"""And within this many times its value in any case."""
GRAINS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
SCANNED = 8
"""Values of a coarse width that are tried one by one; of more, the best by a fitted surface are."""


@dataclass(frozen=True, slots=True)
class Held:
    """How a budget is held.

    Attributes:
        amendments: what is to be added to those of the variant.
        words: what they change and how near that comes; "" where nothing had to be changed.
        why: why the budget cannot be held, with the nearest that can be had; None where it is held.
        help: what would mend that.
        tried: specs that were resolved on the way.
    """

    amendments: tuple[doc.Amendment, ...] = ()
    words: str = ""
    why: str | None = None
    help: str = ""
    tried: int = field(default=0, compare=False)

    @property
    def problem(self) -> str | None:
        """Why not, and what would mend it, in one line; None where the budget is held."""
        return None if self.why is None else f"{self.why}; {self.help}" if self.help else self.why


def hold(
    module: Module,
    base: str | None,
    shared: Sequence[doc.Amendment],
    amendments: Sequence[doc.Amendment],
    keep: Keep,
    *,
    seconds: tuple[float, float] | None = None,
) -> Held:
    """What holds the budget of a variant.

    Args:
        module: the file as linked.
        base: the run, or variant of one, that all variants change.
        shared: what changes the base and every variant alike (`--set`).
        amendments: what the variant changes.
        keep: what is held, how nearly, and by which paths; without paths the search picks widths.
        seconds: of one step of the base and of the variant; `time` needs them.

    Returns:
        No amendments where the variant has the budget as it is.  Otherwise those of the fewest components and
        the smallest change of widths that meet the bound; the same for the same arguments.
    """
    reference = resolve(module, variant=base, extra=list(shared))
    variant = resolve(module, variant=base, extra=[*shared, *amendments])
    broken = next((r for r in (reference, variant) if r.expanded is None), None)
    if broken is not None:
        return Held(why=_first_error(broken), tried=2)
    if keep.what == "time":
        return _hold_time(module, base, [*shared, *amendments], reference, variant, keep, seconds)
    assert reference.expanded is not None
    if reference.expanded.model is None:
        return Held(tried=1)
    measured = Measured(module, base, [*shared, *amendments], keep.what)
    goal = amount_of(build(reference.expanded), keep.what)
    search = _Search(measured, variant, keep, goal)
    if search.meets(measured.amount({})):
        return Held(tried=1 + len(measured.points))
    chosen, problem = _widths(search, variant, amendments)
    if problem is not None:
        return Held(why=problem[0], help=problem[1], tried=1 + len(measured.points))
    found = search.best(chosen)
    if found is not None and search.meets(measured.amount(found)):
        items = tuple(
            amendment("set", path, e.Number(value), keep.span) for path, value in sorted(found.items())
        )
        return Held(items, search.in_words(found, chosen), tried=1 + len(measured.points))
    why, mend = search.failure(found, chosen)
    return Held(why=why, help=mend, tried=1 + len(measured.points))


def finding(
    words: str, held: Held, place: Span | None, keep: Keep, *, severity: str = "warning"
) -> Diagnostic:
    """NL0605 for the variant `words`, whose budget cannot be held."""
    from nldsl.diagnostics.model import Label

    spots = [(place, "the variant"), (keep.span, "to be held")]
    labels = tuple(Label(span, text) for span, text in spots if span is not None)
    message = f"`{words}`: {held.why}"
    return Diagnostic("NL0605", message, labels, help=held.help or None, severity=severity)  # type: ignore[arg-type]


def _first_error(resolution: Resolution) -> str:
    return next((d.message for d in resolution.findings if d.severity == "error"), "the variant has errors")


# --------------------------------------------------------------------------- time


def _hold_time(
    module: Module,
    base: str | None,
    amendments: Sequence[doc.Amendment],
    reference: Resolution,
    variant: Resolution,
    keep: Keep,
    seconds: tuple[float, float] | None,
) -> Held:
    """Steps at which seconds of a step times steps agree."""
    assert reference.expanded is not None
    assert variant.expanded is not None
    first, second = reference.expanded.training, variant.expanded.training
    if first is None or second is None:
        return Held(why="time cannot be held: there is no run", help="write a `train` block", tried=2)
    if seconds is None or min(seconds) <= 0:
        return Held(
            why="time cannot be held: the seconds of a step are not known", help="calibrate the plan", tried=2
        )
    goal = seconds[0] * first.steps
    if abs(seconds[1] * second.steps - goal) <= keep.within * goal * (1 + 1e-12):
        return Held(tried=2)
    if second.steps != first.steps:
        return Held(
            why=f"time cannot be held: the variant sets `steps` to {second.steps:,} itself",
            help="leave `steps` to the budget, or hold something else",
            tried=2,
        )
    steps = max(1, round(goal / seconds[1]))
    off = seconds[1] * steps / goal - 1
    item = amendment("set", "steps", e.Number(steps), keep.span)
    wrong = _new_errors(resolve(module, variant=base, extra=[*amendments, item]), _errors(variant))
    if wrong or abs(off) > keep.within * (1 + 1e-12):
        because = f" has an error: {wrong[0]}" if wrong else f" comes nearest, {off:+.1%}"
        return Held(
            why=f"time cannot be held within {_percent(keep.within)}: `steps = {steps}`{because}",
            help="give the base more steps, or allow more",
            tried=3,
        )
    return Held((item,), f"steps {second.steps:,} -> {steps:,} holds time: {off:+.1%}", tried=3)


# --------------------------------------------------------------------------- which widths


def _widths(
    search: _Search, variant: Resolution, own: Sequence[doc.Amendment]
) -> tuple[list[Width], tuple[str, str] | None]:
    """The widths that may be changed, or why there are none and what would mend that."""
    what = search.keep.what
    if not search.keep.by:
        found = widths(search.measured, own)
        if found:
            return found, None
        training = variant.expanded.training if variant.expanded is not None else None
        read = training is not None and training.start is not None
        why = "its weights are read from a file" if read else "it has no width that could be changed"
        return [], (f"{search.off()}, and {why}", f"hold something other than {what}, or nothing")
    known = sites(variant, own)
    chosen: list[Width] = []
    for path in search.keep.by:
        site = _site(path, known, variant)
        if site is None:
            return [], (
                f"{search.off()}, and `{path}` is no whole number of this variant",
                "name a width that it has with `by`, or leave `by` out",
            )
        if site.own:
            return [], (
                f"{search.off()}, and the variant itself sets `{path}`",
                "name another width with `by`",
            )
        width = width_of(search.measured, site, strict=False)
        if width is None:
            return [], (f"{search.off()}, and `{path}` does not change that", "name another width with `by`")
        chosen.append(width)
    return chosen, None


def _site(path: str, known: list[Site], variant: Resolution) -> Site | None:
    """The number at a path as it is written, which may be another path than ours to the same number."""
    exact = next((one for one in known if one.path == path), None)
    if exact is not None or variant.base is None:
        return exact
    try:
        node = value_at(path, variant.base, variant.module)
    except NoSuchPath:
        return None
    same = next((one for one in known if node is not None and one.node is node), None)
    return Site(path, same.value, same.node, same.tied, same.own) if same is not None else None


# --------------------------------------------------------------------------- the search


Given = dict[str, int]


@dataclass(slots=True)
class _Search:
    """One variant on its way to a goal."""

    measured: Measured
    variant: Resolution
    keep: Keep
    goal: int
    grains: dict[str, int] = field(default_factory=dict)
    judged: dict[tuple[tuple[str, int], ...], bool] = field(default_factory=dict)
    known: set[tuple[str, str]] | None = None

    # ------------------------------------------------------------------ how near

    def meets(self, amount: int | None) -> bool:
        return amount is not None and abs(amount - self.goal) <= self.keep.within * self.goal * (1 + 1e-12)

    def distance(self, given: Given) -> float:
        amount = self.measured.amount(given)
        return abs(amount - self.goal) if amount is not None else float("inf")

    def sound(self, given: Given) -> bool:
        """Whether the variant passes the checks with these widths as it does without."""
        key = tuple(sorted(given.items()))
        if key not in self.judged:
            if self.known is None:
                self.known = _errors(self.variant)
            self.judged[key] = not _new_errors(self.measured.resolved(given), self.known)
        return self.judged[key]

    def order(self, given: Given, chosen: list[Width]) -> tuple[float, float, tuple[tuple[str, int], ...]]:
        """Nearest first, then the smallest change."""
        return self.distance(given), _change(given, chosen), tuple(sorted(given.items()))

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
        for factor in (NEAR, float(FAR)):
            for stage in (self._singles, self._pairs):
                found = stage(chosen, factor, seen)
                if found is not None:
                    return found
        for first, second in combinations(chosen, 2):
            seen += self._everywhere(first, second)
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
                return min(met, key=lambda g: (_change(g, chosen), tuple(g)))
        return None

    def _pairs(self, chosen: list[Width], factor: float, seen: list[Given]) -> Given | None:
        """Two widths: the coarser one as near as it comes, the finer one for the rest."""
        pairs = sorted(
            combinations(chosen, 2), key=lambda p: (len(p[0].touches | p[1].touches), p[0].path, p[1].path)
        )
        for pair in pairs:
            fine, coarse = sorted(pair, key=self._grade)
            found: list[Given] = []
            for end in self.bracket(coarse, {}, self.values(coarse, factor)):
                found += self.bracket(fine, end, self.values(fine, factor))
            seen += found
            one = self.closest(found, chosen)
            if one is not None and self.meets(self.measured.amount(one)):
                return one
        return None

    def _everywhere(self, first: Width, second: Width) -> list[Given]:
        """The nearest that two widths reach, wherever they stand."""
        fine, coarse = sorted((first, second), key=self._grade)
        rows, columns = self._range(coarse, fine), self._range(fine, coarse)
        if len(rows) <= SCANNED:
            ends = [self.bracket(fine, {coarse.path: value}, columns) for value in rows]
            return [one for found in ends for one in found]
        surface = Surface.fit(
            lambda a, b: self.measured.amount({coarse.path: a, fine.path: b}), rows, columns
        )
        if surface is None:  # some widths have errors: those around the coarse width's own best are tried
            near = [one[coarse.path] for one in self.bracket(coarse, {}, rows)]
            middle = rows.index(near[0]) if near else len(rows) // 2
            some = rows[max(0, middle - SCANNED // 2) : middle + SCANNED // 2]
            return [g for value in some for g in self.bracket(fine, {coarse.path: value}, columns)]
        return [{coarse.path: a, fine.path: b} for a, b in surface.nearest(self.goal, SCANNED)]

    # ------------------------------------------------------------------ one width

    def values(self, width: Width, factor: float) -> range:
        """Values that a width can take at most so far from its own, in the steps that it allows."""
        grain = self.grain(width)
        low = width.value - int((width.value - max(1, width.value / factor)) // grain) * grain
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

    def _range(self, width: Width, other: Width) -> range:
        """The values of a width that can matter where another is as narrow as it gets."""
        values = self.values(width, FAR)
        least = self.values(other, FAR)[0]
        ends = self.bracket(width, {other.path: least}, values)
        last = max((one[width.path] for one in ends), default=values[-1])
        return range(values[0], last + 1, values.step)

    def bracket(self, width: Width, given: Given, values: range) -> list[Given]:
        """The two neighbouring values between which the goal lies; or the end that is nearest to it."""
        found = neighbours(
            lambda value: self.measured.amount({**given, width.path: value}), values, self.goal
        )
        return [{**given, width.path: value} for value in found]

    # ------------------------------------------------------------------ words

    def off(self) -> str:
        """How far the variant is from the budget as it stands."""
        amount = self.measured.amount({}) or 0
        change = (amount - self.goal) / max(self.goal, 1)
        return (
            f"it has {amount:,} {UNITS[self.keep.what]}, and its base {self.goal:,} ({change:+.1%}, "
            f"more than {_percent(self.keep.within)})"
        )

    def in_words(self, found: Given, chosen: list[Width]) -> str:
        amount = self.measured.amount(found) or 0
        off = amount / self.goal - 1
        return f"{_said(found, chosen)} holds {self.keep.what}: {_small(off, self.keep.within)}"

    def failure(self, found: Given | None, chosen: list[Width]) -> tuple[str, str]:
        """Why the bound is not met, and what would mend that."""
        names = ", ".join(f"`{one.path}`" for one in chosen)
        if found is None:
            return f"{self.off()}, and no other value of {names} gives a sound spec", "name widths with `by`"
        amount = self.measured.amount(found) or 0
        off = amount / self.goal - 1
        unheld = self.distance({}) <= self.distance(found)
        nearest = "as it is" if unheld else f"{_said(found, chosen)} comes nearest, with {amount:,}"
        why = f"{self.off()}; {nearest} ({_small(off, self.keep.within)})"
        hint = "allow more" if len(chosen) > 1 else "name a finer width with `by`, or allow more"
        return why, f"{hint}, as in `within {_percent(_allowed(abs(off)))}`"


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
        outward = (
            sorted(range(left + 1, right), key=lambda i: (abs(i - middle), i)) if right - left < 64 else None
        )
        found = _valid(amount, values, outward if outward is not None else _around(middle, left, right))
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
    """Indices between two others, from the middle outwards, at most 64."""
    for away in range(32):
        for index in dict.fromkeys((middle - away, middle + away)):
            if left < index < right:
                yield index


def _valid(
    amount: Callable[[int], int | None], values: range, indices: Iterable[int]
) -> tuple[int, int] | None:
    """The first of `indices` whose value has an amount, with it."""
    for tries, index in enumerate(indices):
        found = amount(values[index])
        if found is not None:
            return index, found
        if tries >= 64:
            break
    return None


# --------------------------------------------------------------------------- small parts


def _errors(resolution: Resolution) -> set[tuple[str, str]]:
    """Errors of a resolved spec, those of its checks included."""
    found = [*resolution.findings, *checks.run(resolution, studies=False)]
    return {(d.code, d.message) for d in found if d.severity == "error"}


def _new_errors(resolution: Resolution, known: set[tuple[str, str]]) -> list[str]:
    return sorted(one[1] for one in _errors(resolution) - known)


def _change(given: Given, chosen: list[Width]) -> float:
    """The largest relative change of a width, doubled as much as halved."""
    values = {one.path: one.value for one in chosen}
    return max((abs(log(value / values[path])) for path, value in given.items()), default=0.0)


def _said(found: Given, chosen: list[Width]) -> str:
    values = {one.path: one.value for one in chosen}
    return " and ".join(f"{path} {values[path]} -> {value}" for path, value in sorted(found.items()))


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


def _small(share: float, within: float) -> str:
    """A share with as many digits as the bound asks for."""
    digits = 1
    while digits < 6 and round(100 * within, digits) != 100 * within:
        digits += 1
    return f"{share:+.{digits}%}"


def _allowed(share: float) -> float:
    """A round bound that allows a share."""
    step = 0.01
    while step > share and step > 1e-6:
        step /= 10
    return (share // step + 1) * step
