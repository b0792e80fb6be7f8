"""Rows of a plan: every wanted variant resolved, checked, held to the budget, and merged with its equals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nldsl.ablate.changes import in_words
from nldsl.ablate.rows import BASE, Keep, Row
from nldsl.diagnostics.model import Diagnostic, Label, SpecError
from nldsl.document import model as doc
from nldsl.records import record
from nldsl.resolve.modules import Module

if TYPE_CHECKING:
    from nldsl.api.reading import Analysis


@record
class Made:
    """Rows, and what was found on the way to them.

    `rows` has the base first, then each spec once in the order asked for, then what cannot be made.
    """

    rows: tuple[Row, ...]
    findings: tuple[Diagnostic, ...]


@record
class _One:
    """A row with the meaning of its spec and the lines that it is written in, before its budget was held.

    Both are empty of a broken one.
    """

    row: Row
    meaning: str = ""
    lines: tuple[str, ...] = ()
    findings: tuple[Diagnostic, ...] = ()


def make_rows(
    module: Module,
    base: str,
    wanted: Sequence[Row],
    settings: tuple[doc.Amendment, ...] = (),
    keep: Keep | None = None,
    seconds: Mapping[str, float] | None = None,
) -> Made:
    """The base and the `wanted` variants of it, with what each costs.

    Variants that are the same spec, or the base itself, are merged into the first.  A variant with errors, or
    whose budget cannot be held, becomes a row with a problem and a finding.  `keep time` needs the `seconds`
    of a step by the name of a row; without those of a row, nothing is held of it.

    Raises:
        SpecError: the base has errors.
    """
    first = _made(module, base, Row(BASE, base), settings)
    if first.row.problem is not None:
        raise SpecError(first.findings)
    ones = _merged([first, *(_made(module, base, row, settings) for row in wanted)])
    if keep is not None:
        hold = _Holder(module, base, settings, keep, seconds or {})
        ones = _merged([ones[0], *(hold(one) for one in ones[1:])])
    rows = [
        replace(one.row, changes=in_words(first.lines, one.lines)) if one.lines else one.row for one in ones
    ]
    return Made(
        (*(r for r in rows if r.problem is None), *(r for r in rows if r.problem is not None)),
        tuple(d for one in ones for d in one.findings),
    )


def digest_of(lines: Iterable[str]) -> str:
    """A digest of what a spec means: that of the lines of its complete spec, without remarks."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _merged(ones: Iterable[_One]) -> list[_One]:
    """Each spec once, the words of its equals with the first; what is broken stays as it is."""
    kept: dict[str, _One] = {}
    for one in ones:
        equal = kept.get(one.meaning) if one.meaning else None
        if equal is None:
            kept[one.meaning or f"broken {one.row.name}"] = one
        else:
            merged = (*equal.row.merged, one.row.words, *one.row.merged)
            kept[one.meaning] = replace(equal, row=replace(equal.row, merged=merged))
    return list(kept.values())


@record
class _Holder:
    """Holds the budget `keep` of one row after the other."""

    module: Module
    base: str
    settings: tuple[doc.Amendment, ...]
    keep: Keep
    seconds: Mapping[str, float]

    def __call__(self, one: _One) -> _One:
        """`one` with what holds its budget, or with why it cannot be held."""
        from nldsl.ablate.match import finding, hold

        row, pace = one.row, None
        if self.keep.what == "time":
            if BASE not in self.seconds or row.name not in self.seconds:
                return one
            pace = (self.seconds[BASE], self.seconds[row.name])
        if row.problem is not None:
            return one
        held = hold(self.module, self.base, self.settings, row.amendments, self.keep, seconds=pace)
        if held.problem is not None:
            told = finding(row.words, held, row.span, self.keep)
            broken = Row(row.name, row.words, row.question, row.amendments, merged=row.merged, span=row.span)
            return _One(replace(broken, problem=held.problem), findings=(told,))
        if not held.amendments:
            return one
        amended = replace(row, amendments=(*row.amendments, *held.amendments), matched=held.words)
        return replace(_made(self.module, self.base, amended, self.settings), lines=one.lines)


def _made(module: Module, base: str, row: Row, settings: tuple[doc.Amendment, ...]) -> _One:
    """One row with what it costs, or with why it cannot be made."""
    from nldsl.api.expand import lines
    from nldsl.api.reading import Linked, analyse
    from nldsl.checks.ablations import meaning

    analysis = analyse(
        Linked(module.source, module, (), ()), variant=base, extra=(*settings, *row.amendments)
    )
    expanded, graph = analysis.resolution.expanded, analysis.graph
    if analysis.has_errors or expanded is None or graph is None:
        return _broken(row, analysis)
    written = tuple(lines(analysis.resolution))
    return _One(
        replace(
            row,
            digest=digest_of(written),
            parameters=graph.parameters,
            flops_per_token=graph.flops_per_token,
            state_bytes=graph.state_bytes,
            steps=graph.steps or 0,
        ),
        meaning(expanded),
        written,
    )


def _broken(row: Row, analysis: Analysis) -> _One:
    """A row that cannot be made, with a finding that has both places: what goes wrong, and the variant."""
    wrong = [d for d in analysis.findings if d.severity == "error"]
    first = wrong[0]
    mend = first.help or (first.labels[0].text if first.labels else "")
    problem = f"{first.message}; {mend}" if mend else first.message
    broken = replace(row, problem=problem)
    own = tuple(d for d in wrong if d.code.startswith("NL06"))
    if row.name == BASE or own:
        return _One(broken, findings=own or tuple(wrong))
    more = f"; {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
    here = (Label(row.span, "the variant"),) if row.span is not None else ()
    finding = Diagnostic(
        "NL0607",
        f"the variant `{row.words}` is broken: {first.message}{more}",
        (*first.labels[:1], *here),
        (f"as {first.code} says", *first.notes),
        first.help,
    )
    return _One(broken, findings=(finding,))
