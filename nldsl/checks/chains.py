"""Levels of chains: whom they start from and return with, and what becomes of periods that are cut.

Source: Nested Learning, section 7.1 (Eq. 72-74); REF d.3 and d.4.
"""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.checks.subject import Spot, Subject, report
from nldsl.diagnostics.suggest import nearest
from nldsl.levels.graph import Clock
from nldsl.levels.outer import Weights, all_weights, target
from nldsl.resolve.expanded import ChainInstance, ChainLevel, TrainLevel
from nldsl.resolve.findings import Findings


def _shared(subject: Subject) -> Iterator[tuple[ChainInstance, ChainLevel]]:
    """The levels of chains whose weights all sequences share."""
    for chain in subject.chains():
        if chain.scope == "shared":
            yield from ((chain, level) for level in chain.levels)


def _within(subject: Subject) -> Iterator[tuple[ChainInstance, ChainLevel]]:
    """The levels of chains that learn from the task with weights of each sequence."""
    for chain in subject.chains():
        if chain.scope == "sequence":
            yield from ((chain, level) for level in chain.levels if level.memory is None)


def _both(subject: Subject) -> Iterator[tuple[ChainInstance, ChainLevel]]:
    """The levels of all chains that learn from the task."""
    yield from _shared(subject)
    yield from _within(subject)


class _Names:
    """What the starts and resets of chains name."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.weights = all_weights(subject.expanded)
        self.trained = subject.training.levels if subject.training is not None else ()
        self.of_path = {w.path: w for w in self.weights if w.kind == "chain level"}

    def found(self, level: ChainLevel, chain: ChainInstance, name: str) -> ChainLevel | TrainLevel | None:
        """The level of this chain, of another, or of the `train` block that `name` stands for."""
        beside = next((one for one in chain.levels if one.name == name), None)
        if beside is not None:
            return beside
        one = self.of_path.get(level.path)
        # A memory that no model uses has no weights, so nothing else stands beside its chain.
        other = target(name, one, self.weights, self.trained) if one is not None else name
        if isinstance(other, Weights):
            return other.holder if isinstance(other.holder, ChainLevel) else None
        return next((trained for trained in self.trained if trained.name == other), None)

    def known(self, chain: ChainInstance, level: ChainLevel) -> list[str]:
        """The names that a start may give."""
        return [one.name for one in chain.levels if one is not level] + [one.name for one in self.trained]

    def tokens(self, level: ChainLevel | TrainLevel) -> float:
        """Tokens of one stream between updates; of a `train` level by its own clock."""
        facts = self.subject.graph.facts
        if isinstance(level, ChainLevel):
            return float(level.clock.tokens(facts))
        clock = level.clock if level.clock.unit != "always" else Clock(1, "step")
        return float(clock.tokens(facts))


def _named(level: ChainLevel) -> Iterator[tuple[str, str, str]]:
    """Field, words and level of what a start and a reset name."""
    if level.teacher is not None:
        yield "start", f"start as {'a ' * (level.start == 'copy of')}{level.start} it", level.teacher
    if level.reset_with is not None:
        yield "reset", "return to its start with it", level.reset_with


def _spots(level: ChainLevel, field: str, text: str) -> list[Spot]:
    return [(level.where(field), text), (level.span, f"`{level.name}`")]


def levels_that_are_named(subject: Subject, findings: Findings) -> None:
    """What a start or a reset names is a level.

    Why: weights cannot start from, or return with, what is not there.
    Non-goals: chains of a file without a run, whose levels a `train` block elsewhere may bring.
    """
    names = _Names(subject)
    for chain, level in _both(subject):
        for field, words, name in _named(level):
            if names.found(level, chain, name) is not None:
                continue
            if subject.training is None and "." not in name and not nearest(name, names.known(chain, level)):
                continue
            known = names.known(chain, level)
            near = nearest(name, known)
            report(
                subject,
                findings,
                "NL0330",
                f"no level is called `{name}`, so `{chain.name}.{level.name}` cannot {words}",
                _spots(level, field, "names no level"),
                fallback=chain.span,
                help=f"maybe `{near[0]}`"
                if near
                else f"levels: {', '.join(f'`{n}`' for n in known) or 'none'}",
            )


def starts_without_end(subject: Subject, findings: Findings) -> None:
    """No level waits for its own start or reset, by way of others.

    Why: a level that starts from itself has no start, and two that return with each other never settle which
    of them returned first.
    Non-goals: `train` levels, which start from nothing.
    """
    names = _Names(subject)
    for chain, level in _both(subject):
        ring = _ring(names, chain, level)
        if ring is None or min(ring) != level.name:  # a ring is said once
            continue
        field = "start" if level.teacher in ring else "reset"
        text = " -> ".join([*ring, ring[0]])
        report(
            subject,
            findings,
            "NL0331",
            f"`{chain.name}.{level.name}` waits for itself"
            if len(ring) == 1
            else f"the levels {', '.join(f'`{n}`' for n in ring)} wait for each other",
            _spots(level, field, "closes the ring"),
            fallback=chain.span,
            notes=(text,),
            help="let the slowest of them start as `learned`, and return to its start `never`",
        )


def _ring(names: _Names, chain: ChainInstance, level: ChainLevel) -> list[str] | None:
    """The levels on a way from `level` back to it, by names in its chain."""
    waiting: list[list[ChainLevel]] = [[level]]
    seen: set[str] = set()
    while waiting:
        way = waiting.pop()
        for _, _, name in _named(way[-1]):
            found = names.found(way[-1], chain, name)
            if found is level:
                return [one.name for one in way]
            if isinstance(found, ChainLevel) and found.path not in seen:
                seen.add(found.path)
                waiting.append([*way, found])
    return None


def starts_from_slower_levels(subject: Subject, findings: Findings) -> None:
    """`start = learned in LEVEL` names a slower level; levels of a nested chain are faster than the next.

    Why: a start is what many lives of the faster level have in common (REF d.4); a level that changes as
    often as the weights it starts has seen no more than they.
    Non-goals: `copy of LEVEL`, which may copy a faster level.
    """
    names = _Names(subject)
    for chain, level in _both(subject):
        if level.start != "learned in" or level.teacher is None or level.clock.unit == "never":
            continue
        teacher = names.found(level, chain, level.teacher)
        if teacher is None or teacher is level or names.tokens(teacher) > names.tokens(level):
            continue
        nested = chain.variant == "nested" and "start" not in level.fields
        whose = teacher.clock_span or teacher.span
        clock = teacher.clock if teacher.clock.unit != "always" else Clock(1, "step")
        report(
            subject,
            findings,
            "NL0332",
            f"`{chain.name}.{level.name}` changes {level.clock}, and `{teacher.name}`, where it starts from, "
            f"{clock}",
            [(level.where("start") if not nested else level.clock_span, "no faster"), (whose, "no slower")],
            fallback=chain.span,
            help="write the levels of a nested chain from the fastest to the slowest, or give them other "
            "clocks"
            if nested
            else "let a slower level teach the start",
        )


def copies_of_the_same_layers(subject: Subject, findings: Findings) -> None:
    """`start = copy of LEVEL` names a level of the same chain with the same layers.

    Why: each weight takes the value of the one that stands in its place.
    Non-goals: what the two levels learn; see `starts_from_slower_levels` for starts that are learned.
    """
    names = _Names(subject)
    for chain, level in _shared(subject):
        if level.start != "copy of" or level.teacher is None:
            continue
        original = names.found(level, chain, level.teacher)
        if original is None or original is level:
            continue
        beside = isinstance(original, ChainLevel) and original in chain.levels
        width = int(chain.width)
        if (
            beside
            and isinstance(original, ChainLevel)
            and level.map.weights(width, width) == original.map.weights(width, width)
            and (level.map.kind, level.map.norm) == (original.map.kind, original.map.norm)
        ):
            still = next((one for one in (level, original) if one.clock.unit == "never"), None)
            if still is not None:  # a run copies between levels that it changes
                report(
                    subject,
                    findings,
                    "NL0701",
                    f"no code can be made yet for a copy of `{original.name}`: `{still.name}` never changes",
                    [(level.where("start"), "copies it"), (still.clock_span or still.span, "stands still")],
                    help=f"give `{still.name}` a period longer than the run",
                )
            continue
        what = "has other layers" if beside else f"is no level of `{chain.name}`"
        report(
            subject,
            findings,
            "NL0333",
            f"`{chain.name}.{level.name}` cannot be a copy of `{level.teacher}`, which {what}",
            [
                (level.where("start"), "copies it"),
                (level.where("map"), "its own"),
                (original.span, "the other"),
            ],
            fallback=chain.span,
            help="give both the same `map`" if beside else "copy a level of the same chain",
        )


def returns_that_erase(subject: Subject, findings: Findings) -> None:
    """Weights change more often than they return to their start.

    Why: what returns at each of its updates, or before the first, is its start at every token, so that the
    level learns nothing of its own.
    Non-goals: how many updates a life should have.
    """
    names = _Names(subject)
    facts = subject.graph.facts
    for chain, level in _both(subject):
        nested = chain.variant == "nested" and "start" not in level.fields and "reset" not in level.fields
        if level.clock.unit == "never" or nested:  # a nested chain's order is `starts_from_slower_levels`'s
            continue
        clock = level.reset
        if level.reset_with is not None:
            parent = names.found(level, chain, level.reset_with)
            if parent is None or parent is level:
                continue
            clock = parent.clock if parent.clock.unit != "always" else Clock(1, "step")
        if clock is None or float(clock.tokens(facts)) > float(level.clock.tokens(facts)):
            continue
        said = f"with `{level.reset_with}`, {clock}" if level.reset_with is not None else str(clock)
        report(
            subject,
            findings,
            "NL0334",
            f"`{chain.name}.{level.name}` changes {level.clock}, and returns to its start {said}",
            [(level.where("reset"), "no rarer than its updates"), (level.clock_span, "its clock")],
            fallback=chain.span,
            help="let it return more rarely than it changes, or `never`",
            severity="warning",
        )


def starts_nobody_learns(subject: Subject, findings: Findings) -> None:
    """Weights that return to their start return to something that is learned.

    Why: with `start = learned` a level is its own start; where it also returns, it returns to the random
    numbers of the first step, and a level that never changes teaches a start no more than that.
    Non-goals: starts from a file, which have been learned elsewhere.
    """
    names = _Names(subject)
    for chain, level in _shared(subject):
        returns = level.reset is not None or level.reset_with is not None
        if level.clock.unit == "never":
            continue
        if level.start == "learned" and returns:
            report(
                subject,
                findings,
                "NL0335",
                f"`{chain.name}.{level.name}` returns to the weights of the first step, which nothing learns",
                [(level.where("reset"), "returns"), (level.where("start"), "its start")],
                fallback=chain.span,
                help="write `start = learned in LEVEL`, with a slower level that learns where it begins",
                severity="warning",
            )
        elif level.start == "learned in" and level.teacher is not None:
            teacher = names.found(level, chain, level.teacher)
            if teacher is None or teacher.clock.unit != "never":
                continue
            report(
                subject,
                findings,
                "NL0335",
                f"`{level.teacher}` never changes, so it does not learn where `{chain.name}.{level.name}` "
                "begins",
                [(level.where("start"), "its start"), (teacher.clock_span or teacher.span, "stands still")],
                fallback=chain.span,
                help="let a level teach the start that changes, however rarely",
                severity="warning",
            )


def partial_periods(subject: Subject, findings: Findings) -> None:
    """`drop` and `flush` stand where a sequence can cut a period, and no dropped period is longer than one.

    Why: a word that changes nothing misleads its reader, and a period that begins anew with each sequence
    never ends if it is longer.
    Non-goals: `carry`, which says the default of shared weights; periods that `drop` cuts in each sequence
    (`divides_the_sequence`).
    """
    training = subject.training
    if training is None:
        return
    length, place = training.data.length, training.data.spans.get("length") or training.data.span
    for chain, level in _shared(subject):
        clock = level.clock
        if clock.partial in ("", "carry") or clock.unit not in ("step", "token"):
            continue
        name = f"{chain.name}.{level.name}"
        spots: list[Spot] = [(level.clock_span, f"`{clock.partial}`"), (place, f"{length} tokens")]
        first = clock.offset or clock.period
        if clock.unit == "token" and first > length and clock.partial == "drop":
            report(
                subject,
                findings,
                "NL0337",
                f"`{name}` drops each period of {clock.period} tokens, since a sequence has {length}",
                spots,
                fallback=chain.span,
                help="leave `drop` out: the period then goes on in the next sequence",
            )
            continue
        said = _idle(clock, length, training.steps)
        if said:
            report(
                subject,
                findings,
                "NL0336",
                f"`{clock.partial}` changes nothing for `{name}`: {said}",
                spots if clock.unit == "token" else spots[:1],
                fallback=chain.span,
                help=f"remove `{clock.partial}`",
                severity="warning",
            )


def _idle(clock: Clock, length: int, steps: int) -> str:
    """Why a policy of partial periods has nothing to do; "" where it has."""
    if clock.unit == "step" and clock.partial == "drop":
        return "a sequence never cuts a period of whole steps"
    if clock.unit == "step":
        first = clock.offset or clock.period
        ends = steps >= first and (steps - clock.offset) % clock.period == 0
        return f"its last period ends with the {steps} steps of the run" if ends else ""
    if clock.offset <= length and (length - clock.offset) % clock.period == 0:
        return f"{clock.period} tokens divide a sequence of {length}"
    return ""


def offsets_within_the_period(subject: Subject, findings: Findings) -> None:
    """An offset is shorter than its period.

    Why: it says at which point of a period a level is due; more than a period is a delay of the first
    update, for which all gradients until then gather.
    Non-goals: clocks of a `train` level.
    """
    for chain, level in _both(subject):
        clock = level.clock
        if clock.unit not in ("step", "token") or clock.offset < clock.period:
            continue
        report(
            subject,
            findings,
            "NL0338",
            f"the offset of `{chain.name}.{level.name}` is {clock.offset} {clock.unit}s, and its period "
            f"{clock.period}",
            [(level.clock_span, "the clock")],
            fallback=chain.span,
            help=f"`offset {clock.offset % clock.period}` is due at the same points of a period"
            if clock.offset % clock.period
            else "leave the offset out",
            severity="warning",
        )


def standing_levels(subject: Subject, findings: Findings) -> None:
    """A level that never changes has no life to speak of, and no level returns with one.

    Why: `plastic`, a reset or a learned start of weights that stand still say what never happens.
    Non-goals: `start = pretrained(...)` and `copy of`, which say what the standing weights are.
    """
    names = _Names(subject)
    for chain, level in _shared(subject):
        if level.clock.unit == "never":
            idle = [name for name in ("plastic", "reset", "reduce") if name in level.fields]
            idle = [name for name in idle if name != "plastic" or level.plastic]
            for name in idle:
                report(
                    subject,
                    findings,
                    "NL0339",
                    f"`{chain.name}.{level.name}` never changes, so `{name}` means nothing",
                    [(level.where(name), "never happens"), (level.clock_span, "its clock")],
                    fallback=chain.span,
                    help=f"remove `{name}`, or give the level a period",
                    severity="warning",
                )
        elif level.reset_with is not None:
            parent = names.found(level, chain, level.reset_with)
            if parent is None or parent.clock.unit != "never":
                continue
            report(
                subject,
                findings,
                "NL0339",
                f"`{level.reset_with}` never changes, so `{chain.name}.{level.name}` never returns",
                [(level.where("reset"), "never happens"), (parent.clock_span or parent.span, "stands still")],
                fallback=chain.span,
                help="return with a level that changes, or `never`",
                severity="warning",
            )


def periods_of_each_sequence(subject: Subject, findings: Findings) -> None:
    """Levels with weights of each sequence are due inside it, and carry no period out of it.

    Why: their weights return to their start with the next sequence, so a longer period is never read, and an
    open one belongs to weights that are gone.
    Non-goals: longer sequences at test time; what `length` says is what is trained.
    """
    training = subject.training
    for chain, level in _within(subject):
        name, clock = f"{chain.name}.{level.name}", level.clock
        if clock.partial in ("carry", "flush"):
            kept = clock.partial == "carry"
            report(
                subject,
                findings,
                "NL0316" if kept else "NL0336",
                f"`{name}` starts anew with every sequence, so no period can be carried over"
                if kept
                else f"`flush` changes nothing for `{name}`: its weights return to their start there",
                [(level.clock_span, "carries" if kept else "`flush`")],
                fallback=chain.span,
                help="leave `carry` out: the open period then ends with the sequence"
                if kept
                else "remove `flush`",
                severity="error" if kept else "warning",
            )
        if training is None:
            continue
        length, place = training.data.length, training.data.spans.get("length") or training.data.span
        spots: list[Spot] = [(level.clock_span, "the clock"), (place, "the sequence")]
        first = clock.offset or clock.period
        if first > length:
            report(
                subject,
                findings,
                "NL0313",
                f"`{name}` is due {clock}, and a sequence of {length} tokens ends before that",
                spots,
                fallback=chain.span,
                help=f"use a period below {length} tokens, such as {max(length // 2, 1)}",
                severity="warning",
            )
        elif first == length:
            report(
                subject,
                findings,
                "NL0313",
                f"nothing reads what `{name}` writes at the end of a sequence",
                spots,
                fallback=chain.span,
                help=f"use a period below {length} tokens, such as {max(length // 2, 1)}",
                severity="warning",
            )


CHECKS = (
    levels_that_are_named,
    starts_without_end,
    starts_from_slower_levels,
    copies_of_the_same_layers,
    returns_that_erase,
    starts_nobody_learns,
    partial_periods,
    offsets_within_the_period,
    standing_levels,
    periods_of_each_sequence,
)
