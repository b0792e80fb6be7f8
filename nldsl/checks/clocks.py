"""Clocks: periods against each other, against the sequence, and against the run.

Source: Nested Learning, definition 2 and eq. 71; REF a.4 and d.3.
"""

from __future__ import annotations

import math
from itertools import pairwise

from nldsl.checks.subject import Spot, Subject, field_spots, report
from nldsl.levels.graph import Clock
from nldsl.levels.outer import OuterLevel
from nldsl.resolve.expanded import ChainLevel, MemoryInstance, Segments
from nldsl.resolve.findings import Findings


def divisors(number: int) -> list[int]:
    """The divisors of a number, smallest first.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return low + [number // d for d in reversed(low) if d * d != number]


def near_divisors(number: int, wanted: int) -> str:
    """The divisors of `number` around `wanted`, in words.

    >>> near_divisors(512, 24)
    '16 or 32'
    """
    known = divisors(number)
    below = [d for d in known if d <= wanted][-1:]
    above = [d for d in known if d > wanted][:1]
    return " or ".join(str(d) for d in (*below, *above))


def near_multiples(number: int, wanted: int) -> str:
    """The multiples of `number` around `wanted`, in words.

    >>> near_multiples(4, 6)
    '4 or 8'
    """
    below = wanted // number * number
    return " or ".join(str(m) for m in (below, below + number) if m)


def nested_levels(subject: Subject, findings: Findings) -> None:
    """The periods of a chain's levels divide each other.

    Why: where 4 and 6 steps stand side by side, the slower level is now in phase with the faster one
    and now not, so what it compresses changes from update to update (REF d.3).
    Non-goals: levels of different chains, which share nothing but the loss.
    """
    facts = subject.graph.facts
    for chain in subject.chains():
        ticking = [level for level in chain.levels if level.clock.unit not in ("never", "always")]
        ordered = sorted(ticking, key=lambda level: level.clock.tokens(facts))
        for fast, slow in pairwise(ordered):
            if slow.clock.tokens(facts) % fast.clock.tokens(facts):
                _levels_apart(subject, findings, fast, slow, facts)


def _levels_apart(
    subject: Subject, findings: Findings, fast: ChainLevel, slow: ChainLevel, facts: dict[str, int]
) -> None:
    unit = facts[slow.clock.unit]
    inner, outer = int(fast.clock.tokens(facts)), int(slow.clock.tokens(facts))
    step = math.lcm(inner, unit)
    choices = [m // unit for m in (outer // step * step, (outer // step + 1) * step) if m]
    report(
        subject,
        findings,
        "NL0301",
        f"{slow.clock} is no multiple of {fast.clock}",
        [(slow.clock_span, f"`{slow.name}`"), (fast.clock_span, f"`{fast.name}`")],
        help=f"{' or '.join(str(c) for c in choices)} {slow.clock.unit}s would nest",
        severity="warning",
    )


def anchor_and_update(subject: Subject, findings: Findings) -> None:
    """An anchor is no shorter than its update, and a multiple of it.

    Why: reads see one copy of the weights for a whole update period; an anchor that moves inside it
    would be a second copy that no definition names.
    Non-goals: anchors that are words (`retained`, `current`).
    """
    for one in subject.memories():
        update, anchor = one.core.update, one.core.anchor
        if not isinstance(anchor, int) or update == 1 or anchor == update:
            continue
        spots = [
            *field_spots(subject, one, "anchor", "the anchor"),
            *field_spots(subject, one, "update", "the update"),
        ]
        if anchor < update:
            report(
                subject,
                findings,
                "NL0307",
                f"the anchor moves every {anchor} tokens, inside an update of {update}",
                spots,
                fallback=one.span,
                help=f"use `anchor = every {update} tokens` or a multiple, or leave `anchor` out",
            )
        elif anchor % update:
            report(
                subject,
                findings,
                "NL0301",
                f"an anchor of {anchor} tokens is no multiple of its update of {update}",
                spots,
                fallback=one.span,
                help=f"{near_multiples(update, anchor)} tokens would nest",
                severity="warning",
            )


def inside_the_sequence(subject: Subject, findings: Findings) -> None:
    """A memory's update comes within a sequence, and something reads it.

    Why: a memory returns to its start with every sequence, so an update at its end or after it
    changes nothing that any token sees, and nothing teaches the keys, values and gates.
    Non-goals: runs at test time on longer sequences; what `length` says is what is trained.
    """
    training = subject.training
    if training is None:
        return
    length = training.data.length
    for one in subject.memories():
        for update, path, spots in _updates(subject, one):
            where = [*spots, (training.data.spans.get("length") or training.data.span, "the sequence")]
            if update > length:
                report(
                    subject,
                    findings,
                    "NL0306",
                    f"`{path}` updates every {update} tokens, and a sequence has {length}",
                    where,
                    fallback=one.span,
                    help=f"use a period of at most {max(length // 2, 1)} tokens, or a longer sequence",
                )
            elif update == length and update > 1:
                report(
                    subject,
                    findings,
                    "NL0313",
                    f"nothing reads what `{path}` writes at the end of a sequence",
                    where,
                    fallback=one.span,
                    help=f"use a period below {length} tokens, such as {max(length // 2, 1)}",
                    severity="warning",
                )
        _anchored_reads(subject, findings, one, length)


def _anchored_reads(subject: Subject, findings: Findings, one: MemoryInstance, length: int) -> None:
    """Reads of `boundary` that are counted by an anchor: nothing is read where no period ends in time."""
    core = one.core
    if core.read != "boundary" or core.update > 1 or core.period < max(length, 2):
        return
    report(
        subject,
        findings,
        "NL0313",
        f"reads of `{one.name}` see what was written every {core.period} tokens, and a sequence has {length}",
        [
            *field_spots(subject, one, "anchor", f"{core.period} tokens"),
            *field_spots(subject, one, "read", "sees the period's start"),
            (subject.training.data.spans.get("length") if subject.training else None, "the sequence"),
        ],
        fallback=one.span,
        help=f"use a period below {length} tokens, such as {max(length // 2, 1)}, or `read = after`",
        severity="warning",
    )


def windows_within_the_sequence(subject: Subject, findings: Findings) -> None:
    """A window is no longer than the sequence.

    Why: before the first token there are no pairs, so what is beyond the sequence counts for nothing, and
    is paid for in every state that is kept.
    Non-goals: how long a good window is; runs at test time on longer sequences.
    """
    training = subject.training
    if training is None:
        return
    length, place = training.data.length, training.data.spans.get("length") or training.data.span
    for one in subject.memories():
        window = one.core.window
        if window is None or window <= length:
            continue
        report(
            subject,
            findings,
            "NL0318",
            f"the window of `{one.name}` has {window} tokens, and a sequence has {length}",
            [*field_spots(subject, one, "window", f"{window} tokens"), (place, "the sequence")],
            fallback=one.span,
            help=f"use a window of at most {length} tokens",
            severity="warning",
        )


def _updates(subject: Subject, one: MemoryInstance) -> list[tuple[int, str, list[Spot]]]:
    """Update periods of a memory and its adaptive projections with the places that set them."""
    found = [(one.core.update, one.name, field_spots(subject, one, "update", "the clock"))]
    for name, node in one.adaptives():
        period = node.settings.get("update")
        if isinstance(period, int):
            found.append((period, f"{one.name}.{name}.adaptive", [(node.span, "the clock")]))
    return found


def carries_within_reach(subject: Subject, findings: Findings) -> None:
    """No memory that returns to its start carries an open period into the next sequence.

    Why: a pending write belongs to weights that are gone by then.
    Non-goals: shared levels, whose periods run on from sequence to sequence.
    """
    for one in subject.memories():
        if one.core.partial == "carry":
            report(
                subject,
                findings,
                "NL0316",
                f"`{one.name}` starts anew with every sequence, so no period can be carried over",
                field_spots(subject, one, "update", "carries"),
                fallback=one.span,
                help="leave `carry` out: the open period then ends with the sequence",
            )


def divides_the_sequence(subject: Subject, findings: Findings) -> None:
    """Periods in tokens divide the sequence, or are multiples of it.

    Why: the last, shorter period of an update is dropped, so that no read ever sees its pairs, and no level
    of the task learns from it; that of an anchor has fewer tokens than all others (REF d.3).
    Non-goals: clocks that say `carry` or `flush`, and levels of the run's own length.
    """
    training = subject.training
    if training is None:
        return
    length, place = training.data.length, training.data.spans.get("length") or training.data.span
    for one in subject.memories():
        periods = [
            (p, path, spots) for p, path, spots in _updates(subject, one) if one.core.partial == "drop"
        ]
        anchor = one.core.anchor
        if isinstance(anchor, int) and anchor != one.core.update:
            periods.append((anchor, one.name, field_spots(subject, one, "anchor", "the anchor")))
        for period, path, spots in periods:
            here = _seen(one, length)
            if 1 < period < here and here % period:
                _uneven(subject, findings, period, path, here, [*spots, (place, f"{length} tokens")], one)
    for chain in subject.chains():
        for level in chain.levels:
            period = level.clock.period
            if (
                level.clock.unit == "token"
                and (level.clock.partial == "drop" or chain.scope == "sequence")
                and level.memory is None
                and 1 < period < length
                and length % period
            ):
                spots: list[Spot] = [(level.clock_span, "the clock"), (place, f"{length} tokens")]
                _uneven(subject, findings, period, f"{chain.name}.{level.name}", length, spots, None)


def _seen(one: MemoryInstance, length: int) -> int:
    """Tokens of the sequence that a memory sees before it begins anew."""
    return min([length, *(step.number for step in one.seen if step.kind == "segments")])


def segments_within_the_sequence(subject: Subject, findings: Findings) -> None:
    """A segment is no longer than the sequence.

    Why: such a segment never ends, so nothing in it begins anew, and what is read before it is written is the
    start, whatever the memory learned.
    Non-goals: a last, shorter segment, which is run as it is.
    """
    training = subject.training
    if training is None:
        return
    length, place = training.data.length, training.data.spans.get("length") or training.data.span
    for block in subject.blocks():
        for line in block.lines:
            if not isinstance(line.flow, Segments) or int(line.flow.length) <= length:
                continue
            many = int(line.flow.length)
            report(
                subject,
                findings,
                "NL0317",
                f"a segment of {many} tokens is longer than the sequence of {length}",
                [(line.flow.length.span or line.flow.span, f"{many} tokens"), (place, f"{length} tokens")],
                fallback=block.span,
                help="use shorter segments, or longer sequences",
                severity="warning",
            )


def _uneven(
    subject: Subject,
    findings: Findings,
    period: int,
    path: str,
    length: int,
    spots: list[Spot],
    one: MemoryInstance | None,
) -> None:
    near = near_divisors(length, period) if period < length else near_multiples(length, period)
    report(
        subject,
        findings,
        "NL0314",
        f"the period of `{path}`, {period} tokens, does not divide a sequence of {length}",
        spots,
        fallback=one.span if one is not None else None,
        help=f"{near} tokens would divide it evenly",
        severity="warning",
    )


def due_in_the_run(subject: Subject, findings: Findings) -> None:
    """Every outer level is due, at least once, before the run ends.

    Why: until then its weights stand where they were initialised.
    Non-goals: levels that say `never`; frozen weights are a choice.
    """
    training = subject.training
    if training is None:
        return
    whole = training.steps * training.data.length
    for level in subject.assignment.levels:
        first = _first(level.clock, subject.graph.facts)
        if math.isfinite(first) and first > whole:
            report(
                subject,
                findings,
                "NL0311",
                f"`{level.name}` is due {level.clock}, and the run ends before that",
                [*_clock_spots(level), (training.spans.get("steps"), f"{training.steps} steps")],
                help="use a shorter period or more steps, or `never` if the weights are meant to stand still",
                severity="warning",
            )


def _first(clock: Clock, facts: dict[str, int]) -> float:
    """Tokens of one stream until a clock is due for the first time."""
    if clock.unit in ("never", "always"):
        return math.inf if clock.unit == "never" else 0.0
    return float((clock.offset or clock.period) * facts[clock.unit])


def _clock_spots(level: OuterLevel) -> list[Spot]:
    own = [w.holder.clock_span for w in level.weights if isinstance(w.holder, ChainLevel)]
    return [
        *((span, "the clock") for span in own),
        (level.declared.clock_span, "the clock"),
        (level.declared.span, "the level"),
    ]


def evaluation_is_due(subject: Subject, findings: Findings) -> None:
    """Every `eval` is due before the run ends.

    Why: a run that was to be judged ends without a number.
    Non-goals: whether the interval is a sensible one.
    """
    training = subject.training
    if training is None:
        return
    for one in training.evaluations:
        if one.every > training.steps:
            report(
                subject,
                findings,
                "NL0312",
                f"evaluation comes every {one.every} steps, and the run has {training.steps}",
                [(one.span, "never due"), (training.spans.get("steps"), "the run")],
                help=f"evaluate every {max(training.steps // 10, 1)} steps, for instance",
                severity="warning",
            )
