"""The algebra of a memory: its map, its objective, and what engines are chosen by."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal

from nldsl.diagnostics.model import Span
from nldsl.document.expr import Expr
from nldsl.records import record
from nldsl.resolve.shapes import Num

if TYPE_CHECKING:
    from nldsl.resolve.algorithm import Algorithm
    from nldsl.resolve.expanded import BlockInstance


@record
class FastWeight:
    """One tensor of a block that is the map of a memory: its shape in one head, and where it begins (`None`:
    drawn).
    """

    name: str
    shape: tuple[Num, ...]
    begins: float | None


@record
class Map:
    """The function whose weights change; `hidden` and `depth` of an `mlp`, `window`, `sinks` of a `cache`."""

    kind: Literal["matrix", "vector", "mlp", "swiglu", "block", "cache"]
    hidden: Num | None = None
    depth: int = 2
    residual: bool = False
    norm: bool = False
    activation: str = "gelu"
    window: int | None = None
    sinks: int = 0
    span: Span | None = field(default=None, compare=False, repr=False)
    call: str = ""  # of a block: how it was named
    block: BlockInstance | None = field(default=None, compare=False, repr=False)
    fast: tuple[FastWeight, ...] = ()

    def weights(self, key_width: int, value_width: int) -> tuple[tuple[int, int], ...]:
        """Shapes (rows, columns) of the weights, first applied first; a vector is one row."""
        match self.kind:
            case "block":
                return tuple(
                    (int(s[0]), int(s[1])) if len(s) == 2 else (1, int(s[0]))
                    for s in (one.shape for one in self.fast)
                )
            case "matrix":
                return ((value_width, key_width),)
            case "vector":
                return ((1, key_width),)
            case "mlp":
                hidden = int(self.hidden or 4 * key_width)
                inner = ((hidden, hidden),) * (self.depth - 2)
                return (
                    ((hidden, key_width), *inner, (value_width, hidden))
                    if self.depth > 1
                    else ((value_width, key_width),)
                )
            case "swiglu":
                hidden = int(self.hidden or 4 * key_width)
                return ((hidden, key_width), (hidden, key_width), (value_width, hidden))
            case "cache":
                return ()


@record
class Parameter:
    """What an objective reads besides answers, keys and values: the pipeline `flow`, `name` where it is used.

    One number for each token and head, or as many as a value or a key has in a head.
    """

    flow: str
    kind: Literal["head", "value", "key"]
    name: str

    @property
    def field(self) -> bool:
        """Whether it is a field of the memory, such as its rate, and so there without the objective."""
        return self.flow == self.name


@record
class Expression:
    """An objective that is written out: computed number by number over an answer's channels, and summed.

    `body` is in numbers, operators, functions, `M(name)`, and names: `key`, `value`, or the flow of a
    parameter.  `answers` are the names that the memory is asked for, each once.
    """

    body: Expr
    parameters: tuple[Parameter, ...]
    answers: tuple[str, ...]
    written: str = field(default="", compare=False)


@record
class Core:
    """The algebra of one memory, free of projections: what engines are chosen by.

    The words are those of the language reference ("Meaning"): `anchor` is `retained`, `current`
    or a period in tokens; `update` is the period in tokens after which reads see what was written.
    """

    map: Map
    objective: str = "l2"
    objective_parameter: float | None = None
    expression: Expression | None = None  # with `objective` the word `expression`
    target: Literal["value", "self"] = "value"
    target_unit: bool = False  # `self |> unit`: targets keep length 1
    rule: str = "gd"
    rule_parameter: float | None = None  # the strength of `ridge`
    optimizer: Algorithm | None = None  # with `rule` the word `optimizer`
    written_rule: str = field(default="", compare=False)  # the optimizer whose algebra `rule` is
    rate: Literal["none", "head", "channel"] = "none"
    retain: Literal["none", "head", "channel"] = "none"
    momentum: Literal["none", "head", "channel"] = "none"
    erase: bool = False
    erase_into: bool = False  # what is erased goes into a direction of its own, not the key
    update: int = 1
    anchor: str | int = "retained"
    read: Literal["after", "before", "boundary"] = "after"
    partial: str = "drop"
    window: int | None = None
    weighted: bool = False  # pairs count differently in the windows they are in
    thresholds: bool = False  # of `huber`, one for each token
    normalise: bool = False
    constrain: tuple[tuple[str, float | None, int], ...] = ()
    gradient: str = "through"
    gradient_tokens: int | None = None
    start: str = "zeros"
    writes: int = 1  # pairs that each token writes, one after the other
    groups: int | None = None  # heads of a cache's keys and values, where the queries have more
    still: bool = field(default=False, compare=False)  # never written: the steps have length 0

    @property
    def lowers(self) -> str:
        """The objective without its number: a word, or the expression as it is written."""
        return self.objective if self.expression is None else self.expression.written

    @property
    def parametric(self) -> bool:
        """Whether the objective reads something of its own at every token."""
        return self.thresholds or bool(self.expression and self.expression.parameters)

    @property
    def period(self) -> int:
        """Tokens between the points where gradients or reads are anchored; 1 when every token is one."""
        return max(self.update, self.anchor if isinstance(self.anchor, int) else 1)

    @property
    def boundary(self) -> int:
        """Tokens between the points whose weights `read = boundary` sees: the update's, else the anchor's."""
        return self.update if self.update > 1 else self.period
