"""Variants and ablations: that each can be made, that no two are one, and that their blocks are understood.

Every variant is resolved and checked as if it had been asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import cache

from nldsl.checks.subject import Subject, errors, report
from nldsl.diagnostics.model import Diagnostic, Span
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.levels.build import build
from nldsl.levels.outer import assign
from nldsl.resolve import Resolution, resolve
from nldsl.resolve.ablations import Asked, Planned, asked, by_spans, has_base
from nldsl.resolve.amend import NoSuchPath, no_such_path, value_at
from nldsl.resolve.expanded import Expanded, Num
from nldsl.resolve.findings import Findings
from nldsl.resolve.modules import Module

Judge = Callable[[Subject, Findings], None]
"""The checks that a variant has to pass, too."""


def bases(subject: Subject, findings: Findings) -> None:
    """Every variant and ablation is of something that the file declares.

    Why: without a base there is nothing to change.
    Non-goals: bases in other files; a study stands beside what it studies.
    """
    for one in subject.original.document.declarations:
        if isinstance(one, doc.Variant | doc.Ablate):
            has_base(one, subject.original.document, findings)


def declared_variants(subject: Subject, findings: Findings, judge: Judge) -> None:
    """Every `variant` can be made, and has no error that its base does not have.

    Why: otherwise it is found broken on the day it is wanted.
    Non-goals: warnings of variants; `nldsl check --variant` shows them.
    """
    for one in subject.original.document.declarations:
        if (
            not isinstance(one, doc.Variant)
            or one.name == subject.expanded.variant
            or not _known(subject, one.base)
        ):
            continue
        resolution = resolve(subject.original, variant=one.name)
        found = _all_errors(subject, resolution, judge, findings)
        places = [a.path_span for a in one.amendments if a.path_span is not None]
        place = places[0] if len(places) == 1 else one.where()
        _broken(subject, findings, f"the variant `{one.name}`", place, one.span, found)


def other_runs(subject: Subject, findings: Findings, judge: Judge) -> None:
    """Every other `train` block of the file is sound, too.

    Why: one run is looked at in a file of several, and the others must not wait for their turn.
    Non-goals: their warnings; `nldsl check --variant NAME` shows them.
    """
    current = subject.training.name if subject.training is not None else None
    for one in subject.original.document.declarations:
        if isinstance(one, doc.Train) and one.name != current:
            found = _all_errors(subject, resolve(subject.original, variant=one.name), judge, findings)
            findings.items += [d for d in found if d not in findings.items]


def ablations(subject: Subject, findings: Findings, judge: Judge) -> None:
    """Every `ablate` block is understood; each of its variants can be made, and differs from the others.

    Why: a broken variant stops a study half-way, and one that is made twice is paid for twice.
    Non-goals: a value that the base has already: the base's run serves for it; and whether a budget can be
    held, which the plan finds out by solving for widths.
    """
    declared = {d.name for d in subject.original.document.declarations if isinstance(d, doc.Variant)}
    for block in _blocks(subject):
        if not _known(subject, block.base):
            continue
        wanted = asked(block, subject.original.document, findings)
        base = resolve(subject.original, variant=block.base).expanded
        if base is None:  # its own errors are found where it is declared
            continue
        _widths(subject, findings, block, wanted)
        seen: dict[str, Planned] = {}
        unchanged = meaning(base)
        for planned in wanted.variants:
            resolution = resolve(subject.original, variant=block.base, extra=list(planned.amendments))
            if planned.words not in declared:  # what is wrong with those is said where they are declared
                found = _all_errors(subject, resolution, judge, findings)
                what = f"the variant `{planned.words}`"
                _broken(subject, findings, what, _place(planned), block.span, found)
            if resolution.expanded is None:
                continue
            _measured(subject, findings, base, resolution.expanded, planned)
            key = meaning(resolution.expanded)
            if key == unchanged:
                continue
            if key in seen:
                _same(subject, findings, seen[key], planned)
            seen.setdefault(key, planned)


def _blocks(subject: Subject) -> list[doc.Ablate]:
    return [d for d in subject.original.document.declarations if isinstance(d, doc.Ablate)]


def _known(subject: Subject, name: str) -> bool:
    return isinstance(subject.original.document.find(name), doc.Train | doc.Model | doc.Variant)


def meaning(expanded: Expanded) -> str:
    """A text that two expanded specs share if they mean the same, whatever they are called."""
    return repr((_plain(expanded.model), _plain(expanded.training)))


def _plain(value: object) -> object:
    """A value without the spelling of its numbers and without places in files."""
    if isinstance(value, Num):
        return float(value)
    if isinstance(value, dict):
        return [(key, _plain(one)) for key, one in value.items()]
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    names = _compared(type(value))
    return value if names is None else [type(value).__name__, *(_plain(getattr(value, n)) for n in names)]


@cache
def _compared(kind: type) -> tuple[str, ...] | None:
    """The fields by which values of a kind are equal; None for plain values."""
    return tuple(f.name for f in fields(kind) if f.compare) if is_dataclass(kind) else None


def _all_errors(
    subject: Subject, resolution: Resolution, judge: Judge, already: Findings
) -> list[Diagnostic]:
    """Errors of a variant that were not found before."""
    found = errors(resolution.findings)
    expanded = resolution.expanded
    if expanded is not None:
        assignment = assign(expanded)
        own = Findings()
        judge(
            replace(
                subject,
                expanded=expanded,
                assignment=assignment,
                graph=build(expanded, assignment),
                module=resolution.module,
            ),
            own,
        )
        found = errors(own.items)
    known = {(d.code, d.message) for d in already.items}
    return [d for d in found if (d.code, d.message) not in known]


def _broken(
    subject: Subject,
    findings: Findings,
    what: str,
    place: Span | None,
    whole: Span | None,
    found: list[Diagnostic],
) -> None:
    """One finding for a variant with errors; what is wrong with its own paths is said as it is."""
    own = [d for d in found if d.code.startswith("NL06")]
    for one in own:
        if one not in findings.items:
            findings.items.append(one)
    rest = [d for d in found if d not in own]
    if not rest:
        return
    first = rest[0]
    more = f"; {len(rest) - 1} more like it" if len(rest) > 1 else ""
    inner = [(label.span, label.text or "goes wrong here") for label in first.labels]
    inside = (
        inner
        and whole is not None
        and inner[0][0].source == whole.source
        and whole.start <= inner[0][0].start < whole.end
    )
    spots = [*inner, (place, "the variant")] if inside else [(place, "the variant"), *inner]
    report(
        subject,
        findings,
        "NL0607",
        f"{what} is broken: {first.message}{more}",
        spots,
        help=first.help,
        notes=(f"as {first.code} says", *first.notes),
    )


def _place(planned: Planned) -> Span | None:
    return planned.spans[0] if planned.spans else None


def _same(subject: Subject, findings: Findings, first: Planned, second: Planned) -> None:
    report(
        subject,
        findings,
        "NL0604",
        f"`{second.words}` and `{first.words}` are the same spec",
        [(_last(second), "again here"), (_last(first), "first here")],
        help="remove one of them",
        severity="warning",
    )


def _measured(
    subject: Subject, findings: Findings, base: Expanded, variant: Expanded, planned: Planned
) -> None:
    """A variant is asked for the same windows as its base."""
    one, other = variant.training, base.training
    if one is None or other is None or one.evaluate_windows == other.evaluate_windows:
        return
    report(
        subject,
        findings,
        "NL0616",
        f"`{planned.words}` measures {one.evaluate_windows} windows, and its base {other.evaluate_windows}",
        [(_last(planned), "this variant"), (other.spans.get("evaluate_windows"), "the base")],
        help="set `evaluate_windows` in the run itself, for all variants",
        severity="warning",
    )


def _last(planned: Planned) -> Span | None:
    return planned.spans[-1] if planned.spans else None


def _widths(subject: Subject, findings: Findings, block: doc.Ablate, wanted: Asked) -> None:
    """The paths behind `by` exist, and hold whole numbers."""
    if wanted.keep is None or not wanted.keep.by:
        return
    resolution = resolve(subject.original, variant=block.base)
    assert resolution.base is not None, "a base without errors is a declaration"
    for path, place in zip(wanted.keep.by, by_spans(block.keep), strict=True):
        try:
            value = value_at(path, resolution.base, resolution.module)
        except NoSuchPath as problem:
            no_such_path(path, problem, findings, place)
            continue
        if value is not None and not _may_be_width(value, _numbers(path, resolution.module)):
            report(
                subject,
                findings,
                "NL0613",
                f"`{path}` is {print_expr(value)}, which is no width",
                [(place, "needs a whole number"), (value.span, "this value")],
                help="name the paths of numbers that say how wide a part is, such as `model.dim`",
            )


def _numbers(path: str, module: Module) -> set[str]:
    """The names that may stand for numbers in the part where a path begins."""
    found = module.lookup(path.split(".", maxsplit=1)[0])
    parameters = getattr(found[0], "parameters", []) if found is not None else []
    lets = (d for d in module.document.declarations if isinstance(d, doc.Let))
    return {one.name for one in (*parameters, *lets)}


def _may_be_width(value: e.Expr, numbers: set[str]) -> bool:
    """Whether a value is a whole number of at least 1, or is computed from `numbers`."""
    match value:
        case e.Number(value=number):
            return isinstance(number, int) and number >= 1
        case e.Name(text=name):
            return name in numbers
        case e.Binary():
            names = {n.text for n in value.walk() if isinstance(n, e.Name)}
            return names <= numbers and all(isinstance(n, e.Binary | e.Number | e.Name) for n in value.walk())
        case _:
            return False
