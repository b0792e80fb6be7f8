"""Rows of a plan: every wanted variant resolved, checked, held to the budget, and merged with its equals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nldsl.ablate.changes import in_words
from nldsl.ablate.rows import BASE, Row
from nldsl.diagnostics.model import Diagnostic, Label, SpecError
from nldsl.document import model as doc
from nldsl.records import record
from nldsl.resolve import Resolution
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
    """A row with the meaning of its spec and the lines that it is written in; both are empty of a broken
    one.
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
) -> Made:
    """The base and the `wanted` variants of it, with what each costs.

    Variants that are the same spec, or the base itself, are merged into the first; a variant with errors
    becomes a row with a problem and a finding.

    Raises:
        SpecError: the base has errors.
    """
    first = _made(module, base, Row(BASE, base), settings)
    if first.row.problem is not None:
        raise SpecError(first.findings)
    ones = _merged([first, *(_made(module, base, row, settings) for row in wanted)])
    rows = [
        replace(one.row, changes=in_words(first.lines, one.lines)) if one.lines else one.row for one in ones
    ]
    return Made(
        (*(r for r in rows if r.problem is None), *(r for r in rows if r.problem is not None)),
        tuple(d for one in ones for d in one.findings),
    )


def digest_of(resolution: Resolution) -> str:
    """A digest of what a resolution without errors means: that of its complete spec, without its remarks."""
    from nldsl.api.expand import lines

    return _digest(lines(resolution))


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _merged(ones: Iterable[_One]) -> list[_One]:
    """Each spec once, the words of its equals with the first; what is broken stays as it is."""
    kept: dict[str, _One] = {}
    for one in ones:
        equal = kept.get(one.meaning) if one.meaning else None
        if equal is None:
            kept[one.meaning or f"broken {one.row.name}"] = one
        else:
            kept[one.meaning] = replace(
                equal, row=replace(equal.row, merged=(*equal.row.merged, one.row.words))
            )
    return list(kept.values())


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
            digest=_digest(written),
            parameters=graph.parameters,
            flops_per_token=sum(c.flops_per_token * c.copies for c in graph.components),
            state_bytes=sum(c.state_bytes * c.copies for c in graph.components if c.per_sequence),
            steps=graph.steps or 0,
        ),
        meaning(expanded),
        written,
    )


def _broken(row: Row, analysis: Analysis) -> _One:
    """A row that cannot be made, with a finding that has both places: what goes wrong, and the variant."""
    wrong = [d for d in analysis.findings if d.severity == "error"]
    first = wrong[0]
    problem = f"{first.message}; {first.help}" if first.help else first.message
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
