"""Proposals that halve and double clocks, and the reach of windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nldsl.ablate.propose.amounts import Amount, amounts_in
from nldsl.ablate.propose.proposal import Proposal, asks, given
from nldsl.ablate.propose.subject import Part, Subject
from nldsl.document import expr as e
from nldsl.document import model as doc

TIMED = ("update", "anchor", "constrain", "reset")
FACTORS = (0.5, 2)


def periods_of_memories(subject: Subject) -> Iterator[Proposal]:
    """Each period of a memory inside the sequence, half and twice as long."""
    for part in subject.parts:
        if part.core is None:
            continue
        found = [a for n in TIMED if n in part.fields for a in _clock(subject, part, n, part.fields[n])]
        yield from _changed(found, f"the period of {part.name}")


def periods_of_levels(subject: Subject) -> Iterator[Proposal]:
    """Each clock of a chain's levels, half and twice as long."""
    for part in subject.parts:
        if part.declaration.chain is None:
            found = [] if part.chain is None else _of_single(subject, part)
            yield from _changed(found, f"the period of {part.name}")
            continue
        for level in part.declaration.chain.levels:
            name = f"{part.name}.{level.name}"
            if "update" in level.fields:
                yield from _changed(level_clock(subject, part, level), f"the period of {name}")


def level_clock(subject: Subject, part: Part, level: doc.Level) -> list[Amount]:
    """The amounts of a level's clock; a parameter that is called as a level has no path, so the level has."""
    path = f"{part.name}.{level.name}.update"
    value = level.fields["update"]
    assert part.declaration.chain is not None
    levels = {one.name for one in part.declaration.chain.levels}
    made: list[Amount] = []
    for found in amounts_in(subject, part, path, value):
        head, _, name = found.path.rpartition(".")
        hidden = head == part.name and name in levels
        made.append(_in_full(path, found) if hidden else found)
    return made


def rules(subject: Subject) -> Iterator[Proposal]:
    """Each clock of an outer level, and each period of its rule, half and twice as long."""
    for level in subject.train.levels:
        update = level.fields.get("update")
        if update is not None:
            found = _literals(f"{level.name}.update", update)
            yield from _changed(found, f"the period of {level.name}")
        rule = level.fields.get("rule")
        declared = subject.rule(rule.function.text) if isinstance(rule, e.Call) else None
        if declared is None or not isinstance(rule, e.Call):
            continue
        for parameter in declared.parameters:
            value = rule.get(parameter.name) or parameter.default
            if isinstance(value, e.Quantity):
                found = _literals(f"{level.name}.rule.{parameter.name}", value)
                yield from _changed(found, f"the {parameter.name} of {declared.name} at {level.name}")


def reaches(subject: Subject) -> Iterator[Proposal]:
    """Each window of a memory or of attention, half and twice as long."""
    for part in subject.parts:
        if part.memory is None:
            continue
        path, value = f"{part.name}.window", part.fields.get("window")
        reach = value.words[0] if isinstance(value, e.Phrase) else value  # of `4 tokens weighted by ...`
        inside = amounts_in(subject, part, path, reach) if reach is not None else ()
        found = [
            replace(one, value=value) if one.path == path and value is not None else one for one in inside
        ]
        written = part.fields.get("map")
        if part.cache and isinstance(written, e.Call):
            inner = written.get("window") or (written.positional[0] if written.positional else None)
            found += amounts_in(subject, part, f"{part.name}.map.window", inner) if inner is not None else []
        yield from _changed(found, f"the window of {part.name}")


def _of_single(subject: Subject, part: Part) -> list[Amount]:
    value = part.fields.get("update")
    return list(_clock(subject, part, "update", value)) if value is not None else []


def _clock(subject: Subject, part: Part, field: str, value: e.Expr) -> Iterator[Amount]:
    """The amount behind `every` in a field."""
    for found in amounts_in(subject, part, f"{part.name}.{field}", value):
        if found.unit in ("token", "step", "sequence"):
            yield found


def _literals(path: str, value: e.Expr) -> list[Amount]:
    return [
        Amount(path, value, node, node.amount.value, node.unit)
        for node in value.walk()
        if isinstance(node, e.Quantity)
        and isinstance(node.amount, e.Number)
        and isinstance(node.amount.value, int)
    ]


def _in_full(path: str, found: Amount) -> Amount:
    """An amount that stands in a parameter, as if it were written in the clock itself."""
    value = e.Phrase((e.Name(("every",)), found.node))
    return Amount(path, value, found.node, found.number, found.unit)


def _changed(found: list[Amount], what: str) -> Iterator[Proposal]:
    """Each amount half and twice as large; one that several fields share is changed once."""
    once = {one.path: one for one in found}
    for path, one in once.items():
        for factor in FACTORS:
            value = one.times(factor)
            if value is None:
                continue
            words = "half" if factor < 1 else "twice"
            where = "" if len(once) == 1 else f" at {path.rpartition('.')[0]}"
            change = f"{one.shown(factor)}, not {one.shown()}"
            yield asks(f"should {what}{where} be {words} as long? ({change})", given(path, value))
