"""Rules of outer levels: their memories, what they can learn, and steps that must diverge.

Source: REF a.5 (clocks), b.9 (what bounds a memory that erases), b.15 (the slow momentum of M3).
"""

from __future__ import annotations

import math
from dataclasses import replace

from nldsl.checks.subject import Spot, Subject, report
from nldsl.diagnostics.model import Span
from nldsl.levels.build import learned
from nldsl.levels.graph import Clock
from nldsl.levels.outer import OuterLevel
from nldsl.levels.rules import Learned, together
from nldsl.resolve.algorithm import (
    Algorithm,
    Figure,
    Formula,
    Function,
    Local,
    Negative,
    Operation,
    Option,
    Recall,
    RuleMemory,
    Signal,
    constant,
)
from nldsl.resolve.findings import Findings
from nldsl.resolve.formulas import replaced, text


def memories_are_due(subject: Subject, findings: Findings) -> None:
    """A memory of a rule with a period of its own is written before the run ends.

    Why: its period counts updates of its level, so a slow level multiplies it (REF b.15); what is never
    written is zero, and `m3` falls back to its near momentum.
    Non-goals: how many writes are enough.
    """
    training = subject.training
    if training is None:
        return
    for level in subject.assignment.levels:
        algorithm = level.declared.rule.algorithm
        if algorithm is None or level.clock.unit not in ("step", "token"):
            continue
        for memory in algorithm.memories:
            period = algorithm.period(memory)
            clock = Clock(period * level.clock.period, level.clock.unit)
            if (
                period > 1
                and float(clock.tokens(subject.graph.facts)) > training.steps * training.data.length
            ):
                report(
                    subject,
                    findings,
                    "NL0315",
                    f"the memory `{memory.name}` of `{level.name}` is due {clock}, "
                    f"and the run has {training.steps} steps",
                    [
                        (level.declared.rule.span, f"a period of {period} updates"),
                        (memory.span, "the memory"),
                        (level.declared.span, "the level"),
                        (training.spans.get("steps"), "the run"),
                    ],
                    help="give the rule a shorter period",
                    severity="warning",
                )


def weights_that_are_no_matrices(subject: Subject, findings: Findings) -> None:
    """A rule for matrices finds some, and says what becomes of the rest.

    Why: Muon, M3 and others mean something for matrices only; embeddings, heads and vectors go to
    `otherwise`, so a level without any other weights never uses the rule it names.
    Non-goals: levels of which only some weights are matrices, where there is an `otherwise`.
    """
    for level in subject.assignment.levels:
        algorithm = level.declared.rule.algorithm
        if algorithm is None or not algorithm.matrices:
            continue
        what, spots = _learned(level, subject), _spots(level, "needs matrices")
        if what.others and algorithm.otherwise is None:
            report(
                subject,
                findings,
                "NL0552",
                f"`{algorithm.name}` is for matrices, and `{level.name}` learns other weights too",
                [*spots, (algorithm.declared, "has no `otherwise`")],
                help="say in the optimizer what learns them, such as `otherwise adamw(rate)`",
            )
        elif what.others and algorithm.otherwise is not None and not _finds_a_matrix(level, subject):
            report(
                subject,
                findings,
                "NL0511",
                f"`{level.name}` has no matrix for `{algorithm.name}`, "
                f"so `{algorithm.otherwise.name}` learns all of it",
                spots,
                help=f"write `{algorithm.otherwise.name}(...)`",
                severity="warning",
            )


def rates_of_memories(subject: Subject, findings: Findings) -> None:
    """The memories of a rule stay finite.

    Why: an average takes a share between 0 and 1 of what is new; one with a rate above 2 moves away from what
    it is shown.  A memory that multiplies itself by more than 1 at every write grows without end.  One that
    erases along gradients is stable while rate |key|^2 < 1 + retain (REF b.9); `clip` bounds gradients.
    Non-goals: memories whose numbers change from update to update.
    """
    for level, algorithm in _algorithms(subject):
        for memory in algorithm.memories:
            takes_a_share(subject, findings, level.declared.rule.span, algorithm, memory)
            _erasing(subject, findings, level, algorithm, memory)


def takes_a_share(
    subject: Subject, findings: Findings, named: Span | None, algorithm: Algorithm, memory: RuleMemory
) -> None:
    """Report a memory that takes more of what is new, or keeps more of what it holds, than all of it."""
    rate, retain = constant(memory.rate, algorithm.options), constant(memory.retain, algorithm.options)
    spots: list[Spot] = [(named, "the rule"), (memory.span, "the memory")]
    if memory.objective == "l2" and memory.key is None and rate is not None and not 0 < rate <= 1:
        report(
            subject,
            findings,
            "NL0550",
            f"the average `{memory.name}` takes {rate:g} of what is new",
            [*spots, (memory.rate.span, text(memory.rate))],
            help="give a share above 0 and up to 1: with `rate = 1 - beta`, a beta from 0 to below 1",
        )
    if retain is not None and not 0 <= retain <= 1:
        report(
            subject,
            findings,
            "NL0550",
            f"the memory `{memory.name}` keeps {retain:g} of what it holds",
            [*spots, (memory.retain.span if memory.retain is not None else None, "what stays")],
            help="give a share from 0 to 1",
        )


def _erasing(
    subject: Subject, findings: Findings, level: OuterLevel, algorithm: Algorithm, memory: RuleMemory
) -> None:
    training = subject.training
    if training is None or training.clip is None or memory.implicit or memory.objective != "l2":
        return
    gradients = isinstance(memory.key, Signal) and memory.key.name == "grad"
    rate, retain = constant(memory.rate, algorithm.options), constant(memory.retain, algorithm.options)
    kept = 1.0 if memory.retain is None else retain
    if not gradients or memory.map.kind == "mlp" or rate is None or kept is None:
        return
    if rate * training.clip**2 > 1 + kept:
        report(
            subject,
            findings,
            "NL0551",
            f"the memory `{memory.name}` diverges on gradients of length {training.clip:g}, "
            "which `clip` lets through",
            [
                (level.declared.rule.span, "the rule"),
                (memory.rate.span, f"erases {rate:g} |grad|^2"),
                (training.spans.get("clip"), "the longest gradient"),
            ],
            help=f"keep it below {(1 + kept) / training.clip**2:g}, or write `rule = gd(implicit)`, "
            "which is always stable",
            severity="warning",
        )


def weights_that_grow(subject: Subject, findings: Findings) -> None:
    """Without gradients, a rule at its peak rate does not make weights larger.

    Why: `weight * (1 - rate * decay)` grows at every step once rate x decay is above 2, and changes sign on
    the way there; no gradient stops it.
    Non-goals: growth that gradients cause; rules of which the part of `weight` cannot be worked out.
    """
    for level, algorithm in _algorithms(subject):
        options = algorithm.options | {"rate": level.declared.rule.rate}
        kept = share_kept(algorithm, options)
        if kept is None or abs(kept) <= 1 + 1e-9:
            continue
        report(
            subject,
            findings,
            "NL0553",
            f"`{algorithm.name}` multiplies the weights of `{level.name}` by {kept:.4g} in each update",
            [(level.declared.rule.span, "at its peak rate"), (algorithm.weight.span, "the new weights")],
            help="lower the rate or the decay: their product is to stay below 1",
        )


def numbers_have_values(subject: Subject, findings: Findings) -> None:
    """What a rule works out from numbers alone has a value, and nothing is divided by 0.

    Why: `grad / eta` at `eta = 0`, or `sqrt(1 - beta)` at a beta above 1, would end the run
    at its first update.
    Non-goals: numbers that change from update to update, such as `step`; a run that meets one says so.
    """
    for level, algorithm in _algorithms(subject):
        options = algorithm.options | {"rate": level.declared.rule.rate}
        nodes = (node for formula in algorithm.formulas() for node in formula.walk())
        wrong = next((node for node in nodes if _without_value(node, algorithm, options)), None)
        if wrong is not None:
            report(
                subject,
                findings,
                "NL0205",
                f"`{text(wrong)}` in `{algorithm.name}` has no finite value",
                [(level.declared.rule.span, "the rule"), (wrong.span, "what it works out")],
                help="give numbers with which it has one",
            )


def reads_gradients(subject: Subject, findings: Findings) -> None:
    """A rule reads the gradient, or what the gradient is made of.

    Why: weights that change without it learn nothing from the data.
    Non-goals: whether what is made of it points downhill.
    """
    for level, algorithm in _algorithms(subject):
        if not algorithm.signals() & {"grad", "error"}:
            report(
                subject,
                findings,
                "NL0554",
                f"`{algorithm.name}` reads no gradient, so `{level.name}` learns nothing",
                [(level.declared.rule.span, "the rule"), (algorithm.declared, "reads no `grad`")],
                help="use `grad` in `weight`, or in a memory that `weight` reads",
                severity="warning",
            )


# --------------------------------------------------------------------------- what rules do


def _algorithms(subject: Subject) -> list[tuple[OuterLevel, Algorithm]]:
    """Each level's rule; one declared level may be several outer ones, and counts once."""
    seen: dict[str, tuple[OuterLevel, Algorithm]] = {}
    for level in subject.assignment.levels:
        algorithm = level.declared.rule.algorithm
        if algorithm is not None:
            seen.setdefault(level.declared.name, (level, algorithm))
    return list(seen.values())


def _without_value(formula: Formula, algorithm: Algorithm, options: dict[str, float | int]) -> bool:
    """Whether a formula has no value although all that it is made of has, or divides a tensor by 0."""
    local = dict(algorithm.locals)

    def inlined(node: Formula) -> Formula:
        return replaced(node, lambda one: inlined(local[one.name]) if isinstance(one, Local) else None)

    match inlined(formula):
        case Operation(op="/", right=right) if constant(right, options) == 0:
            return True
        case Operation(left=left, right=right) as node:
            parts = (left, right)
        case Function(arguments=parts) as node:
            pass
        case _:
            return False
    return constant(node, options) is None and all(constant(one, options) is not None for one in parts)


def _learned(level: OuterLevel, subject: Subject) -> Learned:
    length = subject.graph.facts["sequence"]
    return together([learned(one, length) for one in level.weights])


def _finds_a_matrix(level: OuterLevel, subject: Subject) -> bool:
    """Whether a declared level learns a matrix, be it at another clock or from another start than `level`."""
    alike = (one for one in subject.assignment.levels if one.declared is level.declared)
    return any(_learned(one, subject).matrices for one in alike)


def _spots(level: OuterLevel, label: str) -> list[Spot]:
    learns = [(span, "what it learns") for span in level.declared.learns_spans]
    return [(level.declared.rule.span, label), *learns]


def share_kept(algorithm: Algorithm, options: dict[str, float | int]) -> float | None:
    """What becomes of a weight of 1 where gradients and memories are 0, if it is in proportion to it."""
    if any(m.read == "after" and _reads_weight(m, algorithm) for m in algorithm.memories):
        return None
    once, twice = (_value(algorithm.weight, algorithm, options, weight) for weight in (1.0, 2.0))
    if once is None or twice is None or not math.isclose(twice, 2 * once, abs_tol=1e-12):
        return None
    return once


def _reads_weight(memory: RuleMemory, algorithm: Algorithm) -> bool:
    local = dict(algorithm.locals)
    waiting = list(memory.formulas())
    while waiting:
        for node in waiting.pop().walk():
            if isinstance(node, Signal) and node.name == "weight":
                return True
            if isinstance(node, Local):
                waiting.append(local[node.name])
    return False


def _value(
    formula: Formula, algorithm: Algorithm, options: dict[str, float | int], weight: float
) -> float | None:
    """A formula where the weight is one number and nothing else has come; None where that says nothing."""

    def at(node: Formula) -> Formula | None:
        """`node` with numbers for what it reads."""
        match node:
            case Signal(name="weight"):
                return Figure("number", weight)
            case Signal(name="grad") | Recall(query=None):
                return Figure("number", 0.0)
            case Signal(name="step" | "rows" | "columns" | "tokens"):
                return Figure("number", 1.0)
            case Local(name=name):
                return at(dict(algorithm.locals)[name])
            case Negative(operand=operand):
                inner = at(operand)
                return None if inner is None else replace(node, operand=inner)
            case Operation(left=left, right=right):
                a, b = at(left), at(right)
                return None if a is None or b is None else replace(node, left=a, right=b)
            case Function(name="orthogonal", arguments=(inner, _)):
                inside = at(inner)
                zero = inside is not None and constant(inside, options) == 0
                return Figure("number", 0.0) if zero else None
            case Function(name="mean" | "norm", arguments=(inner,)):
                return at(inner)
            case Function(arguments=arguments):
                made = tuple(one for argument in arguments if (one := at(argument)) is not None)
                return replace(node, arguments=made) if len(made) == len(arguments) else None
            case Figure() | Option():
                return node
            case _:
                return None

    made = at(formula)
    return None if made is None else constant(made, options)
