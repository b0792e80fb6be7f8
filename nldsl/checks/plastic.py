"""Checks of levels that go on learning at test time."""

from __future__ import annotations

from nldsl.checks.subject import Spot, Subject, report
from nldsl.levels.outer import OuterLevel
from nldsl.resolve.expanded import ChainLevel
from nldsl.resolve.findings import Findings

STREAM = 65_536
"""Tokens that `eval` lets plastic levels read unless it is told otherwise."""


def plastic_levels_are_due(subject: Subject, findings: Findings) -> None:
    """Every plastic level is due at least once while `eval` reads.

    Why: at test time one step stands for one sequence of one stream, so that a clock which is quick in
    training, where a step has a batch, may never be due in a text: the level only looks as if it learned.
    Non-goals: how long the streams are that somebody generates; levels that never change.
    """
    for level in subject.assignment.levels:
        if not level.plastic or level.clock.unit == "never":
            continue
        first = (level.clock.offset or level.clock.period) * subject.graph.facts[level.clock.unit]
        if first < STREAM:
            continue
        report(
            subject,
            findings,
            "NL0820",
            f"`{level.name}` is plastic and changes first after {first:,} tokens of a stream",
            _places(level),
            notes=(f"`nldsl eval` reads {STREAM:,} tokens, unless `--learn-tokens` says more",),
            help="use a shorter period, or leave `plastic` out",
            severity="warning",
        )


def _places(level: OuterLevel) -> list[Spot]:
    holders = [
        one.holder for one in level.weights if isinstance(one.holder, ChainLevel) and one.holder.plastic
    ]
    return [
        *((one.clock_span, "the clock") for one in holders),
        *((one.fields.get("plastic"), "learns on at test time") for one in holders),
    ]
