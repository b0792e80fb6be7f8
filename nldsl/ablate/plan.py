"""The plan of a study: which variants an `ablate` block makes, what each changes, and what it costs."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nldsl.ablate.choice import at_most, only
from nldsl.ablate.making import make_rows
from nldsl.ablate.names import names_of
from nldsl.ablate.rows import BASE, Keep, Row
from nldsl.diagnostics.model import Diagnostic, SpecError
from nldsl.diagnostics.suggest import nearest
from nldsl.document import model as doc
from nldsl.resolve.ablations import MOST, Planned, asked
from nldsl.resolve.findings import Findings
from nldsl.resolve.modules import Module

if TYPE_CHECKING:
    from nldsl.ablate.calibrate import Estimate
    from nldsl.ablate.propose import HasModule, Proposals
    from nldsl.ablate.running import Place
    from nldsl.api.spec import Spec

__all__ = ["Plan", "Row", "find_block", "plan"]


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """The variants of one study, its base first, and how they are to be run and compared.

    Attributes:
        name: of the `ablate` block.
        base: the run (a `train` block or a variant of one) that every variant changes.
        rows: the base first; each spec once; what cannot be run last.
        seeds: of weights and data order; every variant is trained once with each.
        measures: what is compared, the first above all.
        baseline: the name of the row with which the others are compared.
        keep: what all share; None if nothing is held equal.
        block: the `ablate` block as text.
        left_out: variants that were asked for and are not in the plan, in words, with the reason.
        findings: about rows with a problem; both places where there are two.
        seconds: of a step by the name of a row, by which `keep time` was held.
        module, settings: the file as linked, and what `--set` changes in all variants.
    """

    name: str
    base: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0,)
    measures: tuple[str, ...] = ("loss",)
    baseline: str = BASE
    keep: Keep | None = None
    block: str = ""
    left_out: tuple[tuple[str, str], ...] = ()
    findings: tuple[Diagnostic, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict, kw_only=True, repr=False)
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

    def calibrate(self, seconds: float = 20.0) -> Estimate:
        """How long the trials will take, from some steps of each variant in another process."""
        from nldsl.ablate.calibrate import calibrate

        return calibrate(self, seconds)

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write each variant as a complete spec, and `plan.json`; see `nldsl.ablate.write.write`."""
        from nldsl.ablate.write import write

        return write(self, Path(folder))

    def run(
        self,
        folder: str | os.PathLike[str],
        *,
        jobs: int | None = None,
        on: Place = "local",
        options: Mapping[str, object] | None = None,
        stop_early: bool = False,
        tell: Callable[[dict[str, Any]], None] | None = None,
    ) -> int:
        """Make the study in `folder`, or go on with the one that is there, and do its trials.

        Args:
            folder: of the study.
            jobs: trials at once; by default as many as there are cores.
            on: "local", "ray" or "slurm".
            options: of Ray or Slurm.
            stop_early: on Ray, end trials that fall behind.
            tell: hears events, as for `nldsl.ablate.local.run`.

        Returns:
            0 when all trials have ended, 1 when some failed, 130 when they were stopped.

        Raises:
            SpecError: a variant cannot be run.
            RunError: the folder cannot be used, or holds another study.
        """
        from nldsl.ablate.running import ready, run
        from nldsl.ablate.study import Study

        ready(self)
        made = Study.make(Path(folder), self)
        return run(made, on, jobs=jobs, options=options, stop_early=stop_early, tell=tell)

    def __str__(self) -> str:
        from nldsl.ablate.table import as_text

        return as_text(self)

    def __repr__(self) -> str:
        count = len(self.rows) - 1
        variants = f"{count} variant{'s' * (count != 1)}"
        return f"<Plan {self.name} of {self.base}: {variants}, {self.trials} trials>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def plan(
    spec: HasModule,
    name: str | None = None,
    *,
    auto: bool = False,
    families: Sequence[str] | None = None,
    only: Sequence[str] = (),
    most: int | None = None,
    seeds: int | None = None,
    seconds: Mapping[str, float] | None = None,
) -> Plan:
    """The plan of the `ablate` block called `name` of a loaded spec, or of its only one.

    Args:
        spec: a loaded spec; its settings amend every variant.  Its own variant counts for proposals alone.
        name: of the block.
        auto: plan proposals (`nldsl.ablate.propose`) for the spec in place of a block's variants; with a
            `name`, for the base of that block, with its seeds, measures and budget.
        families: of proposals; all where None is given.
        only: pieces or globs of names, words and questions: what any of them means is taken in.
        most: so many variants, the first ones; the base is not counted.
        seeds: so many of them, 0, 1, ..., in place of the block's.
        seconds: of a step by the name of a row, for `keep time` (`nldsl.ablate.calibrate`).

    Raises:
        SpecError: there is no such block (NL0610), it has mistakes or makes too many variants (NL0606), a
            word of `only` means none of them (NL0650), or the base has errors.
        ValueError: `seeds` or `most` is no number of seeds or variants.
    """
    _counts(seeds, most)
    wish = _proposed(spec, name, families) if auto else _written(spec, find_block(spec.module, name))
    baseline = next((row.name for row in wish.rows if row.words == wish.baseline), BASE)
    chosen, left_out = _chosen(wish.rows, only, most, baseline)
    wish = wish if seeds is None else replace(wish, seeds=tuple(range(seeds)))
    made = make_rows(wish.module, wish.base, chosen, spec.settings, wish.keep, seconds)
    return Plan(
        wish.name,
        wish.base,
        made.rows,
        wish.seeds,
        wish.measures,
        next((row.name for row in made.rows if wish.baseline in row.merged), baseline),
        wish.keep,
        block=wish.block if wish.proposals is None else _as_block(wish, wish.proposals, chosen),
        left_out=(*wish.left_out, *left_out),
        findings=made.findings,
        seconds=dict(seconds or {}),
        module=wish.module,
        settings=spec.settings,
    )


def _counts(seeds: int | None, most: int | None) -> None:
    if seeds is not None and not 1 <= seeds <= MOST:
        raise ValueError(f"`seeds` is {seeds}; it is a number between 1 and {MOST}")
    if most is not None and most < 0:
        raise ValueError(f"`most` is {most}; it is a number of variants")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a plan is made from: the fields of a `Plan`, and rows that know no costs.

    A row of each of the `proposals`, in their order, where it is made from some; `block` is "" then.
    """

    name: str
    base: str
    module: Module
    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0,)
    measures: tuple[str, ...] = ("loss",)
    baseline: str = BASE
    keep: Keep | None = None
    block: str = ""
    left_out: tuple[tuple[str, str], ...] = ()
    proposals: Proposals | None = None


def _written(spec: HasModule, block: doc.Ablate) -> _Wish:
    """What a block asks for; raises `SpecError` where it has mistakes."""
    findings = Findings()
    wanted = asked(block, spec.module.document, findings)
    if findings.has_errors:
        raise SpecError(findings.items)
    return _Wish(
        block.name,
        block.base,
        spec.module,
        tuple(_named(wanted.variants)),
        wanted.seeds,
        wanted.measures,
        wanted.baseline,
        wanted.keep,
        block.span.text if block.span is not None else "",
    )


def _proposed(spec: HasModule, name: str | None, families: Sequence[str] | None) -> _Wish:
    """What is proposed for a spec; the block called `name` says the base and how it is run."""
    from nldsl.ablate.propose import propose
    from nldsl.ablate.propose.text import NAME
    from nldsl.api.spec import of_module

    written = _written(spec, find_block(spec.module, name)) if name is not None else None
    base = written.base if written is not None else spec.variant
    found = propose(of_module(spec.module, variant=base, settings=spec.settings), families)
    names = names_of([one.words for one in found])
    rows = tuple(
        Row(name, one.words, one.question, one.amendments) for name, one in zip(names, found, strict=True)
    )
    wish = written or _Wish(NAME, found.base, found.module, ())
    return replace(
        wish,
        base=found.base,
        module=found.module,
        rows=rows,
        baseline=BASE,
        block="",
        left_out=tuple((one.proposal.words, one.reason) for one in found.left_out),
        proposals=found,
    )


def _as_block(wish: _Wish, proposals: Proposals, chosen: Sequence[Row]) -> str:
    """The proposals of the `chosen` rows as a block that makes the same plan."""
    from nldsl.ablate.propose.text import block_text

    taken = [one for row, one in zip(wish.rows, proposals, strict=True) if row in chosen]
    return block_text(taken, wish.base, wish.name, wish.seeds, wish.measures, wish.keep)


def _chosen(
    wanted: Sequence[Row], patterns: Sequence[str], most: int | None, baseline: str
) -> tuple[list[Row], tuple[tuple[str, str], ...]]:
    """The rows to make, and the words of the others with the reason."""
    meant, others = only(wanted, patterns, baseline)
    first, rest = at_most(meant, most, baseline)
    reasons = [(row.words, "not asked for") for row in others]
    return first, (*reasons, *((row.words, f"more than {most}") for row in rest))


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
        message = "the spec has no `ablate` block"
        hint = "write `ablate Study of Run { without = [...] }`, or let `--auto` propose variants"
    elif name is None:
        message, hint = f"the spec has {len(known)} `ablate` blocks", f"name one of {', '.join(known)}"
    else:
        near = nearest(name, known)
        message = f"there is no `ablate` block called `{name}`"
        hint = f"maybe `{near[0]}`" if near else f"the spec has {', '.join(f'`{k}`' for k in known)}"
    raise SpecError([Diagnostic("NL0610", message, help=hint)])


def _named(wanted: Sequence[Planned]) -> list[Row]:
    names = names_of([one.words for one in wanted])
    return [
        Row(name, one.words, one.question, one.amendments, span=one.spans[0] if one.spans else None)
        for name, one in zip(names, wanted, strict=True)
    ]


def _no_row(name: str) -> Row:
    raise KeyError(f"the plan has no variant called `{name}`")
