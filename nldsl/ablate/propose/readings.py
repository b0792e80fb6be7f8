"""Proposals for the other readings of a part: its presets, and choices that papers make in different ways."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.ablate.propose.proposal import Proposal, asks, given
from nldsl.ablate.propose.subject import Subject
from nldsl.document import expr as e
from nldsl.document import model as doc


def presets(subject: Subject) -> Iterator[Proposal]:
    """Each part with every other word that it knows for a choice: `preset(...)`."""
    for part in subject.parts:
        declared = part.declaration
        for parameter in declared.parameters:
            values = [place.argument(parameter.name, declared.parameters) for place in part.places]
            given_here = {v.text for v in values if isinstance(v, e.Name)} or {None}
            default = parameter.default
            if not isinstance(default, e.Name) or given_here != {None}:
                continue
            for word in _words(list(declared.fields.values()), parameter.name):
                if word != default.text:
                    yield asks(
                        f"is the reading `{word}` of {part.name} better than `{default.text}`?",
                        given(f"{part.name}.{parameter.name}", word),
                    )


def options_of_rules(subject: Subject) -> Iterator[Proposal]:
    """Each word that a rule of an outer level may be given, in place of the one it has."""
    for level in subject.train.levels:
        rule = level.fields.get("rule")
        declared = subject.rule(rule.function.text) if isinstance(rule, e.Call) else None
        if declared is None or not isinstance(rule, e.Call):
            continue
        values = [*declared.fields.values(), *(v for m in declared.memories for v in m.fields.values())]
        for parameter in declared.parameters:
            has = rule.get(parameter.name) or parameter.default
            for word in _words(values, parameter.name):
                if isinstance(has, e.Name) and word != has.text:
                    yield asks(
                        f"is `{parameter.name} = {word}` of {declared.name} at {level.name} better than "
                        f"`{has.text}`?",
                        given(f"{level.name}.rule.{parameter.name}", word),
                    )


def starts(subject: Subject) -> Iterator[Proposal]:
    """Each matrix with the other start: zeros, or what the run learns.  Deep maps cannot begin at zeros."""
    for part in subject.parts:
        if part.core is None or part.core.map.kind not in ("matrix", "vector"):
            continue
        other = "zeros" if part.core.start != "zeros" else "learned"
        says = "nothing" if other == "zeros" else "a learned start"
        yield asks(f"should {part.name} begin each sequence at {says}?", given(f"{part.name}.start", other))


def gradients(subject: Subject) -> Iterator[Proposal]:
    """Each memory with less of the model's gradient through its writes."""
    asked = {
        "first_order": "does training {} need a gradient through the weights that its writes read?",
        "stop": "does training {} need a gradient through its writes?",
        "through": "would training {} gain from the whole gradient through its writes?",
    }
    for part in subject.parts:
        for word, question in asked.items():
            if part.core is not None and word != part.core.gradient:
                yield asks(f"{question.format(part.name)} ({word})", given(f"{part.name}.gradient", word))


def gradients_of_chains(subject: Subject) -> Iterator[Proposal]:
    """Each chain with weights of each sequence, with the model's gradient through its updates or without it.

    `stop` is left out: it is `first_order` where rates are numbers.
    """
    for part in subject.parts:
        if part.chain is None or part.chain.scope != "sequence" or part.declaration.chain is None:
            continue
        whole = all(level.gradient == "through" for level in part.chain.levels)
        paths = [f"{part.name}.{level.name}.gradient" for level in part.declaration.chain.levels]
        asked = f"does training {part.name} need" if whole else f"would training {part.name} gain from"
        word = "first_order" if whole else "through"
        yield asks(
            f"{asked} a gradient through its updates? ({word})", *(given(path, word) for path in paths)
        )


def reads(subject: Subject) -> Iterator[Proposal]:
    """Each memory that is read after each write, read before it; and the other way round."""
    for part in subject.parts:
        if part.core is None or part.core.read == "boundary" or part.core.update > 1:
            continue
        other = "before" if part.core.read == "after" else "after"
        yield asks(
            f"should a token read {part.name} {other} its own write?", given(f"{part.name}.read", other)
        )


def anchors(subject: Subject) -> Iterator[Proposal]:
    """Each memory that takes its gradients after it forgets, taking them before; and the other way round."""
    for part in subject.parts:
        core = part.core
        if core is None or core.period > 1 or core.retain == "none" or not isinstance(core.anchor, str):
            continue
        other = "current" if core.anchor == "retained" else "retained"
        when = "before" if other == "current" else "after"
        yield asks(
            f"should {part.name} take its gradients {when} it forgets?", given(f"{part.name}.anchor", other)
        )


def sums(subject: Subject) -> Iterator[Proposal]:
    """Each memory of sums whose reads could be divided by the sum of the weights of what was written."""
    for part in subject.parts:
        core = part.core
        if core is None or core.normalise or core.objective != "dot" or core.map.kind != "matrix":
            continue
        yield asks(
            f"should a read of {part.name} be divided by its total?", given(f"{part.name}.normalise", "sum")
        )


def mixtures(subject: Subject) -> Iterator[Proposal]:
    """Each memory of the task as the visible one that has the same levels in another arrangement."""
    for part in subject.parts:
        chain = part.declaration.chain
        if part.chain is None or chain is None:
            continue
        for name in subject.module.names():
            found = subject.module.lookup(name)
            other = found[0] if found is not None else None
            if not isinstance(other, doc.Memory) or other.chain is None or other is part.declaration:
                continue
            if other.chain.variant == chain.variant or other.chain.levels != chain.levels:
                continue
            yield from _exchanged(subject, part.name, name, other)


def _exchanged(subject: Subject, name: str, other: str, declared: doc.Memory) -> Iterator[Proposal]:
    from nldsl.ablate.propose.proposal import replaced

    part = next(one for one in subject.parts if one.name == name)
    places = [p for p in part.places if p.path is not None and p.line.module is subject.module]
    if len(places) != len(part.places) or part.declaration.parameters != declared.parameters:
        return
    calls = [
        replaced(p.path or "", e.Call(e.Name((other,)), p.call.arguments))
        for p in places
        if isinstance(p.call, e.Call)
    ]
    learns = []
    for level in subject.train.levels:
        value = level.fields.get("learns")
        if value is not None and any(isinstance(n, e.Name) and n.parts[0] == name for n in value.walk()):
            learns.append(given(f"{level.name}.learns", _renamed(value, name, other)))
    assert declared.chain is not None
    yield asks(f"would the levels of {name} do better {_arranged(declared.chain.variant)}?", *calls, *learns)


def _arranged(variant: str) -> str:
    return {
        "sequential": "one after the other",
        "nested": "each begun anew by the next slower one",
        "independent": "side by side",
    }.get(variant, variant)


def _renamed(value: e.Expr, old: str, new: str) -> e.Expr:
    if isinstance(value, e.Name):
        return e.Name((new, *value.parts[1:])) if value.parts[0] == old else value
    if isinstance(value, e.ListOf):
        return e.ListOf(tuple(_renamed(item, old, new) for item in value.items))
    return value


def _words(values: list[e.Expr], parameter: str) -> list[str]:
    """The words that a choice by `parameter` knows, in the order in which they are named."""
    found: dict[str, None] = {}
    for value in values:
        for node in value.walk():
            if isinstance(node, e.Call) and node.function.text == parameter:
                found |= {a.name: None for a in node.arguments if a.name is not None}
    return list(found)
