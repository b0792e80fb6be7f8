"""The plan of a study: which variants an `ablate` block makes, what each changes, and what it costs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from nldsl.ablate.names import file_safe
from nldsl.ablate.rows import BASE, Keep, Row
from nldsl.diagnostics.model import Diagnostic, SpecError
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve import Resolution, resolve
from nldsl.resolve.ablations import MOST, Planned, count, variants
from nldsl.resolve.modules import Module

if TYPE_CHECKING:
    from nldsl.api.spec import Spec

__all__ = ["MOST", "Plan", "Row", "digest_of", "find_block", "plan", "planned_rows"]


class HasModule(Protocol):
    """A loaded spec: `module` is the file with its imports, as linked; `settings` amend every variant."""

    settings: tuple[doc.Amendment, ...]

    @property
    def module(self) -> Module: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """The variants of one study, its base first, and how they are to be run and compared.

    Attributes:
        name: of the `ablate` block.
        base: the run (a `train` block or a variant of one) that every variant changes.
        rows: the base first; each spec once.
        seeds: of weights and data order; every variant is trained once with each.
        measures: what is compared, the first above all.
        baseline: the name of the row with which the others are compared.
        keep: what all share; None if nothing is held equal.
        module, settings: the file as linked, and what `--set` changes in all variants.
    """

    name: str
    base: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0,)
    measures: tuple[str, ...] = ("loss",)
    baseline: str = BASE
    keep: Keep | None = None
    module: Module = field(kw_only=True, repr=False)
    settings: tuple[doc.Amendment, ...] = field(default=(), kw_only=True, repr=False)

    @property
    def runnable(self) -> tuple[Row, ...]:
        """The rows that can be run."""
        return tuple(row for row in self.rows if row.problem is None)

    @property
    def trials(self) -> int:
        """Trainings in all."""
        return len(self.seeds) * len(self.runnable)

    def row(self, name: str) -> Row:
        """The row called `name`; raises `KeyError`."""
        return next((row for row in self.rows if row.name == name), None) or _no_row(name)

    def spec_of(self, row: Row) -> Spec:
        """The checked spec of a row, ready to be compiled; raises `SpecError` where it has errors."""
        from nldsl.api.spec import of_module

        return of_module(self.module, variant=self.base, settings=(*self.settings, *row.amendments))


def plan(spec: HasModule, name: str | None = None) -> Plan:
    """The plan of the `ablate` block called `name` of a loaded spec, or of its only one.

    Raises:
        SpecError: there is no such block (NL0610), or it makes too many variants (NL0606).
    """
    block = find_block(spec.module, name)
    total = count(block)
    if total > MOST:
        raise SpecError(
            [Diagnostic("NL0606", f"`{block.name}` makes {total:,} variants", help="split the study")]
        )
    rows = planned_rows(spec.module, block.base, variants(block), spec.settings)
    seeds = block.fields.get("seeds")
    number = seeds.value if isinstance(seeds, e.Number) and isinstance(seeds.value, int) else 1
    return Plan(
        block.name, block.base, rows, tuple(range(number)), module=spec.module, settings=spec.settings
    )


def planned_rows(
    module: Module, base: str, wanted: Sequence[Planned], settings: tuple[doc.Amendment, ...] = ()
) -> tuple[Row, ...]:
    """The base and a row for each of `wanted`; those that are the same spec are merged into the first."""
    rows: dict[str, Row] = {}
    broken: list[Row] = []
    first = _row(module, base, Row(BASE, base), settings)
    for row in (first, *(_row(module, base, _named(one), settings) for one in wanted)):
        if row.problem is not None:
            broken.append(row)
        elif row.digest in rows:
            kept = rows[row.digest]
            rows[row.digest] = replace(kept, merged=(*kept.merged, row.words))
        else:
            rows[row.digest] = row
    return (*rows.values(), *broken)


def find_block(module: Module, name: str | None = None) -> doc.Ablate:
    """The `ablate` block called `name`, or the only one; raises `SpecError` (NL0610) otherwise."""
    blocks = [d for d in module.document.declarations if isinstance(d, doc.Ablate)]
    if name is None and len(blocks) == 1:
        return blocks[0]
    for block in blocks:
        if block.name == name:
            return block
    known = [block.name for block in blocks]
    if not known:
        message, hint = "the spec has no `ablate` block", "write `ablate Study of Run { without = [...] }`"
    elif name is None:
        message, hint = f"the spec has {len(known)} `ablate` blocks", f"name one of {', '.join(known)}"
    else:
        near = nearest(name, known)
        message = f"there is no `ablate` block called `{name}`"
        hint = f"maybe `{near[0]}`" if near else f"the spec has {', '.join(f'`{k}`' for k in known)}"
    raise SpecError([Diagnostic("NL0610", message, help=hint)])


def digest_of(resolution: Resolution) -> str:
    """A digest of what a resolution without errors means: that of its complete spec, without its remarks."""
    from nldsl.api.difference import without_comments
    from nldsl.api.expand import expand

    return hashlib.sha256(without_comments(expand(resolution)).encode()).hexdigest()


def _named(planned: Planned) -> Row:
    place = planned.spans[0] if planned.spans else None
    return Row(file_safe(planned.words), planned.words, amendments=planned.amendments, span=place)


def _row(module: Module, base: str, row: Row, settings: tuple[doc.Amendment, ...]) -> Row:
    """`row` with what it costs, or with why it cannot be made."""
    from nldsl.levels.build import build

    resolution = resolve(module, variant=base, extra=[*settings, *row.amendments])
    if resolution.expanded is None:
        problems = [d.message for d in resolution.findings if d.severity == "error"]
        return replace(row, problem=problems[0] if problems else "cannot be made")
    graph = build(resolution.expanded)
    return replace(
        row,
        digest=digest_of(resolution),
        parameters=graph.parameters,
        flops_per_token=sum(c.flops_per_token * c.copies for c in graph.components),
        state_bytes=sum(c.state_bytes * c.copies for c in graph.components if c.per_sequence),
        steps=graph.steps or 0,
    )


def _no_row(name: str) -> Row:
    raise KeyError(f"the plan has no variant called `{name}`")
