"""The document: the one typed value that `.nl` text and YAML both become.

Nothing is resolved here.  Values are expression trees (`nldsl.document.expr`) with spans;
`nldsl.resolve` binds parameters, applies variants and evaluates them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from nldsl.diagnostics.model import Span
from nldsl.document.expr import Expr, Statement
from nldsl.document.printer import print_expr, print_statement

_EXPR_SCHEMA = {
    "type": ["string", "number", "boolean", "array"],
    "description": "an expression, spelled as in .nl text",
}
ExprField = Annotated[Expr, PlainSerializer(print_expr, return_type=str), WithJsonSchema(_EXPR_SCHEMA)]
StatementField = Annotated[
    Statement, PlainSerializer(print_statement, return_type=str), WithJsonSchema(_EXPR_SCHEMA)
]


class Node(BaseModel):
    """Base of document nodes: strict, and equal when they say the same, wherever they stand."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    span: Annotated[Any, WithJsonSchema({})] = Field(default=None, exclude=True, repr=False)
    name_span: Annotated[Any, WithJsonSchema({})] = Field(default=None, exclude=True, repr=False)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.model_dump() == other.model_dump()  # type: ignore[union-attr]

    def where(self) -> Span | None:
        """The span of the name if known, else of the whole node."""
        return self.name_span or self.span


class Parameter(Node):
    """A parameter of a declaration; without `default` the caller must give it."""

    name: str
    default: ExprField | None = None


class Import(Node):
    """`import "file.nl" as name`, `import [A, B] from "file.nl"` or `import [A, B] from std`."""

    kind: Literal["import"] = "import"
    source: str
    names: tuple[str, ...] = ()
    alias: str | None = None


class Let(Node):
    """`let name = value` at the top of a file: a named constant."""

    kind: Literal["let"] = "let"
    name: str
    value: ExprField


class Level(Node):
    """`level name { ... }` inside a chain or a `train` block."""

    name: str
    fields: dict[str, ExprField] = {}
    field_spans: dict[str, Any] = Field(default={}, exclude=True, repr=False)


class Chain(Node):
    """`chain sequential { level ... }`: several weights, each with its clock, in depth order."""

    variant: str
    arguments: dict[str, ExprField] = {}
    levels: list[Level] = []


class Memory(Node):
    """`memory Name(parameters) { field = value ... }`.  Unknown fields are local pipelines."""

    kind: Literal["memory"] = "memory"
    name: str
    parameters: list[Parameter] = []
    fields: dict[str, ExprField] = {}
    field_spans: dict[str, Any] = Field(default={}, exclude=True, repr=False)  # of the field names
    chain: Chain | None = None


class Optimizer(Node):
    """`optimizer name(parameters) { memory ... ; weight = ... ; otherwise ... }`."""

    kind: Literal["optimizer"] = "optimizer"
    name: str
    parameters: list[Parameter] = []
    memories: list[Memory] = []
    fields: dict[str, ExprField] = {}
    field_spans: dict[str, Any] = Field(default={}, exclude=True, repr=False)
    otherwise: ExprField | None = None


class Block(Node):
    """`block Name(parameters) { statements }`: how data flows through labelled lines."""

    kind: Literal["block"] = "block"
    name: str
    parameters: list[Parameter] = []
    body: list[StatementField] = []


class Model(Node):
    """`model Name(parameters) { tokens |> ... }`: from tokens to logits."""

    kind: Literal["model"] = "model"
    name: str
    parameters: list[Parameter] = []
    body: list[StatementField] = []


class Evaluation(Node):
    """`eval every N steps { measure, measure(...) }`."""

    clock: ExprField
    measures: list[ExprField] = []


class Train(Node):
    """`train Name { model, data, objective, steps, levels, eval }`."""

    kind: Literal["train"] = "train"
    name: str
    fields: dict[str, ExprField] = {}
    field_spans: dict[str, Any] = Field(default={}, exclude=True, repr=False)
    levels: list[Level] = []
    evaluations: list[Evaluation] = []


class Amendment(Node):
    """One change of a variant: `set path = value`, `add path = value`, `remove path`, `replace path by
    value`.
    """

    action: Literal["set", "add", "remove", "replace"]
    path: str
    value: ExprField | None = None
    path_span: Any = Field(default=None, exclude=True, repr=False)


class Variant(Node):
    """`variant Name of Base { amendments }`."""

    kind: Literal["variant"] = "variant"
    name: str
    base: str
    base_span: Any = Field(default=None, exclude=True, repr=False)
    amendments: list[Amendment] = []


AXES = ("without", "replace", "vary", "grid", "zip", "variants")
"""First words of the lines of an `ablate` block that make variants."""


class Axis(Node):
    """One line of an `ablate` block that makes variants: paths, and the values that each takes.

    `without` has no values; `together` says how many of its paths, in order, each variant removes, and is
    empty where every path is removed alone.  The paths of `variants` are names of declared variants.
    """

    action: Literal["without", "replace", "vary", "grid", "zip", "variants"]
    paths: list[str]
    path_spans: list[Any] = Field(default=[], exclude=True, repr=False)
    together: list[int] = []
    values: list[list[ExprField]] = []


class Ablate(Node):
    """`ablate Name of Base { axes, keep, seeds, measure, baseline }`."""

    kind: Literal["ablate"] = "ablate"
    name: str
    base: str
    base_span: Any = Field(default=None, exclude=True, repr=False)
    axes: list[Axis] = []
    keep: ExprField | None = None
    fields: dict[str, ExprField] = {}
    field_spans: dict[str, Any] = Field(default={}, exclude=True, repr=False)


Declaration = Annotated[
    Let | Memory | Optimizer | Block | Model | Train | Variant | Ablate, Field(discriminator="kind")
]


class Document(Node):
    """A whole spec file."""

    edition: int | None = None
    imports: list[Import] = []
    declarations: list[Declaration] = []

    def find(self, name: str) -> Any | None:
        """The declaration called `name`, or None."""
        for declaration in self.declarations:
            if declaration.name == name:
                return declaration
        return None
