"""Levels of the task with weights of each sequence: returns, rates, and what `through` keeps.

Source: Nested Learning, section 7.1 (Eq. 71); REF d.2 to d.5.
"""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.checks.budget import in_words
from nldsl.checks.subject import Subject, report
from nldsl.levels import costs
from nldsl.levels.task import learns_within, resets
from nldsl.resolve.expanded import ChainInstance, ChainLevel
from nldsl.resolve.findings import Findings

STABLE = 500.0  # rate x tokens of a period x features; calibrated, see `rates_of_periods`
MUCH = 1 << 30  # bytes


def _levels(subject: Subject) -> Iterator[tuple[ChainInstance, ChainLevel]]:
    """The levels that learn from the task with weights of each sequence."""
    for chain in subject.chains():
        yield from ((chain, level) for level in chain.levels if learns_within(level))


def returns_within_the_chain(subject: Subject, findings: Findings) -> None:
    """A level of a sequence returns with a level of its own chain, and one that another teaches returns.

    Why: outer levels change between sequences only, when the weights are gone; and a start that is learned
    inside the sequence is read by nothing unless the weights return to it.
    Non-goals: names that no level has (`chains.levels_that_are_named`).
    """
    for chain, level in _levels(subject):
        beside = [one.name for one in chain.levels]
        name = f"{chain.name}.{level.name}"
        if level.reset_with is not None and level.reset_with not in beside:
            report(
                subject,
                findings,
                "NL0560",
                f"`{name}` lives within a sequence, and `{level.reset_with}` is no level of its chain",
                [(level.where("reset"), "changes elsewhere"), (level.span, f"`{level.name}`")],
                fallback=chain.span,
                help="return with a level of the same chain, or `every N tokens`",
            )
        elif level.start == "learned in" and level.teacher in beside and not resets(level, chain):
            report(
                subject,
                findings,
                "NL0561",
                f"`{level.teacher}` teaches a start that `{name}` never returns to",
                [(level.where("start"), "read by nothing"), (level.span, f"`{level.name}`")],
                fallback=chain.span,
                help=f"write `reset = with {level.teacher}` beside it, or leave `start` out",
                severity="warning",
            )


def rates_of_periods(subject: Subject, findings: Findings) -> None:
    """The rate of a level, times the tokens that one update adds up, times its features, stays in bounds.

    Why: the loss of a period that is added up is as steep as its tokens together.  For inputs x of unit mean
    square, `|x|^2` is the number of features, and one update moves an answer by about `rate * tokens * |x|^2`
    times the error: far above 1 the weights overshoot.
    Non-goals: proof; how steep the loss is also depends on all that follows the chain.  In the library's
    small model (`specs/cms_sequence.nl`, 60 steps) levels with 205 read better than weights that stand
    still, 2.83 against 2.87 nats, and with 820 worse, 2.97.
    """
    for chain, level in _levels(subject):
        tokens = level.clock.period if level.reduce == "sum" else 1
        width = int(chain.width)
        factor = (level.rate or 0.0) * tokens * width
        if factor <= STABLE:
            continue
        fitting = STABLE / (tokens * width)
        report(
            subject,
            findings,
            "NL0562",
            f"an update of `{chain.name}.{level.name}` goes {factor:,.0f} times as far as its error",
            [(level.where("rate"), "the rate"), (level.clock_span, f"{tokens} tokens in an update")],
            fallback=chain.span,
            notes=(f"{level.rate:g} x {tokens} tokens x {width} features",),
            help=f"use a rate below {fitting:.1g}" + (", or `reduce = mean`" if tokens > 1 else ""),
            severity="warning",
        )


def memory_of_through(subject: Subject, findings: Findings) -> None:
    """`gradient = through` keeps weights of each sequence for every update; together they stay below a GiB.

    Why: the outer loss goes back through each update, so all that it was made of is kept until then.
    Non-goals: what else a backward pass keeps, and `first_order`, which keeps no more than the forward reads.
    """
    training = subject.training
    if training is None:
        return
    for chain, level in _levels(subject):
        if level.gradient != "through":
            continue
        updates = max((training.data.length - 1) // level.clock.period, 0)
        weights = costs.chain_level(level, int(chain.width)).flops // 2
        copies = sum(n for one, n in subject.expanded.instances() if one is chain)
        size = 2 * updates * weights * costs.BYTES * training.data.batch * max(copies, 1)
        if size <= MUCH:
            continue
        report(
            subject,
            findings,
            "NL0563",
            f"`through` keeps {in_words(size)} of weights and gradients of `{chain.name}.{level.name}`",
            [(level.where("gradient"), "differentiated twice"), (level.clock_span, f"{updates} updates")],
            fallback=chain.span,
            notes=(f"{weights:,} weights, {training.data.batch} sequences, {max(copies, 1)} copies",),
            help="use `first_order`, a longer period, or a smaller batch",
            severity="warning",
        )


CHECKS = (returns_within_the_chain, rates_of_periods, memory_of_through)
