"""The schedule of a run, before it runs: which outer level changes when, how often, and for how much.

Times are positions: tokens of one stream that went by, `length` of them a step.  A run takes its moments
from `codegen/runtime/schedule.py`; the counts here come by division, so that the one checks the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.levels import rules
from nldsl.levels.build import learned
from nldsl.levels.costs import BYTES
from nldsl.levels.graph import Clock, LevelGraph
from nldsl.levels.outer import Assignment, OuterLevel
from nldsl.levels.rule_costs import update_flops
from nldsl.records import record
from nldsl.resolve.expanded import Expanded

LOOKED_AT = 1_000  # steps, of which the segments are looked at
COUNTED = 1_000_000  # moments that are held against each other, one by one


@record
class Planned:
    """One outer level over the run.

    `first` is the position of its first update (None: there is none), `updates` and `resets` how often it
    changes and returns to its start.  `weights` and `memory` are the numbers that it learns and that its
    rule holds; `flops` those of one update, `share` what all of them are of the run's.
    """

    name: str
    rule: str
    clock: Clock
    reduce: str
    start: str
    reset: str
    first: int | None
    updates: int
    resets: int
    weights: int
    memory: int
    flops: int
    share: float


@record
class Schedule:
    """A run: `segments` are the shortest and the longest stretch, in tokens, that a gradient flows back over.

    `flops` are those of a step, forward and backward; `frozen` what no clock ever changes.
    """

    name: str
    steps: int
    length: int
    batch: int
    levels: tuple[Planned, ...]
    segments: tuple[int, int]
    flops: int
    frozen: tuple[str, ...] = ()


# --------------------------------------------------------------------------- clocks


def strikes(clock: Clock, begin: int, end: int) -> range:
    """The counts in (begin, end] at which a clock that counts from 0 is due.

    >>> list(strikes(Clock(4, "step", 1), 0, 10)), list(strikes(Clock(4, "step"), 4, 12))
    ([1, 5, 9], [8, 12])
    """
    first = clock.offset or clock.period
    periods = max(0, -(-(begin + 1 - first) // clock.period))
    return range(first + periods * clock.period, end + 1, clock.period)


def updates(clock: Clock, steps: int, length: int) -> int:
    """How often a clock is due in a run.

    >>> updates(Clock(3, "token"), 4, 8), updates(Clock(3, "token", partial="drop"), 4, 8)
    (10, 8)
    >>> updates(Clock(3, "token", partial="flush"), 4, 8), updates(Clock(3, "step", partial="flush"), 4, 8)
    (12, 2)
    """
    if clock.unit not in ("step", "token"):
        return 0
    flushes = clock.partial == "flush"
    if clock.unit == "step":
        found = strikes(clock, 0, steps)
        return len(found) + (flushes and steps > 0 and steps not in found)
    if clock.partial in ("", "carry"):
        return len(strikes(clock, 0, steps * length))
    found = strikes(clock, 0, length)
    return steps * (len(found) + (flushes and length not in found))


def moments(clock: Clock, begin: int, end: int, length: int, *, ends: bool = False) -> Iterator[int]:
    """The positions from the end of step `begin` to that of step `end` at which a clock is due, in order.

    `ends` says that the run ends with step `end`.

    >>> list(moments(Clock(3, "token", partial="flush"), 1, 3, 4)), list(moments(Clock(2, "step"), 0, 4, 8))
    ([7, 8, 11, 12], [16, 32])
    """
    flushes = clock.partial == "flush"
    if clock.unit == "step":
        found = strikes(clock, begin, end)
        yield from (step * length for step in found)
        if flushes and ends and end > begin and end not in found:
            yield end * length
    elif clock.unit == "token" and clock.partial in ("", "carry"):
        yield from strikes(clock, begin * length, end * length)
    elif clock.unit == "token":
        found = strikes(clock, 0, length)
        for step in range(begin, end):
            yield from (step * length + position for position in found)
            if flushes and length not in found:
                yield (step + 1) * length


def segments(clocks: list[Clock], steps: int, length: int) -> tuple[int, int]:
    """The shortest and the longest stretch between two cuts of a sequence, in the first 1,000 steps.

    >>> segments([Clock(6, "token")], 3, 8), segments([Clock(16, "token"), Clock(1, "step")], 3, 8)
    ((2, 6), (8, 8))
    """
    found: set[int] = set()
    for step in range(max(1, min(steps, LOOKED_AT))):
        cuts = {
            p - step * length for c in clocks if c.unit == "token" for p in moments(c, step, step + 1, length)
        }
        ends = sorted({*cuts, length})
        found.update(end - begin for begin, end in zip([0, *ends], ends, strict=False))
    return min(found), max(found)


# --------------------------------------------------------------------------- the run


def schedule(expanded: Expanded, assignment: Assignment, graph: LevelGraph) -> Schedule:
    """The schedule of a spec that trains; raises `ValueError` for one without a `train` block."""
    training = expanded.training
    if training is None:
        raise ValueError(f"`{expanded.name}` trains nothing")
    length, steps, tokens = training.data.length, training.steps, training.data.length * training.data.batch
    forward = graph.flops_per_token * tokens
    live = [level for level in assignment.levels if level.clock.unit != "never"]
    one_update = {level.name: _flops(level, length) for level in live}
    counted = {level.name: updates(level.clock, steps, length) for level in live}
    run = 3 * forward * steps + sum(one_update[name] * counted[name] for name in counted)
    planned = tuple(
        Planned(
            level.name,
            level.declared.rule.name,
            level.clock,
            level.reduce,
            level.start,
            level.reset,
            next(moments(level.clock, 0, steps, length, ends=True), None),
            counted[level.name],
            returned(level.name, live, steps, length),
            _learned(level, length).numbers,
            _memory(level, length),
            one_update[level.name],
            one_update[level.name] * counted[level.name] / run if run else 0.0,
        )
        for level in live
    )
    clocks = [clock for level in live for clock in (level.clock, reset_clock(level.reset)) if clock]
    still = tuple(w.path for level in assignment.levels if level.clock.unit == "never" for w in level.weights)
    return Schedule(
        training.name,
        steps,
        length,
        training.data.batch,
        planned,
        segments(clocks, steps, length),
        3 * forward,
        still,
    )


def reset_clock(reset: str) -> Clock | None:
    """The clock that a reset spells (`every 8 steps offset 2`); None for `with LEVEL` and for none.

    >>> reset_clock("every 8 steps"), reset_clock("with slow")
    (Clock(period=8, unit='step', offset=0, partial=''), None)
    """
    words = reset.split()
    if not words or words[0] != "every":
        return None
    offset = int(words[4]) if words[3:4] == ["offset"] else 0
    return Clock(int(words[1]), "token" if words[2].startswith("token") else "step", offset)


def returns(
    name: str, levels: list[OuterLevel] | tuple[Planned, ...], steps: int, length: int, begin: int = 0
) -> Iterator[int]:
    """The positions at which a level returns to its start, with repeats: by its clock, or with its parent."""
    level = next(one for one in levels if one.name == name)
    clock = reset_clock(level.reset)
    if clock is not None:
        yield from moments(clock, begin, steps, length)
    elif level.reset:
        parent = level.reset.removeprefix("with ")
        above = next((one for one in levels if one.name == parent), None)
        if above is not None:
            yield from moments(above.clock, begin, steps, length, ends=True)
            yield from returns(parent, levels, steps, length, begin)


def returned(name: str, levels: list[OuterLevel] | tuple[Planned, ...], steps: int, length: int) -> int:
    """How often a level returns to its start.

    Moments at which its parent changes and returns at once count once; of parents that return more than
    `COUNTED` times that is not looked at.
    """
    level = next(one for one in levels if one.name == name)
    clock = reset_clock(level.reset)
    if clock is not None:
        return updates(clock, steps, length)
    above = next((one for one in levels if one.name == level.reset.removeprefix("with ")), None)
    if not level.reset or above is None:
        return 0
    changes, again = updates(above.clock, steps, length), returned(above.name, levels, steps, length)
    if again > COUNTED:
        return max(changes, again)
    back = set(returns(above.name, levels, steps, length))
    return changes + sum(not _is_due(above.clock, position, steps, length) for position in back)


def _is_due(clock: Clock, position: int, steps: int, length: int) -> bool:
    step = (position - 1) // length
    return position in moments(clock, step, step + 1, length, ends=step + 1 == steps)


def _learned(level: OuterLevel, length: int) -> rules.Learned:
    return rules.together([learned(one, length) for one in level.weights])


def _flops(level: OuterLevel, length: int) -> int:
    return sum(
        update_flops(algorithm, what) for algorithm, _, what in rules.parts(level, _learned(level, length))
    )


def _memory(level: OuterLevel, length: int) -> int:
    """Numbers that the memories of a level's rule hold."""
    made, _ = rules.memories(level, _learned(level, length), lambda _: 0.0)
    return sum(component.state_bytes for component, _ in made) // BYTES


__all__ = [
    "Planned",
    "Schedule",
    "moments",
    "returned",
    "returns",
    "schedule",
    "segments",
    "strikes",
    "updates",
]
