"""Proposals that exchange rules and objectives for their nearest kin.

Kin are near by their algebra: one term more or less, or one function in place of another.
"""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.ablate.propose.proposal import Proposal, asks, given, removed
from nldsl.ablate.propose.subject import Part, Subject
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.calls import function_name
from nldsl.resolve.rewriting import arguments_known

OBJECTIVES = {
    "l2": ("dot", "huber(1)"),
    "dot": ("l2",),
    "lp": ("l2",),
    "huber": ("l2",),
    "oja": ("dot",),
    "expression": ("l2",),
}
"""`dot` is `l2` without what the memory already answers; `huber` is `l2` with bounded errors, `lp` with
another power; `oja` is `dot` with what the value recalls taken away."""

RULES = {
    "gd": ("dgd", "momentum(0.9)", "muon"),
    "gd(implicit)": ("gd",),
    "dgd": ("gd", "dgd(explicit)"),
    "dgd(explicit)": ("gd", "dgd"),
    "dgd(first_layer)": ("gd", "dgd"),
    "muon": ("gd",),
    "momentum": ("gd",),
    "ridge": ("gd",),
    "optimizer": ("gd",),
}
"""`dgd` is `gd` that also forgets along the key; `muon` is `gd` with momentum whose steps are orthogonal;
`ridge` is the limit of `gd` on all pairs at once."""

OUTER = {
    "gd": ("momentum",),
    "momentum": ("gd", "nesterov"),
    "nesterov": ("momentum",),
    "adagrad": ("rmsprop",),
    "rmsprop": ("adam",),
    "adam": ("adamw",),
    "adamw": ("adam", "muon"),
    "muon": ("adamw", "m3"),
    "m3": ("muon", "adamw"),
    "dgd": ("gd",),
    "delta_momentum": ("momentum",),
    "deep_momentum": ("momentum",),
}
"""`adam` decays through the gradient and `adamw` apart from it; `muon` is a momentum made orthogonal, `m3`
two of them with two clocks."""

TARGETS = (("self", "value"), ("self |> unit", "value"), ("self |> unit", "self"))


def objectives(subject: Subject) -> Iterator[Proposal]:
    """Each memory with the nearest kin of its objective."""
    for part in subject.parts:
        if part.core is None:
            continue
        twice = part.core.objective == "dot" and _rule_of(part).startswith("dgd")
        for kin in OBJECTIVES.get(part.core.objective, ()):
            more: list[doc.Amendment] = []
            says: list[str] = []
            if twice and kin == "l2":
                more.append(given(f"{part.name}.rule", "gd"))
                says.append("gd, as l2 erases by itself")
            if kin == "l2" and part.core.objective == "dot" and not _of_unit_length(part):
                more.append(given(f"{part.name}.key", _with_stage(part.fields["key"], "unit")))
                says.append("keys of length 1, so that no step overshoots")
            yield asks(
                f"does {part.name} learn better from {kin} than from {part.core.lowers}?"
                + (f" ({'; '.join(says)})" if says else ""),
                given(f"{part.name}.objective", kin),
                *more,
            )


def rules(subject: Subject) -> Iterator[Proposal]:
    """Each memory with the nearest kin of its rule."""
    for part in subject.parts:
        if part.core is None:
            continue
        word = _rule_of(part)
        for kin in RULES.get(word, RULES.get(part.core.rule, ())):
            if ("momentum" in part.fields) == kin.startswith("momentum") and kin in ("momentum(0.9)", "muon"):
                continue
            question = f"is {kin} as good a rule for {part.name} as {word}?"
            more: tuple[doc.Amendment, ...] = ()
            if word == "gd(implicit)" and not _of_unit_length(part):
                more = (given(f"{part.name}.key", _with_stage(part.fields["key"], "unit")),)
                question += " (keys of length 1, so that no step overshoots)"
            yield asks(question, given(f"{part.name}.rule", kin), *more)


def targets(subject: Subject) -> Iterator[Proposal]:
    """Each memory that makes its own targets, learning other ones."""
    for part in subject.parts:
        core = part.core
        if core is None or "target" not in part.fields:
            continue
        word = ("self |> unit" if core.target_unit else "self") if core.target == "self" else "value"
        for old, new in TARGETS:
            if old == word:
                says = {"value": "the value itself", "self": "its own answer, however long"}[new]
                yield asks(f"should {part.name} be taught {says}?", given(f"{part.name}.target", new))


def outer_rules(subject: Subject) -> Iterator[Proposal]:
    """Each outer level with the nearest kin of its rule, at the same rate and schedule."""
    for level in subject.train.levels:
        rule = level.fields.get("rule")
        if not isinstance(rule, e.Call) or _stands_still(level):
            continue
        for kin in OUTER.get(rule.function.text, _by_memories(subject.rule(rule.function.text))):
            yield asks(
                f"is {kin} as good a rule for {level.name} as {rule.function.text}?",
                given(f"{level.name}.rule", _carried(subject, rule, kin)),
            )


def outer_terms(subject: Subject) -> Iterator[Proposal]:
    """Each outer level without the decay of its rule, and without the average of its gradients."""
    for level in subject.train.levels:
        rule = level.fields.get("rule")
        declared = subject.rule(rule.function.text) if isinstance(rule, e.Call) else None
        if declared is None or not isinstance(rule, e.Call) or _stands_still(level):
            continue
        path = f"{level.name}.rule"
        decay = rule.get("decay")
        if isinstance(decay, e.Number) and decay.value:
            yield asks(f"does {level.name} need weight decay?", removed(f"{path}.decay"))
        for name in _averages(declared):
            yield asks(
                f"does {declared.name} at {level.name} need momentum? ({name} = 0)",
                given(f"{path}.{name}", "0"),
            )
        if isinstance(_peak(rule), e.Pipe):
            peak = _peak(rule)
            assert isinstance(peak, e.Pipe)
            yield asks(f"does {level.name} need a schedule? (one rate)", given(f"{path}.rate", peak.source))


def memories_of_rules(subject: Subject) -> Iterator[Proposal]:
    """Each memory of gradients in a rule with the kin of its objective, and of its rule.

    What `l2` writes is an average, what `dot` writes a sum.  A sum without retention grows without end, so
    only memories that forget become sums.
    """
    for optimizer in _optimizers(subject):
        for memory in optimizer.memories:
            path = f"{optimizer.name}.{memory.name}"
            objective = memory.fields.get("objective")
            word = objective.text if isinstance(objective, e.Name) else ""
            if word == "l2" and "retain" in memory.fields:
                yield asks(
                    f"does the {memory.name} of {optimizer.name} need to erase before it writes?",
                    given(f"{path}.objective", "dot"),
                    *((given(f"{path}.rule", "gd"),) if "rule" in memory.fields else ()),
                )
            if word == "dot" and _forgets(memory) and memory.fields.get("rate") != e.Number(1):
                yield asks(
                    f"should the {memory.name} of {optimizer.name} erase what it holds before it writes?",
                    given(f"{path}.objective", "l2"),
                )


def _of_unit_length(part: Part) -> bool:
    key = part.fields["key"]
    return isinstance(key, e.Pipe) and any(function_name(stage) == "unit" for stage in key.stages)


def _with_stage(value: e.Expr, stage: str) -> e.Expr:
    made = e.Name((stage,))
    return (
        e.Pipe(value.source, (*value.stages, made)) if isinstance(value, e.Pipe) else e.Pipe(value, (made,))
    )


def _rule_of(part: Part) -> str:
    written = part.fields.get("rule")
    return print_expr(written) if written is not None else "gd"


def _optimizers(subject: Subject) -> list[doc.Optimizer]:
    found = []
    for level in subject.train.levels:
        rule = level.fields.get("rule")
        declared = subject.rule(rule.function.text) if isinstance(rule, e.Call) else None
        if declared is not None and declared not in found and not _stands_still(level):
            found.append(declared)
    return found


def _by_memories(declared: doc.Optimizer | None) -> tuple[str, ...]:
    """The kin of a rule that somebody declared: the plainest with as many memories."""
    if declared is None:
        return ()
    return (("gd",), ("momentum",))[len(declared.memories)] if len(declared.memories) < 2 else ("adamw",)


def _carried(subject: Subject, rule: e.Call, kin: str) -> e.Expr:
    """A call of `kin` with the rate and the decay of `rule`."""
    known = arguments_known(kin, subject.module) or []
    rate = _peak(rule)
    arguments = [e.Argument(rate, "rate")] if rate is not None else []
    decay = rule.get("decay")
    if decay is not None and "decay" in known:
        arguments.append(e.Argument(decay, "decay"))
    return e.Call(e.Name((kin,)), tuple(arguments))


def _peak(rule: e.Call) -> e.Expr | None:
    return rule.get("rate") or (rule.positional[0] if rule.positional else None)


def _averages(declared: doc.Optimizer) -> list[str]:
    """The parameters that say how much of its gradients a rule keeps, one for each memory of gradients.

    They stand in `rate = 1 - beta` under `l2`, or in `retain = beta` under `dot`; memories with a clock of
    their own are left alone.
    """
    found: list[str] = []
    own = {p.name for p in declared.parameters}
    for memory in declared.memories:
        value, rate, retain = (memory.fields.get(n) for n in ("value", "rate", "retain"))
        if not isinstance(value, e.Name) or "update" in memory.fields:
            continue
        match rate:
            case e.Binary(op="-", left=e.Number(value=1), right=e.Name(parts=(name,))) if name in own:
                found.append(name)
            case _ if isinstance(retain, e.Name) and retain.text in own:
                found.append(retain.text)
            case _:
                found += _chosen_averages(rate, own)
    return found


def _chosen_averages(rate: e.Expr | None, own: set[str]) -> list[str]:
    """Of `word(ema = 1 - beta, sum = beta)` the `beta`."""
    if not isinstance(rate, e.Call) or function_name(rate) not in own:
        return []
    names = {n.text for a in rate.arguments for n in a.value.walk() if isinstance(n, e.Name)} & own
    return sorted(names)[:1] if len(names) == 1 else []


def _forgets(memory: doc.Memory) -> bool:
    return "retain" in memory.fields and isinstance(memory.fields.get("value"), e.Name)


def _stands_still(level: doc.Level) -> bool:
    update = level.fields.get("update")
    return isinstance(update, e.Name) and update.text == "never"
