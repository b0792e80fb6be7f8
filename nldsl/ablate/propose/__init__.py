"""What a careful researcher would try with a spec: proposed variants, each with the question it asks.

`propose(spec)` reads the resolved spec and its level graph; nothing is known about any system by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from nldsl.ablate.propose import clocks, controls, levels, parts, readings, swaps
from nldsl.ablate.propose.proposal import Proposal
from nldsl.ablate.propose.subject import Subject, subject_of
from nldsl.ablate.propose.text import NAME, block_text
from nldsl.api.reading import Analysis, Linked, analyse, linked
from nldsl.checks.ablations import meaning
from nldsl.diagnostics.model import Diagnostic, Source, SpecError
from nldsl.diagnostics.suggest import nearest
from nldsl.document import model as doc
from nldsl.resolve.expanded import ChainInstance
from nldsl.resolve.modules import Module

__all__ = ["FAMILIES", "LeftOut", "Proposal", "Proposals", "block", "propose"]

Family = Callable[[Subject], Iterator[Proposal]]

FAMILIES: tuple[tuple[str, tuple[Family, ...]], ...] = (
    (
        "parts",
        (
            parts.momentum,
            parts.retention,
            parts.erasure,
            parts.adaptive,
            parts.convolutions,
            parts.constant_gates,
            parts.depth_of_map,
            parts.restraints,
            parts.windows,
            parts.several_writes,
            parts.positions,
            parts.lengths,
            parts.activations,
            parts.outputs,
            parts.block_norms,
            swaps.outer_terms,
        ),
    ),
    ("controls", (controls.lines, controls.plain_parts, controls.gated_layers)),
    (
        "swaps",
        (
            swaps.rules,
            swaps.objectives,
            swaps.targets,
            swaps.outer_rules,
            swaps.memories_of_rules,
            readings.mixtures,
        ),
    ),
    ("levels", (levels.left_out, levels.frozen, levels.one_clock, levels.order, levels.own_rules)),
    ("clocks", (clocks.periods_of_memories, clocks.periods_of_levels, clocks.rules, clocks.reaches)),
    (
        "readings",
        (
            readings.presets,
            readings.options_of_rules,
            readings.starts,
            readings.gradients,
            readings.gradients_of_chains,
            readings.reads,
            readings.anchors,
            readings.sums,
        ),
    ),
)
"""Every family with the functions that propose, in the order in which their proposals are listed."""


class HasModule(Protocol):
    """A loaded spec: its file as linked, the variant that was chosen, and what `--set` changes."""

    variant: str | None
    settings: tuple[doc.Amendment, ...]

    @property
    def module(self) -> Module: ...


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A proposal that is not made, and why."""

    proposal: Proposal
    reason: str


@dataclass(frozen=True, slots=True)
class Proposals:
    """What is proposed for one run.

    Attributes:
        base: the run or variant that the proposals change.
        kept: the proposals, each another spec than the base and than all before it.
        left_out: what had been thought of and cannot be made, or is the same spec as another.
        module: the file with what the proposals import beside what it imports itself.
    """

    base: str
    kept: tuple[Proposal, ...]
    left_out: tuple[LeftOut, ...]
    module: Module = field(repr=False)

    def __iter__(self) -> Iterator[Proposal]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def imports(self) -> tuple[str, ...]:
        """The parts of the library that proposals name and the spec does not import."""
        return tuple(sorted({name for proposal in self.kept for name in proposal.imports}))


def propose(spec: HasModule, families: Sequence[str] | None = None) -> Proposals:
    """The proposals for a spec as its variant and settings make it.

    Args:
        spec: a loaded spec without errors.
        families: names of `FAMILIES`; all of them where None is given.

    Raises:
        SpecError: the spec declares no run (NL0640), or there is no such family (NL0641).
    """
    chosen = _chosen(families)
    base = _analysed(spec.module, spec)
    subject, name = _subject(base)
    thought = [
        replace(one, family=family)
        for family, functions in chosen
        for function in functions
        for one in function(subject)
    ]
    module = with_imports(spec.module, sorted({n for one in thought for n in one.imports}))
    kept: list[Proposal] = []
    left: list[LeftOut] = []
    seen = _Seen(base)
    for one in thought:
        reason = seen.reason(one, _analysed(module, spec, one))
        if reason is None:
            kept.append(one)
        else:
            left.append(LeftOut(one, reason))
    needed = sorted({n for one in kept for n in one.imports})
    return Proposals(spec.variant or name, tuple(kept), tuple(left), with_imports(spec.module, needed))


def block(proposals: Proposals, name: str = NAME) -> str:
    """An `ablate` block, as text of the language, that makes the proposals.

    Each is below its question.  Imports and variants that it needs stand before it.
    """
    return block_text(proposals, proposals.base, name)


def with_imports(module: Module, names: Sequence[str]) -> Module:
    """The file as if it imported `names` of the standard library, too."""
    missing = [name for name in names if module.lookup(name) is None]
    if not missing:
        return module
    source = Source("imports.nl", f"edition 2026\nimport [{', '.join(missing)}] from std\n")
    other = linked(source, None).module
    known = {one.source.name: one for one in _all_below(module)}
    found = {name: known.get(f"std/{name}.nl", other.imported[name][0]) for name in missing}
    document = module.document.model_copy(
        update={"imports": [*module.document.imports, *other.document.imports]}
    )
    return replace(
        module, document=document, imported={**module.imported, **{n: (m, n) for n, m in found.items()}}
    )


def _all_below(module: Module) -> list[Module]:
    """Every file that a file imports, and that they do, each once."""
    found: dict[int, Module] = {}
    waiting = [module]
    while waiting:
        one = waiting.pop()
        for inner in (*(m for m, _ in one.imported.values()), *one.aliases.values()):
            if id(inner) not in found:
                found[id(inner)] = inner
                waiting.append(inner)
    return list(found.values())


UNSOUND = ("NL0311", "NL0313", "NL0505", "NL0508")
"""Warnings with which a variant would answer another question than its own.

Something is never due, or written and never read; it erases twice, or keys are too long to be erased."""


class _Seen:
    """The specs that were made so far, to tell when one comes again."""

    def __init__(self, base: Analysis) -> None:
        self.known = {d.code for d in base.findings}
        self.fixed = _from_files(base)
        self.parameters = base.graph.parameters if base.graph is not None else 0
        self.made: dict[str, str] = {}
        self._add(base, "the base")

    def reason(self, proposal: Proposal, found: Analysis) -> str | None:
        """Why a proposal is not made; None where it is, and remembered."""
        errors = [d for d in found.findings if d.severity == "error"]
        if errors or found.graph is None:
            return errors[0].message if errors else "it cannot be resolved"
        doubts = [d for d in found.findings if d.code in UNSOUND and d.code not in self.known]
        if doubts and proposal.family != "readings":  # papers do read parts that way
            return doubts[0].message
        if self.fixed and found.graph.parameters != self.parameters:
            return "the weights that the run starts from are those of the base"
        return self._add(found, f"`{proposal.words}`")

    def _add(self, found: Analysis, words: str) -> str | None:
        """Remember a spec, or say which one it is again."""
        assert found.resolution.expanded is not None
        known = self.made.setdefault(meaning(found.resolution.expanded), words)
        return f"the same as {known}" if known is not words else None


def _from_files(base: Analysis) -> bool:
    """Whether a run starts from weights in a file, which fit no model of another shape."""
    expanded = base.resolution.expanded
    if expanded is None:
        return False
    levels = (
        level for one, _ in expanded.instances() if isinstance(one, ChainInstance) for level in one.levels
    )
    begun = expanded.training is not None and expanded.training.start is not None
    return begun or any(level.pretrained is not None for level in levels)


def _analysed(module: Module, spec: HasModule, proposal: Proposal | None = None) -> Analysis:
    extra = (*spec.settings, *(proposal.amendments if proposal is not None else ()))
    return analyse(Linked(module.source, module, (), ()), variant=spec.variant, extra=extra)


def _subject(base: Analysis) -> tuple[Subject, str]:
    resolution = base.resolution
    expanded, train = resolution.expanded, resolution.base
    if expanded is None or base.graph is None:
        raise SpecError(list(base.findings))
    if not isinstance(train, doc.Train) or expanded.training is None:
        raise SpecError(
            [
                Diagnostic(
                    "NL0640",
                    "the spec has no run to propose variants of",
                    help="declare a `train` block: proposals change a model together with how it is trained",
                )
            ]
        )
    return subject_of(train, expanded, expanded.training, base.graph, resolution.module), train.name


def _chosen(families: Sequence[str] | None) -> tuple[tuple[str, tuple[Family, ...]], ...]:
    if families is None:
        return FAMILIES
    known = [name for name, _ in FAMILIES]
    for name in families:
        if name not in known:
            near = nearest(name, known)
            hint = f"maybe `{near[0]}`" if near else f"there are {', '.join(f'`{one}`' for one in known)}"
            raise SpecError(
                [Diagnostic("NL0641", f"there is no family of proposals called `{name}`", help=hint)]
            )
    return tuple((name, functions) for name, functions in FAMILIES if name in families)
