"""Levels: who learns which weights, and who teaches whose start.

Source: Nested Learning, section 3.2 (levels) and 3.3 (knowledge transfer); REF a.5 and a.8.
"""

from __future__ import annotations

from nldsl.checks.subject import Subject, field_spots, report
from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.levels.build import started, static_cost
from nldsl.levels.outer import Weights, all_weights, matches
from nldsl.resolve import resolve
from nldsl.resolve.expanded import ChainLevel, MemoryInstance, TrainLevel
from nldsl.resolve.findings import Findings


def paths_of_learns(subject: Subject, findings: Findings) -> None:
    """Every path of a `learns` names weights of the model.

    Why: a misspelled path would leave the weights it means to another level, or to none.  Weights that
    a variant took away are no mistake: their level has less to learn.
    Non-goals: whether it names as many as its author thinks; `nldsl graph` shows that.
    """
    if not subject.assignment.unmatched:
        return
    known = _tails(all_weights(subject.expanded))
    before = _before_amendments(subject)
    for level, index in subject.assignment.unmatched:
        path = level.learns[index]
        if any(matches(path, one.path) for one in before):
            continue
        near = nearest(path, known) or nearest(path.split(".")[-1], [k for k in known if "." not in k])
        report(
            subject,
            findings,
            "NL0320",
            f"the model has no weights called `{path}`",
            [(_learns_span(level, index), "matches nothing")],
            help=f"maybe `{near[0]}`"
            if near
            else f"weights known here: {', '.join(f'`{k}`' for k in _short(known))}",
        )


def _before_amendments(subject: Subject) -> list[Weights]:
    """The weights of the spec that a variant was made from."""
    training = subject.training
    if training is None or subject.original is subject.module:
        return []
    base = resolve(subject.original, variant=training.name).expanded
    return all_weights(base) if base is not None else []


def _tails(weights: list[Weights]) -> list[str]:
    """Every way to name weights: their paths, and the ends of these."""
    names: dict[str, None] = {}
    for one in weights:
        parts = one.path.split(".")
        for start in range(len(parts)):
            names.setdefault(".".join(parts[start:]))
    return list(names)


def _short(names: list[str]) -> list[str]:
    return [n for n in names if n.count(".") == 1][:8]


def _learns_span(level: TrainLevel, index: int) -> Span | None:
    return level.learns_spans[index] if index < len(level.learns_spans) else level.span


def one_rest(subject: Subject, findings: Findings) -> None:
    """At most one level learns the `rest`.

    Why: what is left over can go to one level only.
    Non-goals: specs that give `rest` to no level; see `weights_nobody_learns`.
    """
    rests = _rests(subject)
    for extra in rests[1:]:
        report(
            subject,
            findings,
            "NL0327",
            f"`{extra.name}` and `{rests[0].name}` both learn the rest",
            [
                (_learns_span(extra, extra.learns.index("rest")), "again here"),
                (_learns_span(rests[0], rests[0].learns.index("rest")), "first here"),
            ],
            help="name the weights that one of them learns",
        )


def _rests(subject: Subject) -> list[TrainLevel]:
    levels = subject.training.levels if subject.training is not None else ()
    return [level for level in levels if "rest" in level.learns]


def learned_once(subject: Subject, findings: Findings) -> None:
    """No weights are learned by two levels.

    Why: two rules would step the same weights, each unaware of the other.
    Non-goals: two levels that learn `rest`; see `one_rest`.
    """
    rests = _rests(subject)
    for weights, first, second in subject.assignment.twice:
        if any(first is r for r in rests) and any(second is r for r in rests):
            continue
        report(
            subject,
            findings,
            "NL0321",
            f"`{first.name}` and `{second.name}` both learn `{weights.path}`",
            [(_claim(second, weights), f"`{second.name}`"), (_claim(first, weights), f"`{first.name}`")],
            help="give each level weights of its own, with longer paths if need be",
        )


def _claim(level: TrainLevel, weights: Weights) -> Span | None:
    for index, pattern in enumerate(level.learns):
        if pattern != "rest" and matches(pattern, weights.path):
            return _learns_span(level, index)
    return level.span


def weights_nobody_learns(subject: Subject, findings: Findings) -> None:
    """Every set of weights is learned by some level.

    Why: weights that nothing learns stay as random as they began.
    Non-goals: weights of a level whose clock is `never`, which somebody froze on purpose.
    """
    training = subject.training
    if training is None or not training.levels:
        return
    length = training.data.length
    left = [w for w in subject.assignment.unlearned if static_cost(w).parameters + started(w, length)]
    if not left:
        return
    names = ", ".join(f"`{w.path}`" for w in left[:4]) + (
        f" and {len(left) - 4} more" if len(left) > 4 else ""
    )
    report(
        subject,
        findings,
        "NL0322",
        f"no level learns {names}",
        [(training.span, "these levels"), *((_where(w), "learned by nobody") for w in left[:4])],
        help="add them to a level, or let one level say `learns = rest`",
        severity="warning",
    )


def _where(weights: Weights) -> Span | None:
    if weights.flows and weights.kind == "weights":
        return weights.flows[0].span
    return weights.holder.span if weights.holder is not None else None


def one_clock(subject: Subject, findings: Findings) -> None:
    """What has a clock in the model is given no second one in `train`.

    Why: a level of a chain keeps the clock it was declared with; a second one would contradict it.
    Non-goals: clocks that happen to be equal: they are still two places to change.
    """
    for level, weights in subject.assignment.two_clocks:
        own = weights.holder.clock_span if isinstance(weights.holder, ChainLevel) else None
        report(
            subject,
            findings,
            "NL0323",
            f"`{weights.path}` has a clock already, {weights.clock}",
            [(level.clock_span, "a second clock"), (own, "its own clock")],
            help="remove `update` here; to change the clock, change it in the chain",
        )


def teachers(subject: Subject, findings: Findings) -> None:
    """`start = learned in LEVEL` names a slower level, which does learn that start.

    Why: a start is what a slower level knows (REF a.8); a level that does not exist, is not slower,
    or learns something else cannot hand it over.
    Non-goals: `copy of LEVEL`.
    """
    training = subject.training
    if training is None:
        return
    names = [level.name for level in training.levels]
    for one in subject.memories():
        if one.taught_by is None:
            continue
        teacher = next((level for level in training.levels if level.name == one.taught_by), None)
        spots = field_spots(subject, one, "start", "its teacher")
        if teacher is None:
            near = nearest(one.taught_by, names)
            report(
                subject,
                findings,
                "NL0324",
                f"no level is called `{one.taught_by}`, so nothing teaches the start of `{one.name}`",
                spots,
                fallback=one.span,
                help=f"maybe `{near[0]}`" if near else f"levels: {', '.join(f'`{n}`' for n in names)}",
            )
            continue
        _teacher(subject, findings, one, teacher)


def _teacher(subject: Subject, findings: Findings, one: MemoryInstance, teacher: TrainLevel) -> None:
    spots = field_spots(subject, one, "start", "its teacher")
    actual = next((o for o in subject.assignment.levels if any(w.path == one.path for w in o.weights)), None)
    if actual is not None and actual.declared is not teacher:
        report(
            subject,
            findings,
            "NL0326",
            f"`{actual.declared.name}` learns the start of `{one.name}`, not `{teacher.name}`",
            [
                *spots,
                (_claim(teacher, actual.weights[0]) or teacher.span, f"`{teacher.name}`"),
                (actual.declared.span, "learns it"),
            ],
            fallback=one.span,
            help=f"add `{'.'.join(one.path.split('.')[-1:])}` to what `{teacher.name}` learns",
        )
        return
    facts = subject.graph.facts
    if actual is not None and actual.clock.tokens(facts) <= one.core.update:
        report(
            subject,
            findings,
            "NL0325",
            f"`{teacher.name}` is due {actual.clock}, no more rarely than `{one.name}` itself",
            [
                *spots,
                (teacher.clock_span or teacher.span, "its clock"),
                *field_spots(subject, one, "update", "the memory's clock"),
            ],
            fallback=one.span,
            help="let a slower level teach the start",
        )


def idle_levels(subject: Subject, findings: Findings) -> None:
    """Every level of a `train` block has something to learn.

    Why: a level that learns nothing is a leftover, or its weights went to another one.
    Non-goals: paths that match nothing (`paths_of_learns`) or that another level claims (`learned_once`).
    """
    training = subject.training
    if training is None:
        return
    for level in training.levels:
        busy = any(o.declared is level for o in subject.assignment.levels)
        missing = any(one is level for one, _ in subject.assignment.unmatched)
        extra = level in _rests(subject)[1:]
        lost = any(one is level for _, one, _ in subject.assignment.twice)
        if not (busy or missing or extra or lost):
            report(
                subject,
                findings,
                "NL0328",
                f"`{level.name}` has nothing to learn",
                [(level.span, "an idle level")],
                help="remove it, or name weights that no other level learns",
                severity="warning",
            )
