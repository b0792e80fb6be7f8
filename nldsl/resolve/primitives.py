"""The parts a pipeline is made of, as data: what they take, what shape they give, what they cost.

A primitive never is a word of the grammar.  Adding one means a row here and its torch
form in `nldsl.codegen.emit.primitives`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from nldsl.records import record

ArgumentKind = Literal["number", "word", "flag"]


@record
class Takes:
    """One argument of a primitive.  `default=None` with `required=False` means: chosen from the input."""

    name: str
    kind: ArgumentKind = "number"
    required: bool = False
    default: int | float | str | bool | None = None
    words: tuple[str, ...] = ()
    units: tuple[str, ...] = ()  # a count of these is as good as the bare number


@record
class Primitive:
    """One kind of stage.

    `layout`: `merged` works on all features of a token, `head` on each head's features, `any` on either.
    `range` is where its outputs lie, if known: gates are checked against it.
    `parameters(inputs, outputs, arguments)` counts learned numbers, `flops` those per token.
    `state(inputs, arguments)` counts numbers of running state per sequence.
    """

    name: str
    summary: str
    takes: tuple[Takes, ...] = ()
    layout: Literal["merged", "head", "any"] = "any"
    range: tuple[float, float] | None = None
    parameters: Callable[[int, int, dict[str, float]], int] = lambda i, o, a: 0
    flops: Callable[[int, int, dict[str, float]], int] = lambda i, o, a: i
    state: Callable[[int, dict[str, float]], int] = lambda i, a: 0
    mixes_tokens: bool = False


INF = float("inf")
ACTIVATIONS = ("gelu", "silu", "relu", "tanh")


def _mlp_weights(i: int, a: dict[str, float]) -> int:
    hidden, depth = int(a.get("hidden") or 4 * i), int(a.get("depth", 2))
    return i * i if depth == 1 else 2 * i * hidden + (depth - 2) * hidden * hidden


def _mlp_parameters(i: int, a: dict[str, float]) -> int:
    return _mlp_weights(i, a) + (i if a.get("norm") else 0)


def _swiglu(i: int, a: dict[str, float]) -> int:
    return 3 * i * int(a.get("hidden") or 4 * i)


_MLP_TAKES = (
    Takes("hidden"),
    Takes("depth", default=2),
    Takes("residual", "flag", default=False),
    Takes("norm", "flag", default=False),
    Takes("activation", "word", default="gelu", words=ACTIVATIONS),
)

PRIMITIVES: dict[str, Primitive] = {
    p.name: p
    for p in (
        Primitive(
            "linear",
            "a linear map to `width` features (the input's own width if left out)",
            (Takes("width"), Takes("bias", "flag", default=False)),
            "merged",
            parameters=lambda i, o, a: i * o + (o if a.get("bias") else 0),
            flops=lambda i, o, a: 2 * i * o,
        ),
        Primitive(
            "conv",
            "a causal depthwise convolution over the last `width` tokens",
            (Takes("width", required=True),),
            "merged",
            parameters=lambda i, o, a: i * int(a["width"]),
            flops=lambda i, o, a: 2 * i * int(a["width"]),
            state=lambda i, a: i * (int(a["width"]) - 1),
            mixes_tokens=True,
        ),
        Primitive(
            "unit",
            "each head's vector divided by its length",
            (),
            "head",
            (-1.0, 1.0),
            flops=lambda i, o, a: 3 * i,
        ),
        Primitive("silu", "x * sigmoid(x)", range=(-0.2785, INF)),
        Primitive("gelu", "x * Phi(x)", range=(-0.17, INF)),
        Primitive("relu", "max(x, 0)", range=(0.0, INF)),
        Primitive("elu", "x for x > 0, else exp(x) - 1", range=(-1.0, INF)),
        Primitive("tanh", "hyperbolic tangent", range=(-1.0, 1.0)),
        Primitive(
            "sigmoid",
            "1 / (1 + exp(-x)); with `start`, a learned bias puts it there at the beginning",
            (Takes("start"),),
            range=(0.0, 1.0),
            parameters=lambda i, o, a: o if a.get("start") is not None else 0,
        ),
        Primitive(
            "softplus",
            "log(1 + exp(x)); with `start`, a learned bias puts it there at the beginning",
            (Takes("start"),),
            range=(0.0, INF),
            parameters=lambda i, o, a: o if a.get("start") is not None else 0,
        ),
        Primitive("exp", "the exponential", range=(0.0, INF)),
        Primitive("scale", "the input times a number", (Takes("by", required=True),)),
        Primitive(
            "learned",
            "the input times a learned number for each feature",
            (Takes("start", default=1),),
            parameters=lambda i, o, a: o,
        ),
        Primitive(
            "grouped",
            "the features of `groups` heads, each of which serves as many heads of the memory",
            (Takes("groups", required=True),),
            "merged",
            flops=lambda i, o, a: 0,
        ),
        Primitive(
            "rmsnorm",
            "divided by the root mean square, times a learned gain; `eps`, or 1e-6, under the root",
            (Takes("eps"),),
            "any",
            parameters=lambda i, o, a: i,
            flops=lambda i, o, a: 4 * i,
        ),
        Primitive(
            "layernorm",
            "centred, divided by the deviation, with learned gain and bias; `eps` as for `rmsnorm`",
            (Takes("eps"),),
            "any",
            parameters=lambda i, o, a: 2 * i,
            flops=lambda i, o, a: 6 * i,
        ),
        Primitive(
            "rope",
            "rotary position embedding of each head",
            (Takes("theta", default=10_000),),
            "head",
            flops=lambda i, o, a: 3 * i,
        ),
        Primitive(
            "polynomial",
            "products of up to `degree` features of a head, those of n times a learned number, first 1 / n!",
            (Takes("degree", required=True),),
            "head",
            parameters=lambda i, o, a: int(a["degree"]) + 1,
            flops=lambda i, o, a: 2 * o,
        ),
        Primitive(
            "mlp",
            "linear, activation, linear",
            _MLP_TAKES,
            "merged",
            parameters=lambda i, o, a: _mlp_parameters(i, a),
            flops=lambda i, o, a: 2 * _mlp_weights(i, a),
        ),
        Primitive(
            "swiglu",
            "a gated feed-forward: W3 (silu(W1 x) * W2 x)",
            (Takes("hidden"),),
            "merged",
            parameters=lambda i, o, a: _swiglu(i, a),
            flops=lambda i, o, a: 2 * _swiglu(i, a),
        ),
        Primitive(
            "dropout", "zeroes a fraction `by` of the features while training", (Takes("by", required=True),)
        ),
        Primitive(
            "embed",
            "one learned vector for each token id",
            (Takes("vocab", required=True), Takes("width", required=True)),
            "merged",
            parameters=lambda i, o, a: int(a["vocab"]) * o,
            flops=lambda i, o, a: 0,
        ),
        Primitive(
            "unembed",
            "logits over the vocabulary; `tied` reads the embedding's weights",
            (Takes("vocab"), Takes("tied", "flag", default=False)),
            "merged",
            parameters=lambda i, o, a: 0 if a.get("tied") else i * o,
            flops=lambda i, o, a: 2 * i * o,
        ),
    )
}
