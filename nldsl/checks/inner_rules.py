"""Declared rules inside the sequence: what they forget, keep and read."""

from __future__ import annotations

from nldsl.checks.rules import share_kept, takes_a_share
from nldsl.checks.subject import Subject, field_spots, report
from nldsl.resolve.algorithm import Algorithm
from nldsl.resolve.expanded import MemoryInstance
from nldsl.resolve.findings import Findings


def rules_of_memories(subject: Subject, findings: Findings) -> None:
    """The declared rule of a memory reads the gradient, keeps finite averages, and does not forget twice.

    Why: as in the outer loop; and `retain` has taken its share before the rule sees the weights, so its own
    decay forgets once more.
    Non-goals: rates at which a rule diverges: gates follow the token.
    """
    for one in subject.memories():
        rule = one.core.optimizer
        if rule is None:
            continue
        for memory in rule.memories:
            takes_a_share(subject, findings, one.fields.get("rule"), rule, memory)
        _reads_gradients(subject, findings, one, rule)
        _forgets_once(subject, findings, one, rule)


def _reads_gradients(subject: Subject, findings: Findings, one: MemoryInstance, rule: Algorithm) -> None:
    if "grad" in rule.signals():
        return
    report(
        subject,
        findings,
        "NL0554",
        f"`{rule.name}` reads no gradient, so `{one.name}` learns nothing",
        [*field_spots(subject, one, "rule", "the rule"), (rule.declared, "reads no `grad`")],
        fallback=one.span,
        help="use `grad` in `weight`, or in a memory that `weight` reads",
        severity="warning",
    )


def _forgets_once(subject: Subject, findings: Findings, one: MemoryInstance, rule: Algorithm) -> None:
    kept = share_kept(rule, rule.options | {"rate": 1.0})
    if "retain" not in one.flows or kept is None or kept >= 1:
        return
    report(
        subject,
        findings,
        "NL0557",
        f"`{one.name}` forgets twice: by `retain`, and by the decay of `{rule.name}`",
        [
            *field_spots(subject, one, "retain", "forgets"),
            *field_spots(subject, one, "rule", "forgets as well"),
        ],
        fallback=one.span,
        help="keep `retain`, or the decay",
        severity="warning",
    )
