"""Chains of weights that learn from the task: their variants, and what all levels have in common."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve.calls import function_name
from nldsl.resolve.chain_levels import LevelFields
from nldsl.resolve.expanded import ChainInstance, ChainLevel, MemoryInstance, Shape
from nldsl.resolve.fields import FIELDS, LEVEL_FIELDS, SEQUENCE_FIELDS, Called, Fields
from nldsl.resolve.findings import Unresolved

VARIANTS = ("sequential", "nested", "independent")
COMBINATIONS = ("weighted", "mean", "sum", "gated")

Local = Callable[[Called], MemoryInstance]
"""Makes the memory of a level that has an objective of its own."""


class ChainFields(Fields):
    """A memory with `objective = task`."""

    def chain(self, local: Local) -> ChainInstance:
        """The chain of this memory; a memory without one is a chain of one level."""
        declaration = self.declaration
        chain = declaration.chain
        scope = self._word("scope", "the scope", ("shared", "sequence"), "shared")
        self._no_fields_of_other_objectives(scope)
        variant = self._variant() if chain is not None else "sequential"
        combine = self._combine(variant)
        shared = {name: value for name, value in self.fields.items() if name in self._level_fields(scope)}
        written = chain.levels if chain is not None else [self._alone()]
        if not written:
            raise self.findings.stop(
                "NL0211",
                f"the chain of `{declaration.name}` has no level",
                chain.where() if chain is not None else declaration.where(),
                "an empty chain",
                help="write `level fast { map = mlp(4 * dim), update = every 1 step }`",
            )
        names = [level.name for level in written]
        levels: list[ChainLevel] = []
        for index, level in enumerate(written):
            slower = names[index + 1] if variant == "nested" and index + 1 < len(names) else None
            path = self.path if chain is None else f"{self.path}.{level.name}"
            one = LevelFields(self, level, shared, path, scope, slower)
            try:
                levels.append(one.level(local))
            except Unresolved:
                continue
        if len(levels) < len(written):
            raise Unresolved(declaration.name)
        made = ChainInstance(
            declaration.name,
            self.path,
            self.arguments,
            self.width,
            variant,
            tuple(levels),
            Shape("flat", self.width),
            combine,
            scope,
            span=self.call.span,
            declared=declaration.where(),
        )
        self._only_what_compiles(made)
        return made

    def _alone(self) -> doc.Level:
        """The one level of a memory that is no chain."""
        one = self.declaration
        return doc.Level.model_construct(name=one.name, fields={}, span=one.span, name_span=one.name_span)

    def _level_fields(self, scope: str) -> tuple[str, ...]:
        return LEVEL_FIELDS + SEQUENCE_FIELDS if scope == "sequence" else LEVEL_FIELDS

    def _no_fields_of_other_objectives(self, scope: str) -> None:
        """Say which fields mean nothing here; those of levels are defaults for all of them."""
        allowed = ("objective", "scope", *self._level_fields(scope))
        for name, value in self.fields.items():
            if name in allowed:
                continue
            if name not in FIELDS and name not in LEVEL_FIELDS:
                self._unknown_field(name)
                continue
            only = name in SEQUENCE_FIELDS
            self.findings.add(
                "NL0507",
                f"`{name}` means nothing to a memory that learns from the task"
                + (", unless each sequence has weights of its own" if only else ""),
                value.span,
                "not used",
                others=((self._span("objective"), "the objective"),),
                help=f"remove `{name}`, or "
                + ("write `scope = sequence`" if only else "give the memory an objective such as `l2`"),
            )

    def _variant(self) -> str:
        chain = self.declaration.chain
        assert chain is not None
        if chain.variant in VARIANTS:
            return chain.variant
        near = nearest(chain.variant, list(VARIANTS))
        raise self.findings.stop(
            "NL0203",
            f"a chain cannot be `{chain.variant}`",
            chain.where(),
            "the kind of chain",
            help=f"maybe `{near[0]}`" if near else f"use one of {', '.join(f'`{v}`' for v in VARIANTS)}",
        )

    def _combine(self, variant: str) -> str:
        """How the answers of independent levels become one: `weighted`, `weighted softmax`, `mean`, ..."""
        chain = self.declaration.chain
        given = dict(chain.arguments) if chain is not None else {}
        value = given.pop("combine", None) or given.pop("0", None)
        for name, extra in given.items():
            raise self.findings.stop(
                "NL0202",
                f"a chain has no argument `{name}`" if not name.isdigit() else "a chain takes one argument",
                extra.span,
                "unknown argument",
                help="`chain independent(combine = weighted)` says how the answers become one",
            )
        if value is None:
            return "weighted"
        if variant != "independent":
            raise self.findings.stop(
                "NL0202",
                f"the levels of a `{variant}` chain follow one another, so there is nothing to combine",
                value.span,
                "not used",
                help="remove `combine`, or write `chain independent`",
            )
        word = function_name(value)
        if word == "weighted" and isinstance(value, e.Call) and value.arguments:
            self.scope.word(value.arguments[0].value, "the weights of levels", ("softmax",))
            return "weighted softmax"
        return self.scope.word(value, "how levels are combined", COMBINATIONS)

    def _only_what_compiles(self, chain: ChainInstance) -> None:
        """Refuse what has a meaning that no code can be made for yet."""
        if chain.scope == "shared":
            return
        local = [level for level in chain.levels if level.memory is not None]
        if local and len(local) < len(chain.levels):
            raise self.findings.stop(
                "NL0701",
                f"no code can be made yet for a chain in which `{local[0].name}` alone has an objective",
                local[0].span,
                "learns from keys and values",
                help="give every level an objective of its own, or none",
            )


__all__ = ["COMBINATIONS", "VARIANTS", "ChainFields"]
