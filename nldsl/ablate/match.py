"""Budgets that are held: widths, or the number of steps, at which a variant costs what its base does.

The search asks the level graph what a variant costs at other widths; nothing is built or run.  A cost grows
with a width, so that one width is found by narrowing an interval; where its steps are too coarse, as those of
a width that heads divide, a second one takes up the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nldsl.ablate.rows import Keep
from nldsl.ablate.search import Given, Search, errors_of, new_errors
from nldsl.ablate.widths import Measured, Site, Width, amount_of, sites, width_of, widths
from nldsl.diagnostics.model import Diagnostic, Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.levels.build import build
from nldsl.resolve import Resolution, resolve
from nldsl.resolve.amend import amendment, value_at
from nldsl.resolve.modules import Module
from nldsl.resolve.rewriting import NoSuchPath

__all__ = ["Held", "finding", "hold"]

UNITS = {"parameters": "parameters", "flops": "FLOPs per token", "time": "seconds"}


@dataclass(frozen=True, slots=True)
class Held:
    """How a budget is held.

    Attributes:
        amendments: what is to be added to those of the variant.
        words: what they change and how near that comes; "" where nothing had to be changed.
        why: why the budget cannot be held, with the nearest that can be had; None where it is held.
        help: what would mend that.
        amount: parameters, FLOPs of a token, or seconds of the training that the variant has then; where the
            budget is not held, the nearest that was found.
        tried: specs that were resolved on the way.
    """

    amendments: tuple[doc.Amendment, ...] = ()
    words: str = ""
    why: str | None = None
    help: str = ""
    amount: float = 0
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
    measured = Measured(module, base, [*shared, *amendments], keep.what, variant)
    goal = amount_of(build(reference.expanded), keep.what)
    search = Search(measured, variant, keep.within, goal)
    now = measured.amount({}) or 0
    if search.meets(now):
        return Held(amount=now, tried=1 + len(measured.points))
    chosen, problem = _widths(search, variant, amendments, keep)
    if problem is not None:
        return Held(why=problem[0], help=problem[1], amount=now, tried=1 + len(measured.points))
    found = search.best(chosen)
    reached = (measured.amount(found) if found is not None else None) or now
    if found is not None and search.meets(reached):
        items = (amendment("set", path, e.Number(value), keep.span) for path, value in sorted(found.items()))
        words = _in_words(search, found, chosen)
        return Held(tuple(items), words, amount=reached, tried=1 + len(measured.points))
    why, mend = _failure(search, found, chosen)
    closest = min((now, reached), key=lambda amount: abs(amount - goal))
    return Held(why=why, help=mend, amount=closest, tried=1 + len(measured.points))


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
        return Held(amount=seconds[1] * second.steps, tried=2)
    if second.steps != first.steps:
        return Held(
            why=f"time cannot be held: the variant sets `steps` to {second.steps:,} itself",
            help="leave `steps` to the budget, or hold something else",
            amount=seconds[1] * second.steps,
            tried=2,
        )
    steps = max(1, round(goal / seconds[1]))
    off = seconds[1] * steps / goal - 1
    item = amendment("set", "steps", e.Number(steps), keep.span)
    wrong = new_errors(resolve(module, variant=base, extra=[*amendments, item]), errors_of(variant))
    if wrong or abs(off) > keep.within * (1 + 1e-12):
        because = f" has an error: {wrong[0]}" if wrong else f" comes nearest, {off:+.1%}"
        return Held(
            why=f"time cannot be held within {_percent(keep.within)}: `steps = {steps}`{because}",
            help="give the base more steps, or allow more",
            amount=seconds[1] * steps,
            tried=3,
        )
    words = f"steps {second.steps:,} -> {steps:,} holds time: {_small(off, keep.within)}"
    return Held((item,), words, amount=seconds[1] * steps, tried=3)


# --------------------------------------------------------------------------- which widths


def _widths(
    search: Search, variant: Resolution, own: Sequence[doc.Amendment], keep: Keep
) -> tuple[list[Width], tuple[str, str] | None]:
    """The widths that may be changed, or why there are none and what would mend that."""
    training = variant.expanded.training if variant.expanded is not None else None
    if training is not None and training.start is not None:
        why = "its weights are read from a file, with the widths that they have there"
        return [], (f"{_off(search)}, and {why}", "hold `time`, or nothing")
    if not keep.by:
        found = widths(search.measured, own)
        why = "it has no width that could be changed"
        return found, None if found else (f"{_off(search)}, and {why}", "hold `time`, or nothing")
    known = sites(variant, own)
    chosen: list[Width] = []
    reasons: list[tuple[str, str]] = []
    for path in keep.by:
        site = _site(path, known, variant)
        width = None
        if site is None:
            near = nearest(path, [one.path for one in known])
            mend = f"maybe `{near[0]}`" if near else "name a width that it has, or leave `by` out"
            reasons.append((f"the variant has no whole number `{path}`", mend))
        elif site.own:
            reasons.append((f"the variant itself sets `{path}`", "name another width with `by`"))
        else:
            width = width_of(search.measured, site, strict=False)
            if width is None:
                reasons.append((f"`{path}` does not change that", "name another width with `by`"))
        chosen += [width] if width is not None else []
    if chosen:
        return chosen, None
    return [], (f"{_off(search)}, and {reasons[0][0]}", reasons[0][1])


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


# --------------------------------------------------------------------------- words


def _off(search: Search) -> str:
    """How far the variant is from the budget as it stands."""
    amount = search.measured.amount({}) or 0
    change = (amount - search.goal) / max(search.goal, 1)
    return (
        f"it has {amount:,} {UNITS[search.measured.what]}, and its base {search.goal:,} ({change:+.1%}, "
        f"more than {_percent(search.within)})"
    )


def _in_words(search: Search, found: Given, chosen: list[Width]) -> str:
    off = (search.measured.amount(found) or 0) / search.goal - 1
    return f"{_said(found, chosen)} holds {search.measured.what}: {_small(off, search.within)}"


def _failure(search: Search, found: Given | None, chosen: list[Width]) -> tuple[str, str]:
    """Why the bound is not met, and what would mend that."""
    if found is None:
        names = ", ".join(f"`{one.path}`" for one in chosen)
        return (
            f"{_off(search)}, and no other value of {names} gives a sound spec",
            "name other widths with `by`",
        )
    if search.distance({}) <= search.distance(found):
        return f"{_off(search)}, and no width brings it nearer", "allow more, or name another width with `by`"
    amount = search.measured.amount(found) or 0
    off = amount / search.goal - 1
    closest = f"{_said(found, chosen, '`')} comes nearest, with {amount:,}"
    why = f"{_off(search)}; {closest} ({_small(off, search.within)})"
    hint = "allow more" if len(chosen) > 1 else "name a finer width with `by`, or allow more"
    enough = _allowed(abs(off))  # a block may allow less than 100%
    return why, f"{hint}, as in `within {_percent(enough)}`" if enough < 1 else "name a finer width with `by`"


def _said(found: Given, chosen: list[Width], mark: str = "") -> str:
    values = {one.path: one.value for one in chosen}
    changes = (f"{mark}{path}{mark} {values[path]:,} -> {value:,}" for path, value in sorted(found.items()))
    return " and ".join(changes)


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


def _small(share: float, within: float) -> str:
    """A share with as many digits as the bound asks for.

    >>> _small(0.0034, 0.02), _small(-0.0034, 0.0005), _small(-0.00001, 0.02)
    ('+0.3%', '-0.34%', '0.0%')
    """
    digits = 1
    while digits < 6 and abs(round(100 * within, digits) - 100 * within) > 1e-9:
        digits += 1
    said = f"{share:+.{digits}%}"
    return said if any(c in "123456789" for c in said) else said[1:]


def _allowed(share: float) -> float:
    """A round bound that allows a share.

    >>> _allowed(0.0317), _allowed(0.0041)
    (0.04, 0.005)
    """
    step = 0.01
    while step > share and step > 1e-6:
        step /= 10
    return round((share // step + 1) * step, 9)
