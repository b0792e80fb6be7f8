"""Variants and ablations: that each can be made, that no two are one, and that what is to be held equal is.

Every variant is resolved and checked as if it had been asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace

from nldsl.checks.subject import Subject, errors, report
from nldsl.diagnostics.model import Diagnostic, Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.levels.build import build
from nldsl.levels.outer import assign
from nldsl.records import record
from nldsl.resolve import Resolution, resolve
from nldsl.resolve.ablations import MOST, Planned, count, variants
from nldsl.resolve.expanded import Expanded, Num
from nldsl.resolve.findings import Findings

ABLATE_FIELDS = ("seeds",)

Judge = Callable[[Subject, Findings], None]
"""The checks that a variant has to pass, too."""


def bases(subject: Subject, findings: Findings) -> None:
    """Every variant and ablation is of something that the file declares.

    Why: without a base there is nothing to change.
    Non-goals: bases in other files; a study stands beside what it studies.
    """
    declarations = subject.original.document.declarations
    known = [d.name for d in declarations if isinstance(d, doc.Train | doc.Model | doc.Variant)]
    for one in declarations:
        if isinstance(one, doc.Variant | doc.Ablate) and one.base not in known:
            near = nearest(one.base, known)
            report(
                subject,
                findings,
                "NL0602",
                f"there is no variant or `train` block called `{one.base}`",
                [(one.base_span or one.where(), "unknown base")],
                help=f"maybe `{near[0]}`"
                if near
                else f"the spec has {', '.join(f'`{k}`' for k in known) or 'none'}",
            )


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
    """Every variant of every `ablate` block can be made, differs from the others, and has the size to keep.

    Why: a broken variant stops a study half-way, one that is made twice is paid for twice, and a
    difference that comes with fewer parameters may come from that.
    Non-goals: a value that the base has already: the base's run serves for it; and making sizes equal,
    which would change what a variant means behind its author's back.
    """
    for block in _blocks(subject):
        if not _known(subject, block.base):
            continue
        total = count(block)
        if total > MOST:
            report(
                subject,
                findings,
                "NL0606",
                f"`{block.name}` makes {total} variants",
                [(block.where(), f"more than {MOST}")],
                help="vary fewer things at once, or split the study",
            )
            continue
        seen: dict[str, Planned] = {}
        base = resolve(subject.original, variant=block.base).expanded
        if base is None:  # its own errors are found where it is declared
            continue
        unchanged = meaning(base)
        held = _held(subject, findings, block, base)
        for planned, resolution in _made(subject, block):
            found = _all_errors(subject, resolution, judge, findings)
            _broken(subject, findings, f"the variant `{planned.words}`", _place(planned), block.span, found)
            if resolution.expanded is None:
                continue
            if held is not None:
                _size(subject, findings, planned, build(resolution.expanded).parameters, held)
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


def _made(subject: Subject, block: doc.Ablate) -> Iterator[tuple[Planned, Resolution]]:
    for planned in variants(block):
        yield planned, resolve(subject.original, variant=block.base, extra=list(planned.amendments))


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
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, *(_plain(getattr(value, f.name)) for f in fields(value) if f.compare)]
    return value


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


def _last(planned: Planned) -> Span | None:
    return planned.spans[-1] if planned.spans else None


def zipped(subject: Subject, findings: Findings) -> None:
    """The values that `zip` puts side by side are equally many.

    Why: what is left over would be dropped in silence.
    Non-goals: `grid`, which takes all combinations.
    """
    for block in _blocks(subject):
        for axis in block.axes:
            sizes = [len(values) for values in axis.values]
            if axis.action == "zip" and len(set(sizes)) > 1:
                report(
                    subject,
                    findings,
                    "NL0609",
                    f"`zip` puts {' and '.join(str(s) for s in sizes)} values side by side",
                    [(axis.path_spans[0] if axis.path_spans else axis.span, "not equally many")],
                    help="give each path as many values, or use `grid` for all combinations",
                )


@record
class Held:
    """What an ablation holds equal: the parameters of its base, within a fraction."""

    parameters: int
    within: float
    span: Span | None


def _held(subject: Subject, findings: Findings, block: doc.Ablate, base: Expanded) -> Held | None:
    if block.keep is None:
        return None
    allowed = _tolerance(block.keep)
    if allowed is None:
        report(
            subject,
            findings,
            "NL0608",
            f"`keep {print_expr(block.keep)}` holds nothing that is known",
            [(block.keep.span, "not understood")],
            help="write `keep parameters within 2%`",
        )
        return None
    return Held(build(base).parameters, allowed, block.keep.span) if base.model is not None else None


def _size(subject: Subject, findings: Findings, planned: Planned, size: int, held: Held) -> None:
    change = (size - held.parameters) / max(held.parameters, 1)
    if abs(change) <= held.within + 1e-12:
        return
    report(
        subject,
        findings,
        "NL0605",
        f"`{planned.words}` has {size:,} parameters, and its base {held.parameters:,} ({change:+.1%})",
        [(_place(planned), "another size"), (held.span, "to be held")],
        help="replace the part by a matched one, or set a width so that the sizes agree",
        severity="warning",
    )


def _tolerance(keep: e.Expr) -> float | None:
    """0.02 of `parameters within 2%`."""
    match keep:
        case e.Phrase(
            words=(
                e.Name(parts=("parameters",)),
                e.Name(parts=("within",)),
                e.Quantity(amount=e.Number(value=value), unit="%"),
            )
        ):
            return float(value) / 100
        case _:
            return None


def fields_of_studies(subject: Subject, findings: Findings) -> None:
    """An `ablate` block has no fields but those it knows, with values that fit.

    Why: a misspelled field would do nothing.
    Non-goals: how many seeds are enough.
    """
    for block in _blocks(subject):
        for name, value in block.fields.items():
            if name not in ABLATE_FIELDS:
                near = nearest(name, [*ABLATE_FIELDS, "without", "vary", "grid", "zip", "keep"])
                report(
                    subject,
                    findings,
                    "NL0214",
                    f"an `ablate` block has no field `{name}`",
                    [(block.field_spans.get(name) or value.span, "unknown field")],
                    help=f"maybe `{near[0]}`" if near else "it has `seeds`",
                )
            elif not isinstance(value, e.Number) or not isinstance(value.value, int) or value.value < 1:
                report(
                    subject,
                    findings,
                    "NL0205",
                    f"`{name}` is {print_expr(value)}",
                    [(value.span, "needs a whole number of at least 1")],
                )
