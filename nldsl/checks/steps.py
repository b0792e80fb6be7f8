"""Steps: gates that leave a memory nothing to do, and writes that can leave the numbers before training."""

from __future__ import annotations

from nldsl.checks.gates import bounds, is_constant
from nldsl.checks.subject import Subject, field_spots, report
from nldsl.diagnostics.model import Span
from nldsl.resolve.expanded import MemoryInstance
from nldsl.resolve.findings import Findings


def gates_at_their_ends(subject: Subject, findings: Findings) -> None:
    """A constant rate is not 0, and a constant momentum is not 1.

    Why: a memory with a rate of 0 is its start, whatever it is shown; a step that never fades is added again
    at every later token, so what one pair writes grows with the length of the sequence.
    Non-goals: gates that are learned, and come near to their ends.
    """
    for one in subject.memories():
        if one.core.map.kind == "cache" or one.core.rule == "ridge":
            continue
        if _stands_at(one, "rate", 0.0):
            report(
                subject,
                findings,
                "NL0519",
                f"the rate of `{one.name}` is 0, so nothing is ever written",
                [*field_spots(subject, one, "rate", "always 0")],
                fallback=one.span,
                help="give a rate above 0, such as `rate = 0.1`",
                severity="warning",
            )
        if _stands_at(one, "momentum", 1.0):
            report(
                subject,
                findings,
                "NL0519",
                f"the momentum of `{one.name}` is 1, so no step ever fades",
                [(_place_of_momentum(one), "always 1")],
                fallback=one.span,
                help="give a momentum below 1, such as 0.9",
                severity="warning",
            )


def _stands_at(one: MemoryInstance, name: str, end: float) -> bool:
    """Whether a gate is this number for every token and head."""
    flow = one.flows.get(name)
    if flow is None or not is_constant(flow):
        return False
    lies = bounds(flow, one)
    return lies.low == lies.high == end


def _place_of_momentum(one: MemoryInstance) -> Span | None:
    """The field, or the rule that stands for it."""
    return one.fields.get("momentum") or one.fields.get("rule")
