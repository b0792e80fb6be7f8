"""What an `ablate` block asks for, as plain values: variants as amendments of its base, seeds, measures, ...

Everything that is wrong with the block itself is recorded as a finding, and counts as not given.  Whether a
variant can be made is seen when its amendments are applied
(`nldsl.resolve.resolve(module, variant=block.base, extra=...)`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.records import record
from nldsl.resolve.amend import amendment, in_words
from nldsl.resolve.findings import Findings
from nldsl.resolve.training import MEASURES

MOST = 1000
"""Variants that one block may make, and seeds that it may ask for."""

COUNTED = 10**12
"""No count of variants goes on above this."""

BASE = "base"
"""The variant that changes nothing."""

LARGEST_SEED = 2**63 - 1

FIELDS = ("seeds", "measure", "baseline")
"""What is assigned in a block, beside the lines that make variants and `keep`."""

Quantity = Literal["parameters", "flops", "time"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


@dataclass(frozen=True, slots=True)
class Keep:
    """A budget that all variants share: that of the base, within a fraction of it.

    `parameters` and `flops` (of one token, forward) are held by the widths at the paths `by`, or, where that
    is empty, by widths that the search picks; `time` (of the whole training) is held by the number of steps.
    """

    what: Quantity
    within: float
    by: tuple[str, ...] = ()
    span: Span | None = None


@record
class Planned:
    """One variant to make: the changes of the base, the same in words, and where they are written.

    `words` differ where the changes do.  `question` is what the variant asks; "" where nobody said.  `spans`
    has the first path, or the name of a declared variant, and after it what else the block gives.
    """

    amendments: tuple[doc.Amendment, ...]
    words: str
    spans: tuple[Span, ...]
    question: str = ""


@record
class Asked:
    """All that a block asks for.  `baseline` holds the words of a variant of the block, or `base`."""

    variants: tuple[Planned, ...]
    seeds: tuple[int, ...]
    measures: tuple[str, ...]
    keep: Keep | None
    baseline: str


def asked(block: doc.Ablate, document: doc.Document, findings: Findings) -> Asked:
    """What `block` of `document` asks for; too many variants are recorded (NL0606), and none is made."""
    total = count(block)
    if total > MOST:
        findings.add(
            "NL0606",
            f"`{block.name}` makes {'more than ' if total == COUNTED else ''}{total:,} variants",
            block.where(),
            f"more than {MOST}",
            help="vary fewer things at once, or split the study",
        )
    _axes(block, findings)
    _fields(block, findings)
    planned = tuple(variants(block, document, findings)) if total <= MOST else ()
    return Asked(
        planned,
        seeds_of(block, findings),
        measures_of(block, findings),
        keep_of(block, findings),
        baseline_of(block, planned, findings) if total <= MOST else BASE,
    )


def _axes(block: doc.Ablate, findings: Findings) -> None:
    """Record lines that make nothing, and lists of which a part would be dropped."""
    for axis in block.axes:
        sizes = [len(values) for values in axis.values]
        place = axis.path_spans[0] if axis.path_spans else axis.span
        if axis.action == "zip" and len(set(sizes)) > 1:
            said = f"`zip` puts {' and '.join(str(s) for s in sizes)} values side by side"
            mend = "give each path as many values, or use `grid` for all combinations"
            findings.add("NL0609", said, place, "not equally many", help=mend)
        elif _size(axis) == 0:
            said = f"this `{axis.action}` makes no variant"
            mend = "give it values, or remove the line"
            findings.add("NL0614", said, axis.span, "an empty list", help=mend)


def _fields(block: doc.Ablate, findings: Findings) -> None:
    """Record fields that no block has: a misspelled one would do nothing."""
    for name, value in block.fields.items():
        if name in FIELDS:
            continue
        near = nearest(name, [*FIELDS, *doc.AXES, "keep"])
        said = f"an `ablate` block has no field `{name}`"
        mend = f"maybe `{near[0]}`" if near else f"it has {', '.join(f'`{f}`' for f in FIELDS)}"
        findings.add("NL0214", said, block.field_spans.get(name) or value.span, "unknown field", help=mend)


def has_base(one: doc.Variant | doc.Ablate, document: doc.Document, findings: Findings) -> bool:
    """Whether `document` declares what `one` changes; NL0602 is recorded where it does not."""
    known = [d.name for d in document.declarations if isinstance(d, doc.Train | doc.Model | doc.Variant)]
    if one.base in known:
        return True
    near = nearest(one.base, known)
    said = f"there is no variant or `train` block called `{one.base}`"
    mend = f"maybe `{near[0]}`" if near else _listed("the spec has", known)
    findings.add("NL0602", said, one.base_span or one.where(), "unknown base", help=mend)
    return False


# --------------------------------------------------------------------------- variants


def count(block: doc.Ablate) -> int:
    """How many variants a block makes, without making them; `COUNTED` stands for as many or more."""
    return min(COUNTED, sum(_size(axis) for axis in block.axes))


def _size(axis: doc.Axis) -> int:
    lengths = [len(values) for values in axis.values]
    match axis.action:
        case "without":
            return len(axis.together or axis.paths)
        case "variants":
            return len(axis.paths)
        case "zip":
            return min(lengths, default=0)
        case _:
            return _product(lengths)


def _product(lengths: Sequence[int]) -> int:
    if 0 in lengths:
        return 0
    total = 1
    for length in lengths:
        total *= length
        if total >= COUNTED:
            return COUNTED
    return total


def variants(
    block: doc.Ablate, document: doc.Document, findings: Findings | None = None
) -> Iterator[Planned]:
    """The variants of a block, one after the other, in the order in which it is written.

    `without` removes each of its paths in turn, those in a list of their own together; `replace` puts each
    of its values in place of a part, `vary` gives one path each of its values, `grid` gives several paths
    all combinations, and `zip` the values side by side; `variants` takes in declared ones.
    """
    findings = Findings() if findings is None else findings
    for axis in block.axes:
        match axis.action:
            case "without":
                yield from _without(axis)
            case "variants":
                yield from _declared(axis, block, document, findings)
            case "zip":
                yield from (_given(axis, row) for row in zip(*axis.values, strict=False))
            case _:
                yield from (_given(axis, row) for row in product(*axis.values))


def _span(axis: doc.Axis, index: int) -> Span | None:
    return axis.path_spans[index] if index < len(axis.path_spans) else axis.span


def _known(spans: Iterable[Span | None]) -> tuple[Span, ...]:
    return tuple(span for span in spans if span is not None)


def _without(axis: doc.Axis) -> Iterator[Planned]:
    first = 0
    for size in axis.together or [1] * len(axis.paths):
        indices = range(first, first + size)
        first += size
        items = tuple(amendment("remove", axis.paths[i], None, _span(axis, i)) for i in indices)
        words = f"without {', '.join(item.path for item in items)}"
        yield Planned(items, words, _known(item.path_span for item in items))


def _given(axis: doc.Axis, values: tuple[e.Expr, ...]) -> Planned:
    action = "replace" if axis.action == "replace" else "set"
    items = tuple(
        amendment(action, path, value, _span(axis, index))
        for index, (path, value) in enumerate(zip(axis.paths, values, strict=False))
    )
    words = ", ".join(in_words(item).removeprefix("set ") for item in items)
    return Planned(items, words, _known([*(i.path_span for i in items), *(v.span for v in values)]))


def _declared(
    axis: doc.Axis, block: doc.Ablate, document: doc.Document, findings: Findings
) -> Iterator[Planned]:
    for index, name in enumerate(axis.paths):
        place = _span(axis, index)
        steps = _steps(name, block.base, document)
        if steps is not None:
            yield Planned(tuple(a for step in steps for a in step.amendments), name, _known([place]))
            continue
        found = document.find(name)
        known = [
            d.name
            for d in document.declarations
            if isinstance(d, doc.Variant) and _steps(d.name, block.base, document) is not None
        ]
        near = nearest(name, known)
        if isinstance(found, doc.Variant):
            said, label = f"`{name}` is a variant of `{found.base}`, not of `{block.base}`", "of another base"
        else:
            said, label = f"there is no variant called `{name}`", "not declared"
        mend = f"declare it `variant {name} of {block.base}`"
        if not isinstance(found, doc.Variant):
            mend = f"maybe `{near[0]}`" if near else _listed("variants of the base", known)
        findings.add(
            "NL0611", said, place, label, others=((block.base_span, "the base of the study"),), help=mend
        )


def _steps(name: str, base: str, document: doc.Document) -> list[doc.Variant] | None:
    """The variants that lead from `base` to the one called `name`; None where no way does."""
    steps: list[doc.Variant] = []
    while name != base:
        found = document.find(name)
        if not isinstance(found, doc.Variant) or any(found is one for one in steps):
            return None
        steps.insert(0, found)
        name = found.base
    return steps or None


# --------------------------------------------------------------------------- fields


def seeds_of(block: doc.Ablate, findings: Findings) -> tuple[int, ...]:
    """The seeds with which each variant is trained: 0, 1, ... for `seeds = 5`, those of `seeds = [0, 7]`."""
    value = block.fields.get("seeds")
    if value is None:
        return (0,)
    if not isinstance(value, e.ListOf):
        number = _whole(value)
        if number is not None and 1 <= number <= MOST:
            return tuple(range(number))
        need = f"needs a whole number between 1 and {MOST}, or a list of seeds"
        findings.add("NL0205", f"`seeds` is {print_expr(value)}", value.span, need)
        return (0,)
    seeds: list[int] = []
    for item in value.items:
        number = _whole(item)
        if number is None or not 0 <= number <= LARGEST_SEED:
            need = f"needs a whole number between 0 and {LARGEST_SEED:,}"
            findings.add("NL0205", f"a seed is {print_expr(item)}", item.span, need)
        elif number in seeds:
            findings.add("NL0205", f"the seed {number} is given twice", item.span, "given before")
        else:
            seeds.append(number)
    if not value.items or len(seeds) > MOST:
        need = f"needs between 1 and {MOST} seeds"
        findings.add("NL0205", f"`seeds` lists {len(value.items):,} seeds", value.span, need)
    return tuple(seeds) or (0,)


def _whole(value: e.Expr) -> int | None:
    """The whole number that is written; None for anything else."""
    return value.value if isinstance(value, e.Number) and isinstance(value.value, int) else None


def measures_of(block: doc.Ablate, findings: Findings) -> tuple[str, ...]:
    """What is compared, the first above all: `loss` where nothing is said."""
    value = block.fields.get("measure")
    if value is None:
        return ("loss",)
    items = value.items if isinstance(value, e.ListOf) else (value,)
    measures: list[str] = []
    for item in items:
        name = print_expr(item)
        if name not in MEASURES:
            near = nearest(item.function.text if isinstance(item, e.Call) else name, list(MEASURES))
            mend = f"maybe `{near[0]}`" if near else _listed("measures", list(MEASURES))
            findings.add(
                "NL0203", f"there is no measure called `{name}`", item.span, "unknown measure", help=mend
            )
        elif name in measures:
            findings.add("NL0203", f"`{name}` is measured twice", item.span, "given before")
        else:
            measures.append(name)
    if not items:
        mend = "write `measure = loss`"
        findings.add("NL0203", "`measure` names nothing", value.span, "an empty list", help=mend)
    return tuple(measures) or ("loss",)


def keep_of(block: doc.Ablate, findings: Findings) -> Keep | None:
    """The budget that all variants share; None where nothing is held."""
    if block.keep is None:
        return None
    words = block.keep.words if isinstance(block.keep, e.Phrase) else (block.keep,)
    what, by = print_expr(block.keep).split()[0], _by(words)
    known: Quantity | None = next((q for q in QUANTITIES if q == what), None)
    within = _fraction(words)
    mend = ""
    if known is None:
        near = nearest(what, QUANTITIES)
        mend = f"maybe `{near[0]}`" if near else _listed("what can be held", QUANTITIES)
    elif within is None or by is None:
        mend = f"write `keep {known} within 2%`{'' if known == 'time' else ', perhaps with `by` and a path'}"
    elif known == "time" and by:
        mend = "time is held by the number of steps: leave `by` out"
    if known is None or within is None or by is None or mend:
        no = "holds nothing that is known" if known is None else "is no budget"
        message = f"`keep {print_expr(block.keep)}` {no}"
        findings.add("NL0608", message, block.keep.span, "not understood", help=mend)
        return None
    return Keep(known, within, by, block.keep.span)


def _fraction(words: tuple[e.Expr, ...]) -> float | None:
    """0.02 of `within 2%`, which stands behind the first word."""
    match words[1:3]:
        case (e.Name(parts=("within",)), e.Quantity(amount=e.Number(value=value), unit="%")) if value < 100:
            return float(value) / 100
        case _:
            return None


def _by(words: tuple[e.Expr, ...]) -> tuple[str, ...] | None:
    """The paths behind `by`; None where something else stands there."""
    match words[3:]:
        case ():
            return ()
        case (e.Name(parts=("by",)), e.Name() as path):
            return (path.text,)
        case (e.Name(parts=("by",)), e.ListOf(items=items)) if items:
            paths = tuple(item.text for item in items if isinstance(item, e.Name))
            return paths if len(set(paths)) == len(items) else None
        case _:
            return None


def by_spans(keep: e.Expr | None) -> tuple[Span | None, ...]:
    """Where the paths behind `by` are written, in the order of `Keep.by`."""
    words = keep.words if isinstance(keep, e.Phrase) else ()
    last = words[-1] if len(words) > 4 else None
    return tuple(i.span for i in last.items) if isinstance(last, e.ListOf) else (last and last.span,)


def baseline_of(block: doc.Ablate, planned: Sequence[Planned], findings: Findings) -> str:
    """The words of the variant, one of `planned`, with which the others are compared; `base` for the base."""
    value = block.fields.get("baseline")
    if value is None:
        return BASE
    said = " ".join((value.value if isinstance(value, e.Text) else print_expr(value)).split())
    known = [BASE, *(one.words for one in planned)]
    if said in known:
        return said
    near = nearest(said, known)
    spelled = [one if one == BASE or one.isidentifier() else f'"{one}"' for one in (near or known)]
    findings.add(
        "NL0612",
        f"`{block.name}` makes no variant called `{said}`",
        value.span,
        "not among its variants",
        help=f"maybe `{spelled[0]}`" if near else _listed("to compare with", spelled),
    )
    return BASE


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}: {', '.join(f'`{name}`' for name in names[:12]) or 'none'}"
