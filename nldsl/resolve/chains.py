"""Chains of shared weights that learn from the task."""

from __future__ import annotations

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.levels.graph import Clock
from nldsl.resolve.expanded import (
    ChainInstance,
    ChainLevel,
    Shape,
)
from nldsl.resolve.fields import FIELDS, Fields
from nldsl.resolve.findings import Unresolved


class ChainFields(Fields):
    """A memory with `objective = task`."""

    def chain(self) -> ChainInstance:
        """A memory that learns from the model's own loss (`objective = task`)."""
        declaration = self.declaration
        chain = declaration.chain
        allowed = ("objective", "scope", "plastic", *(("map", "update", "reduce") if chain is None else ()))
        for name, value in self.fields.items():
            if name not in allowed and name in FIELDS:
                self.findings.add(
                    "NL0507",
                    f"`{name}` means nothing to a memory that learns from the task",
                    value.span,
                    "not used",
                    others=((self._span("objective"), "the objective"),),
                    help=f"remove `{name}`, or give the memory an objective of its own such as `l2`",
                )
            elif name not in allowed:
                self._unknown_field(name)
        if self._word("scope", "the scope", ("shared", "sequence"), "shared") == "sequence":
            raise self.findings.stop(
                "NL0701",
                "no code can be made yet for task weights of each sequence",
                self._span("scope"),
                "per sequence",
                help="leave `scope` out: the weights are then shared by all sequences",
            )
        if self._flag("plastic", False):
            raise self.findings.stop(
                "NL0701",
                "no code can be made yet for shared weights that go on learning at test time",
                self._span("plastic"),
                "plastic",
                help="leave `plastic` out: shared weights stand still after training",
            )
        if chain is None:
            fields = {k: v for k, v in self.fields.items() if k in ("map", "update", "reduce")}
            levels = [self._level(declaration.name, fields, declaration.where(), self.path)]
            return ChainInstance(
                declaration.name,
                self.path,
                self.arguments,
                self.width,
                "sequential",
                tuple(levels),
                Shape("flat", self.width),
                span=self.call.span,
                declared=declaration.where(),
            )
        if chain.variant != "sequential":
            near = nearest(chain.variant, ["sequential"])
            known = chain.variant in ("nested", "independent")
            code, text = (
                ("NL0701", f"no code can be made yet for a `{chain.variant}` chain")
                if known
                else ("NL0203", f"a chain cannot be `{chain.variant}`")
            )
            raise self.findings.stop(
                code,
                text,
                chain.where(),
                "the kind of chain",
                help=f"maybe `{near[0]}`" if near and not known else "use `chain sequential`",
            )
        levels = []
        failed = False
        for level in chain.levels:
            try:
                levels.append(
                    self._level(level.name, level.fields, level.where(), f"{self.path}.{level.name}")
                )
            except Unresolved:
                failed = True
        if failed:
            raise Unresolved(declaration.name)
        if not levels:
            raise self.findings.stop(
                "NL0211",
                f"the chain of `{declaration.name}` has no level",
                chain.where(),
                "an empty chain",
                help="write `level fast { map = mlp(4 * dim), update = every 1 step }`",
            )
        return ChainInstance(
            declaration.name,
            self.path,
            self.arguments,
            self.width,
            chain.variant,
            tuple(levels),
            Shape("flat", self.width),
            span=self.call.span,
            declared=declaration.where(),
        )

    def _level(self, name: str, fields: dict[str, e.Expr], where: Span | None, path: str) -> ChainLevel:
        for field, value in fields.items():
            if field not in ("map", "update", "reduce"):
                near = nearest(field, ["map", "update", "reduce"])
                raise self.findings.stop(
                    "NL0214",
                    f"a level has no field `{field}`",
                    value.span,
                    "unknown field",
                    help=f"maybe `{near[0]}`" if near else "it has `map`, `update` and `reduce`",
                )
        if "map" not in fields:
            raise self.findings.stop(
                "NL0206",
                f"the level `{name}` has no `map`",
                where,
                "nothing to learn",
                help="write `map = mlp(4 * dim)`",
            )
        mapping = self.flows.map(fields["map"], self.scope, self.width)
        if mapping.kind not in ("mlp", "swiglu", "matrix"):
            raise self.findings.stop(
                "NL0506",
                f"`{mapping.kind}` cannot learn from the task",
                fields["map"].span,
                "not a map from features to features",
                help="use `mlp(...)`, `swiglu(...)` or `matrix`",
            )
        clock = self.scope.clock(fields["update"]) if "update" in fields else Clock(1, "step")
        if clock.unit in ("sequence", "document"):
            raise self.findings.stop(
                "NL0303",
                f"the level `{name}` counts in {clock.unit}s",
                fields["update"].span,
                "this unit does not fit",
                help="a level that learns from the task counts steps or tokens",
            )
        reduce = (
            self.scope.word(fields["reduce"], "how gradients add up", ("mean", "sum"))
            if "reduce" in fields
            else "mean"
        )
        clock_span = fields["update"].span if "update" in fields else where
        return ChainLevel(name, path, mapping, clock, reduce, span=where, clock_span=clock_span)
