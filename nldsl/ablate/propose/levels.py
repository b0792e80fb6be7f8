"""Proposals about levels: left out, frozen, of one clock, in another order."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.ablate.propose.proposal import Proposal, asks, given, removed
from nldsl.ablate.propose.subject import Part, Subject
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.expanded import ChainLevel


def left_out(subject: Subject) -> Iterator[Proposal]:
    """Each chain without each of its levels, and what learned that level alone with it."""
    for part, declared in _chains(subject):
        if len(declared.levels) > 1:
            for level in declared.levels:
                path = f"{part.name}.{level.name}"
                yield asks(
                    f"does {part.name} need its level {level.name}?", removed(path), *unlearned(subject, path)
                )


def frozen(subject: Subject) -> Iterator[Proposal]:
    """Each level standing still: those of chains, and memories inside the sequence."""
    for part in subject.parts:
        if part.core is not None:
            learned = (given(f"{part.name}.start", "learned"),) if part.core.start == "zeros" else ()
            yield asks(
                f"does {part.name} need to learn inside the sequence? (its learned start stands still)",
                given(f"{part.name}.update", "never"),
                *learned,
            )
        if part.core is not None and part.core.start != "zeros":
            yield asks(
                f"does {part.name} need to go on learning at test time? (its start is read there)",
                given(f"{part.name}.plastic", "no"),
            )
        if part.chain is not None and part.declaration.chain is None:
            yield asks(
                f"does {part.name} need to learn? (it stands still)", given(f"{part.name}.update", "never")
            )
    for part, declared in _chains(subject):
        for level in declared.levels:
            path = f"{part.name}.{level.name}"
            still = (given(f"{path}.update", "never"), *unlearned(subject, path))
            yield asks(f"does {path} need to learn? (it stands still)", *still)
            plastic = level.fields.get("plastic")
            if plastic is not None and print_expr(plastic) in ("yes", "true"):
                yield asks(f"does {path} need to go on learning at test time?", removed(f"{path}.plastic"))


def one_clock(subject: Subject) -> Iterator[Proposal]:
    """Each chain with all its levels at the clock of its fastest."""
    for part, declared in _chains(subject):
        levels = _timed(subject, part)
        if len(levels) < 2:
            continue
        fastest = levels[0]
        slower = [one for one in levels if one.clock != fastest.clock]
        if slower:
            yield asks(
                f"does {part.name} need different clocks? (all {fastest.clock})",
                *(
                    given(f"{part.name}.{one.name}.update", _clock(fastest))
                    for one in _ordered(declared, slower)
                ),
            )


def order(subject: Subject) -> Iterator[Proposal]:
    """Each chain from slow to fast, and with the clocks of its fastest and slowest level exchanged."""
    for part, declared in _chains(subject):
        levels = _timed(subject, part)
        if len(levels) < 2 or levels[0].clock == levels[-1].clock:
            continue
        names = [one.name for one in declared.levels]
        if declared.variant == "sequential":
            yield asks(
                f"does the order of the levels of {part.name} matter? ({', then '.join(reversed(names))})",
                given(f"{part.name}.order", e.ListOf(tuple(e.Name((name,)) for name in reversed(names)))),
            )
        fast, slow = levels[0], levels[-1]
        if declared.variant != "independent" and _differ(subject, part, fast, slow):
            yield asks(
                f"does it matter which level of {part.name} is the fastest? "
                f"({fast.name} and {slow.name} exchange clocks)",
                given(f"{part.name}.{fast.name}.update", _clock(slow)),
                given(f"{part.name}.{slow.name}.update", _clock(fast)),
            )


def own_rules(subject: Subject) -> Iterator[Proposal]:
    """Each outer level that has weights of its own given to the level of the rest."""
    levels = subject.train.levels
    rest = next((level for level in levels if _learns(level) == ["rest"]), None)
    if rest is None:
        return
    still = print_expr(rest.fields["update"]) == "never" if "update" in rest.fields else False
    for level in levels:
        if level is not rest and "update" not in level.fields:
            what = ", ".join(_learns(level))
            asked = f"need a rule of its own? (that of {rest.name}, not of {level.name})"
            if still:
                asked = f"need to learn? (without {level.name} it stands still, as {rest.name} does)"
            yield asks(f"does {what} {asked}", removed(level.name))


def unlearned(subject: Subject, path: str) -> tuple[doc.Amendment, ...]:
    """What keeps the outer levels whole when there is nothing at `path` to be learned any more."""
    made: list[doc.Amendment] = []
    for level in subject.train.levels:
        learns = _learns(level)
        kept = [one for one in learns if one != path and not one.startswith(f"{path}.")]
        if kept == learns:
            continue
        names = tuple(e.Name(tuple(one.split("."))) for one in kept)
        value = names[0] if len(names) == 1 else e.ListOf(names)
        made.append(given(f"{level.name}.learns", value) if kept else removed(level.name))
    return tuple(made)


def _learns(level: doc.Level) -> list[str]:
    value = level.fields.get("learns")
    items = value.items if isinstance(value, e.ListOf) else (value,) if value is not None else ()
    return [print_expr(item) for item in items]


def _chains(subject: Subject) -> Iterator[tuple[Part, doc.Chain]]:
    for part in subject.parts:
        if part.chain is not None and part.declaration.chain is not None:
            yield part, part.declaration.chain


def _timed(subject: Subject, part: Part) -> list[ChainLevel]:
    """The levels of a chain that have a clock, fastest first."""
    facts = subject.graph.facts
    found = part.chain.levels if part.chain is not None else ()
    levels = [one for one in found if one.clock.unit not in ("never", "always") and one.memory is None]
    return sorted(levels, key=lambda one: one.clock.tokens(facts))


def _ordered(declared: doc.Chain, levels: list[ChainLevel]) -> list[ChainLevel]:
    names = [one.name for one in declared.levels]
    return sorted(levels, key=lambda one: names.index(one.name))


def _clock(level: ChainLevel) -> str:
    return str(level.clock)


def _differ(subject: Subject, part: Part, one: ChainLevel, other: ChainLevel) -> bool:
    """Whether two levels differ in more than place and clock: in their maps, or in who learns them."""
    paths = {f"{part.name}.{level.name}" for level in (one, other)}
    claimed = {path for level in subject.train.levels for path in _learns(level)} & paths
    return one.map != other.map or len(claimed) == 1
