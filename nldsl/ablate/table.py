"""A plan as text for people, and as JSON for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nldsl.ablate.plan import Plan
from nldsl.ablate.rows import Keep, Row
from nldsl.levels.draw.words import amount, count, size

if TYPE_CHECKING:
    from nldsl.ablate.calibrate import Estimate

WIDTH = 100
NARROWEST = 24
"""Columns that the words of a variant have at least beside their numbers."""

LISTED = 6
"""Variants of which a plan lists all that are left out; of more it says how many."""

HEADER = ("parameters", "FLOPs/token", "state/sequence")


def as_text(plan: Plan, estimate: Estimate | None = None, *, jobs: int = 1, width: int = WIDTH) -> str:
    """The variants of a plan with what they change and cost, and what the whole will take.

    `width` is that of the terminal, in cells; longer words are broken, numbers never.
    """
    lines = [*_wrapped(_headline(plan), width), ""]
    lines += _table(plan, estimate, width)
    for told in (
        _merged(plan),
        _problems(plan),
        _left_out(plan),
        _ending(plan, estimate, jobs),
    ):
        paragraph = [line for text in told for line in _wrapped(text, width)]
        lines += ["", *paragraph] if paragraph else []
    return "\n".join(lines)


def as_json(plan: Plan, estimate: Estimate | None = None, *, jobs: int = 1) -> str:
    """The same for programs; keys may be added within a version."""
    times = estimate.times if estimate is not None else {}
    rows = [
        {
            "name": row.name,
            "words": row.words,
            "question": row.question,
            "amendments": [_amendment(a) for a in row.amendments],
            "changes": list(row.changes),
            "digest": row.digest,
            "parameters": row.parameters,
            "flops_per_token": row.flops_per_token,
            "state_bytes": row.state_bytes,
            "steps": row.steps,
            "matched": row.matched,
            "merged": list(row.merged),
            "problem": row.problem,
            "seconds": round(times[row.name].trial(row), 3) if row.name in times else None,
            "seconds_measured": times[row.name].measured if row.name in times else None,
        }
        for row in plan.rows
    ]
    known = estimate is not None and bool(times)
    whole = {
        "version": 1,
        "name": plan.name,
        "base": plan.base,
        "seeds": list(plan.seeds),
        "measures": list(plan.measures),
        "baseline": plan.baseline,
        "keep": _keep(plan.keep),
        "trials": plan.trials,
        "rows": rows,
        "left_out": [{"words": words, "why": why} for words, why in plan.left_out],
        "estimate": {
            "seconds": round(estimate.total(plan), 3),
            "jobs": jobs,
            "wall_seconds": round(estimate.wall(plan, jobs), 3),
            "problem": estimate.problem,
        }
        if known and estimate is not None
        else None,
    }
    return json.dumps(whole, indent=2, ensure_ascii=False)


# --------------------------------------------------------------------------- the table


def _headline(plan: Plan) -> str:
    variants = amount(len(plan.rows) - 1, "variant")
    seeds = f"{amount(len(plan.seeds), 'seed')} each"
    return f"{plan.name} of {plan.base}: the base and {variants}, {seeds}: {amount(plan.trials, 'trial')}"


def _table(plan: Plan, estimate: Estimate | None, width: int) -> Iterator[str]:
    base = plan.rows[0]
    rows = plan.runnable
    header = (*HEADER, "a trial") if estimate is not None and estimate.times else HEADER
    cells = [_cells(row, base, estimate)[: len(header)] for row in rows]
    sizes = [max(len(text) for text in (header[i], *(c[i] for c in cells))) for i in range(len(header))]
    rest = width - sum(sizes) - 2 * len(sizes)
    wide = max(min(rest, max(len(row.words) for row in rows)), NARROWEST)

    def line(words: str, numbers: Sequence[str]) -> str:
        columns = (n.rjust(size) for n, size in zip(numbers, sizes, strict=True))
        return "  ".join([words.ljust(wide), *columns]).rstrip()

    yield line("variant", header)
    for row, numbers in zip(rows, cells, strict=True):
        first, *more = textwrap.wrap(row.words, wide, subsequent_indent="  ") or [""]
        yield line("base" if row is base else first, numbers)
        yield from () if row is base else more
        for told in _told(row, base):
            yield from textwrap.wrap(told, width, initial_indent="    ", subsequent_indent="      ")


def _told(row: Row, base: Row) -> Iterator[str]:
    """What is said of a row below its numbers."""
    if row is base:
        return
    if row.question:
        yield row.question
    for change in row.changes:
        if not _said(change, row.words):
            yield change
    if row.matched:
        yield row.matched


def _said(change: str, words: str) -> bool:
    """Whether the words of a variant say already that something is gone.

    >>> _said("A.key loses `conv(4)`", "without A.key.conv"), _said("A is gone", "without B.a")
    (True, False)
    """
    path, loses, part = change.removesuffix(" is gone").partition(" loses `")
    gone = f"{path}.{part.rstrip('`').partition('(')[0]}" if loses else path
    told = [piece.removeprefix("without ").removeprefix("remove ") for piece in words.split(", ")]
    return gone != change and any(gone == one or gone.endswith(f".{one}") for one in told)


def _cells(row: Row, base: Row, estimate: Estimate | None) -> tuple[str, ...]:
    numbers = [
        (f"{row.parameters:,}", row.parameters, base.parameters),
        (count(row.flops_per_token), row.flops_per_token, base.flops_per_token),
        (size(row.state_bytes), row.state_bytes, base.state_bytes),
    ]
    cells = [text if row is base else f"{text} {_change(value, of):>7}" for text, value, of in numbers]
    if row is base:
        cells = [f"{text} {'':>7}" for text in cells]
    times = estimate.times.get(row.name) if estimate is not None else None
    if times is not None:
        cells.append(f"{'' if times.measured else '~'}{duration(times.trial(row))}")
    return tuple(cells)


def _change(value: int, of: int) -> str:
    if value == of:
        return "="
    if not of:
        return "new"
    change = (value - of) / of
    return f"{change:+.1%}" if abs(change) < 10 else f"x{value / of:.0f}"


# --------------------------------------------------------------------------- below the table


def _merged(plan: Plan) -> Iterator[str]:
    for row in plan.rows:
        for words in row.merged:
            same = "the base" if row is plan.rows[0] else f"`{row.words}`"
            yield f"the same spec as {same}: {words}"


def _problems(plan: Plan) -> Iterator[str]:
    for row in plan.rows:
        if row.problem is not None:
            yield f"cannot be run: {row.words}: {row.problem}"


def _left_out(plan: Plan) -> Iterator[str]:
    reasons = dict.fromkeys(why for _, why in plan.left_out)
    for reason in reasons:
        words = [w for w, why in plan.left_out if why == reason]
        if len(words) == 1:
            yield f"left out: {words[0]}: {reason}"
        else:
            listed = f" ({', '.join(words)})" if len(words) <= LISTED else ""
            yield f"left out, {reason}: {amount(len(words), 'variant')}{listed}"


def _ending(plan: Plan, estimate: Estimate | None, jobs: int) -> Iterator[str]:
    budget = plan.keep
    if budget is not None:
        by = f" by {', '.join(budget.by)}" if budget.by else ""
        what = {"flops": "FLOPs per token", "time": "training time"}.get(budget.what, budget.what)
        how = " by the steps, once they are timed" if budget.what == "time" and not plan.seconds else by
        yield f"{what}: held within {budget.within * 100:.3g}%{how}"
    if plan.baseline != plan.rows[0].name:
        yield f"compared with: {plan.row(plan.baseline).words}"
    if estimate is None:
        return
    if not estimate.times:
        yield f"no time can be told: {estimate.problem or 'no step was done'}"
        return
    looked = [t for t in estimate.times.values() if t.measured]
    guessed = len(estimate.times) - len(looked)
    at_a_time = f"{amount(jobs, 'trial')} at a time"
    yield f"time: about {duration(estimate.wall(plan, jobs))} with {at_a_time}"
    fewest, most = min(t.steps for t in looked), max(t.steps for t in looked)
    steps = amount(most, "step") if fewest == most else f"{fewest} to {most} steps"
    made = f"told from {steps} of {amount(len(looked), 'variant')} in {duration(estimate.seconds)}"
    scaled = f"; {guessed} more (~) scaled by FLOPs: {estimate.problem}" if guessed else ""
    yield made + scaled


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(4.24), duration(42.3), duration(150), duration(9000), duration(200_000)
    ('4.2 s', '42 s', '2 min 30 s', '2 h 30 min', '55 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole < 36_000 else f"{whole // 3600} h"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ")


# --------------------------------------------------------------------------- plain values


def _keep(keep: Keep | None) -> dict[str, Any] | None:
    return None if keep is None else {"what": keep.what, "within": keep.within, "by": list(keep.by)}


def _amendment(item: Any) -> str:
    from nldsl.resolve.amend import in_words

    return in_words(item)
