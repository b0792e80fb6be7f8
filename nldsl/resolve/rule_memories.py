"""The fields of a memory inside an `optimizer`."""

from __future__ import annotations

from typing import Literal

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.algorithm import Figure, Formula, Option, RuleMemory
from nldsl.resolve.calls import function_name, primitive_arguments
from nldsl.resolve.choices import chosen_fields
from nldsl.resolve.core import Map
from nldsl.resolve.expanded import Num
from nldsl.resolve.findings import Unresolved
from nldsl.resolve.formulas import Formulas, described, spelled
from nldsl.resolve.primitives import ACTIVATIONS, Takes
from nldsl.resolve.scope import Amount, Scope, Word

FIELDS = (
    *("map", "key", "value", "objective", "rule", "rate", "retain", "anchor", "update", "reduce", "read"),
    "start",
)
MAPS = ("vector", "matrix", "mlp")
_MLP = (
    Takes("hidden"),
    Takes("depth", default=2),
    Takes("residual", "flag", default=False),
    Takes("activation", "word", default="gelu", words=ACTIVATIONS),
)


class MemoryFields:
    """One memory of a rule on its way to a `RuleMemory`."""

    def __init__(self, declaration: doc.Memory, scope: Scope, formulas: Formulas) -> None:
        self.declaration, self.scope, self.formulas = declaration, scope, formulas
        self.findings, self.name = scope.findings, declaration.name
        self.fields = chosen_fields(declaration.fields, scope)

    def build(self) -> RuleMemory:
        """The memory; raises `Unresolved` after recording what is wrong."""
        self._only_fields()
        mapping = self._map()
        if "value" not in self.fields:
            raise self.findings.stop(
                "NL0206",
                f"the memory `{self.name}` has no `value`",
                self.declaration.where(),
                "a field is missing",
                help="write for instance `value = grad`",
            )
        key = self._tensor("key") if "key" in self.fields else None
        one = mapping.kind == "vector" and key is not None  # a number serves every key
        value = self.formulas.read(self.fields["value"]) if one else self._tensor("value")
        objective: Literal["l2", "dot"] = self._word("objective", ("l2", "dot"))  # type: ignore[assignment]
        update = self._update()
        return RuleMemory(
            self.name,
            mapping,
            value,
            objective,
            self._number("rate") or Figure("number", 1),
            self._number("retain"),
            key,
            self._implicit(mapping, objective, key),
            self._word("anchor", ("retained", "current")),  # type: ignore[arg-type]
            update,
            self._reduce(update),
            self._read(update),
            self._start(mapping, key, value),
            self._axes(mapping, key, value, update),
            self.declaration.where(),
        )

    # ------------------------------------------------------------------ fields

    def _only_fields(self) -> None:
        declaration = self.declaration
        if declaration.parameters or declaration.chain is not None:
            raise self._wrong(
                "has parameters" if declaration.parameters else "is a chain",
                declaration.where(),
                "a rule's memory is one set of weights; give parameters to the optimizer",
            )
        failed = False
        for name, value in declaration.fields.items():
            if name in FIELDS:
                continue
            near = nearest(name, list(FIELDS))
            hint = (
                f"maybe `{near[0]}`" if near else "values of its own stand in the optimizer, beside `weight`"
            )
            span = declaration.field_spans.get(name) or value.span
            self.findings.add(
                "NL0214", f"a memory of a rule has no field `{name}`", span, "unknown field", help=hint
            )
            failed = True
        if failed:
            raise Unresolved(self.name)

    def _wrong(self, what: str, span: Span | None, hint: str, label: str = "not for a rule") -> Exception:
        return self.findings.stop("NL0543", f"the memory `{self.name}` {what}", span, label, help=hint)

    def _span(self, name: str) -> Span | None:
        value = self.fields.get(name)
        return value.span if value is not None else self.declaration.where()

    def _word(self, name: str, choices: tuple[str, ...]) -> str:
        """A word out of `choices`, the first where the field is left out."""
        value = self.fields.get(name)
        return choices[0] if value is None else self.scope.word(value, f"`{name}`", choices)

    def _number(self, name: str) -> Formula | None:
        value = self.fields.get(name)
        return None if value is None else self.formulas.number(value, f"the `{name}` of `{self.name}`")

    def _tensor(self, name: str) -> Formula:
        made = self.formulas.read(self.fields[name])
        if made.kind != "tensor":
            raise self.findings.stop(
                "NL0542",
                f"the `{name}` of `{self.name}` is {described(made)}, and a tensor is wanted",
                self.fields[name].span,
                "not a tensor",
                help="a memory keeps something for each weight, such as `grad` or `grad ^ 2`",
            )
        return made

    def _map(self) -> Map:
        node = self.fields.get("map")
        if node is None:
            return Map("vector")
        found = self.scope.value(node)
        if isinstance(found, e.Expr):
            node = found
        name = found.text if isinstance(found, Word) else function_name(node)
        if name == "linear":
            name = "matrix"
        if name not in MAPS:
            near = nearest(name or "", list(MAPS))
            raise self._wrong(
                f"cannot be the map `{print_expr(node)}`",
                node.span,
                f"maybe `{near[0]}`" if near else f"use one of {', '.join(f'`{m}`' for m in MAPS)}",
            )
        if name == "mlp":
            return self._mlp(node)
        if isinstance(node, e.Call) and node.arguments:
            raise self.findings.stop(
                "NL0202", f"`{name}` takes no arguments", node.span, "one too many", help=f"write `{name}`"
            )
        return Map(name, span=node.span)  # type: ignore[arg-type]

    def _mlp(self, node: e.Expr) -> Map:
        given = primitive_arguments(node, "mlp", _MLP, self.scope)
        hidden, depth = given.get("hidden"), given.get("depth")
        for what, number in (("`hidden`", hidden), ("`depth`", depth)):
            if isinstance(number, Num):
                self.scope.counted(number, what, node.span)
        return Map(
            "mlp",
            hidden if isinstance(hidden, Num) else None,
            int(depth) if isinstance(depth, Num) else 2,
            bool(given.get("residual")),
            activation=str(given.get("activation", "gelu")),
            span=node.span,
        )

    def _implicit(self, mapping: Map, objective: str, key: Formula | None) -> bool:
        node = self.fields.get("rule")
        if node is None:
            return False
        found = self.scope.value(node)
        if isinstance(found, e.Expr):
            node = found
        word = found.text if isinstance(found, Word) else function_name(node)
        if word != "gd":
            raise self._wrong(
                f"cannot learn by `{print_expr(node)}`", node.span, "use `gd` or `gd(implicit)`"
            )
        if not isinstance(node, e.Call) or not node.arguments:
            return False
        self.scope.word(node.arguments[0].value, "the reading of `gd`", ("implicit",))
        if objective != "l2" or key is None or mapping.kind == "mlp":
            raise self._wrong(
                "has no implicit step",
                node.span,
                "use `gd(implicit)` with a `key`, `objective = l2`, and a vector or matrix",
            )
        return True

    # ------------------------------------------------------------------ clocks

    def _update(self) -> Formula | None:
        """The period in updates of the rule, None where it is every one."""
        node = self.fields.get("update")
        if node is None:
            return None
        bound = self.scope.values.get(node.text) if isinstance(node, e.Name) else None
        node = bound if isinstance(bound, e.Expr) else node
        clock = self.scope.clock(node)
        if clock.unit != "step" or clock.offset or not isinstance(node, e.Phrase) or len(node.words) != 2:
            raise self._wrong(
                f"cannot be written `{print_expr(node)}`",
                node.span,
                "a rule's clock counts its own updates, from its first: write `every 16 steps`",
                "the clock",
            )
        if clock.period == 1:
            return None
        number = node.words[1]
        if isinstance(number, e.Name) and isinstance(self.scope.values.get(number.text), Amount):
            return Option("number", number.text, span=number.span)
        if isinstance(number, e.Quantity):
            return self.formulas.number(number.amount, "the period")
        return Figure("number", clock.period, span=node.span)

    def _reduce(self, update: Formula | None) -> Literal["mean", "sum"]:
        return self._word("reduce", ("mean", "sum"))  # type: ignore[return-value]

    def _read(self, update: Formula | None) -> Literal["after", "before"]:
        """When a write is seen: with a period, from the next update on."""
        word = self._word("read", ("after", "before", "boundary"))
        if update is None:
            return "after" if word == "after" else "before"
        if "read" in self.fields and word == "after":
            raise self._wrong(
                "is read after its write, and it is written once in a period",
                self._span("read"),
                "leave `read` out: with a period, a write is seen from the next update on",
                "the field",
            )
        return "before"

    # ------------------------------------------------------------------ shapes

    def _start(
        self, mapping: Map, key: Formula | None, value: Formula
    ) -> Literal["zeros", "identity", "drawn"]:
        if mapping.kind != "mlp":
            if "start" in self.fields:
                self.scope.word(self.fields["start"], "the start of a vector or matrix", ("zeros",))
            return "zeros"
        alike = key is not None and key.axes[-1:] == value.axes[-1:]
        default = "identity" if mapping.residual and alike else "drawn"
        if "start" not in self.fields:
            return default
        word = self.scope.word(self.fields["start"], "the start of an mlp", ("identity", "drawn"))
        if word == "identity" and default != "identity":
            raise self._wrong(
                "cannot start as the identity",
                self._span("start"),
                "write `mlp(..., residual)` with keys and values of one width, or `start = drawn`",
                "the start",
            )
        return word  # type: ignore[return-value]

    def _axes(
        self, mapping: Map, key: Formula | None, value: Formula, update: Formula | None
    ) -> tuple[str, ...]:
        """The axes of what the memory holds."""
        if key is not None and update is not None:
            raise self._wrong(
                "has keys and a period",
                self._span("update"),
                "memories with keys are written at every update; leave `update` out",
                "the clock",
            )
        if mapping.kind == "vector":
            axes = value.axes if key is None else key.axes
            if "tokens" in axes or (value.kind == "tensor" and value.axes != axes):
                raise self._misfit(key, value, "number by number")
            return axes
        if key is None:
            raise self._wrong(
                f"is a `{mapping.kind}` without a key",
                self._span("map"),
                "write for instance `key = grad`, or use `map = vector`",
                "the map",
            )
        if key.axes[0] != value.axes[0] or "tokens" in (key.axes[1], value.axes[1]):
            raise self._misfit(key, value, "row by row")
        if mapping.residual and key.axes[1] != value.axes[1]:
            raise self._misfit(key, value, "and a residual path adds the one to the other")
        return (value.axes[1], key.axes[1])

    def _misfit(self, key: Formula | None, value: Formula, how: str) -> Exception:
        keys = "" if key is None else f"keys are {spelled(key.axes)}, "
        return self.findings.stop(
            "NL0542",
            f"the memory `{self.name}` stores values under keys {how}: {keys}values {spelled(value.axes)}",
            value.span,
            "the value",
            others=((key.span, "the key"),) if key is not None else (),
            help="both have a row for each thing that is stored; `transposed(a)` exchanges rows and columns",
        )
