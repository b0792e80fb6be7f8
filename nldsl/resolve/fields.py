"""The fields of a memory declaration, and how their values are read."""

from __future__ import annotations

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.records import record
from nldsl.resolve.calls import Bound, function_name
from nldsl.resolve.choices import chosen_fields
from nldsl.resolve.context import Instantiate
from nldsl.resolve.expanded import Num
from nldsl.resolve.findings import Findings
from nldsl.resolve.flows import Flows
from nldsl.resolve.objectives import is_expression, recognised
from nldsl.resolve.scope import Word

FLOWS = (
    "key",
    "value",
    "query",
    "rate",
    "retain",
    "momentum",
    "erase",
    "erase_into",
    "window_weight",
    "objective_threshold",
    "out",
)
GATES = ("rate", "retain", "momentum")
PAIRED = {"erase_into": "erase", "window_weight": "window", "objective_threshold": "objective"}
"""Pipelines that stand in the field of another value, and the name of that field."""
FIELDS = (
    *(name for name in FLOWS if name not in PAIRED),
    "map",
    "objective",
    "target",
    "rule",
    "constrain",
    "normalise",
    "update",
    "anchor",
    "window",
    "read",
    "start",
    "reset",
    "scope",
    "gradient",
    "plastic",
    "heads",
    "writes",
)
LEVEL_FIELDS = ("map", "update", "reduce", "start", "reset", "plastic")
"""Fields of a level of a chain."""
SEQUENCE_FIELDS = ("rule", "rate", "retain", "momentum", "gradient")
"""Fields of a level whose weights belong to each sequence, beside those."""
OBJECTIVES = ("dot", "l2", "lp", "huber", "oja", "task")
RULES = ("gd", "dgd", "muon", "momentum", "ridge", "softmax")
READINGS = {"gd": ("implicit",), "dgd": ("explicit", "first_layer"), "muon": (), "softmax": ()}


@record
class Called:
    """A memory declaration with its parameters bound, for an input of `width` features, and what makes its
    pipelines and the instances in them.
    """

    flows: Flows
    instantiate: Instantiate
    call: e.Expr
    declaration: doc.Memory
    bound: Bound
    width: Num
    path: str


class Fields:
    """One memory declaration on its way to an instance."""

    def __init__(self, called: Called) -> None:
        self.flows, self.instantiate = called.flows, called.instantiate
        self.call, self.declaration = called.call, called.declaration
        self.path, self.width = called.path, called.width
        self.scope, self.arguments = called.bound.scope, called.bound.arguments
        self.findings: Findings = self.scope.findings
        self.fields = chosen_fields(self.declaration.fields, self.scope)
        self.objective, self.objective_parameter = self._objective()

    def _field(self, name: str) -> e.Expr | None:
        value = self.fields.get(name)
        if isinstance(value, e.Name) and isinstance(self.scope.values.get(value.text), e.Expr):
            return self.scope.values[value.text]  # type: ignore[return-value]
        return value

    def _span(self, name: str) -> Span | None:
        value = self.fields.get(name)
        return value.span if value is not None else self.call.span

    def _word(self, name: str, what: str, choices: tuple[str, ...], default: str) -> str:
        value = self._field(name)
        return default if value is None else self.scope.word(value, what, choices)

    def _flag(self, name: str, default: bool) -> bool:
        return self._word(
            name, f"`{name}`", ("true", "false", "yes", "no"), "true" if default else "false"
        ) in ("true", "yes")

    def _called(self, name: str, choices: tuple[str, ...], default: str) -> tuple[str, e.Call | None]:
        """`gd`, or `momentum(0.9)`: the word and its call, through parameters."""
        value = self._field(name)
        if value is None:
            return default, None
        found = self.scope.value(value)
        if isinstance(found, e.Expr):
            value = found
        word = found.text if isinstance(found, Word) else function_name(value)
        if word not in choices:
            near = nearest(word or "", list(choices))
            hint = f"maybe `{near[0]}`" if near else f"use one of {', '.join(f'`{c}`' for c in choices)}"
            raise self.findings.stop(
                "NL0203", f"`{name}` cannot be `{print_expr(value)}`", value.span, "not a choice", help=hint
            )
        return word, value if isinstance(value, e.Call) else None

    def _objective(self) -> tuple[str, float | None]:
        written = self._written_objective()
        if written is not None:
            return recognised(written, self.scope, self._local()) or "expression", None
        word, call = self._called("objective", OBJECTIVES, "l2")
        takes = {"lp": "p", "huber": "delta"}
        if word not in takes:
            return word, None
        if call is None or len(call.arguments) != 1:
            raise self.findings.stop(
                "NL0201",
                f"the objective `{word}` needs `{takes[word]}`",
                self._span("objective"),
                help=f"write `{word}(3)`",
            )
        if word == "huber" and self._threshold() is not None:
            return word, None
        number = float(self.scope.number(call.arguments[0].value))
        self._objective_number(word, number, call.arguments[0].value.span)
        return word, number

    def _objective_number(self, word: str, number: float, span: Span | None) -> None:
        """Refuse a power without a gradient at 0, and a threshold that leaves no square."""
        if word == "lp" and number < 1:
            raise self.findings.stop(
                "NL0205",
                f"the power of `lp` is {number:g}",
                span,
                "below 1",
                help="give 1 or more: below it the gradient has no bound where the error is 0",
            )
        if word == "huber" and number <= 0:
            raise self.findings.stop(
                "NL0205",
                f"the threshold of `huber` is {number:g}",
                span,
                "not above 0",
                help="give a number above 0: errors up to it are squared",
            )

    def _objective_text(self) -> str:
        """The objective as it is written, without the number of a word."""
        written = self._written_objective()
        return self.objective if written is None else print_expr(written)

    def _written_objective(self) -> e.Expr | None:
        """An objective that is an expression, through parameters."""
        value = self._field("objective")
        return value if value is not None and is_expression(value, OBJECTIVES) else None

    def _local(self) -> frozenset[str]:
        """The names that stand for pipelines here, whatever parameters are called."""
        return frozenset({"x", "head", *(n for n in self.fields if n not in FIELDS or n in FLOWS)})

    def _threshold(self) -> e.Expr | None:
        """P of `objective = huber(P)`, where it is a pipeline and not a number."""
        value = self._field("objective")
        if not isinstance(value, e.Call) or value.function.text != "huber" or len(value.arguments) != 1:
            return None
        given = value.arguments[0].value
        flows = self._local()
        reads = any(
            isinstance(n, e.Pipe) or (isinstance(n, e.Name) and n.text in flows) for n in given.walk()
        )
        return given if reads else None

    def _unknown_field(self, name: str) -> None:
        span = self.declaration.field_spans.get(name) or self.fields[name].span
        near = nearest(name, list(FIELDS))
        if near:
            self.findings.add(
                "NL0214",
                f"a memory has no field `{name}`",
                span,
                "read by nothing",
                help=f"maybe `{near[0]}`",
            )
            return
        self.findings.add(
            "NL0215",
            f"nothing reads `{name}`",
            span,
            "a local pipeline",
            severity="warning",
            help="remove it, or use it in a field such as `key`",
        )
