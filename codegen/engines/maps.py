"""The functions whose weights a memory writes, for one memory: no batch, no heads.

They take one input `[Dk]`, or any number of them, `[..., Dk]`, which all see the same weights.

A map is a name or a dict with `kind` and its settings:

    "matrix"    M(z) = W z
    "vector"    M(z) = W * z, element by element; keys of ones make it an average of values
    "mlp"       M(z) = (z +) norm(Wn act(... act(W1 z)))
                hidden, depth = 2, residual = False, activation = "gelu", norm = False
    "swiglu"    M(z) = (z +) W3 (silu(W1 z) * (W2 z)); hidden, residual = False
    "block"     M(z) = function(weights, z), a function of the user's with the `shapes` of its weights

`norm` is a layer norm without weights of its own, as in TTT-MLP and Miras: z + LN(net(z)).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nldsl.codegen.engines.parts import full_precision


def map_settings(spec: str | dict[str, Any]) -> dict[str, Any]:
    """The map as a dict with every setting filled in; an unknown kind is a `ValueError`."""
    given = {"kind": spec} if isinstance(spec, str) else dict(spec)
    defaults: dict[str, dict[str, Any]] = {
        "matrix": {},
        "vector": {},
        "mlp": {"hidden": None, "depth": 2, "residual": False, "activation": "gelu", "norm": False},
        "swiglu": {"hidden": None, "residual": False},
        "block": {"function": None, "shapes": {}},
        "cache": {"window": None, "sinks": 0},
    }
    if given["kind"] not in defaults:
        raise ValueError(f"unknown map {given['kind']!r}")
    return {**defaults[given["kind"]], **given}


def weight_shapes(spec: str | dict[str, Any], dim_k: int, dim_v: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of each weight of one memory, in the order in which they are applied."""
    settings = map_settings(spec)
    kind, hidden = settings["kind"], settings.get("hidden") or dim_k
    if kind == "matrix":
        return {"W": (dim_v, dim_k)}
    if kind == "vector":
        return {"W": (dim_v,)}
    if kind == "block":
        return {n: tuple(shape) for n, shape in settings["shapes"].items()}
    if kind == "swiglu":
        return {"W1": (hidden, dim_k), "W2": (hidden, dim_k), "W3": (dim_v, hidden)}
    widths = [dim_k, *[hidden] * (settings["depth"] - 1), dim_v]
    return {f"W{n}": (widths[n], widths[n - 1]) for n in range(1, len(widths))}


def first_layers(spec: str | dict[str, Any]) -> tuple[str, ...]:
    """The weights that act on the map's own input."""
    kind = map_settings(spec)["kind"]
    return {"mlp": ("W1",), "swiglu": ("W1", "W2")}.get(kind, ("W",))


def traced(
    spec: str | dict[str, Any], weights: dict[str, Tensor], z: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """M(z) `[..., Dv]` for `[..., Dk]`, and the input of each linear layer by the name of its weight."""
    settings = map_settings(spec)
    kind = settings["kind"]
    if kind == "matrix":
        return fast_linear(z, weights["W"]), {"W": z}
    if kind == "vector":
        return weights["W"] * z, {"W": z}
    if kind == "block":
        return settings["function"](weights, z), {}
    if kind == "swiglu":
        inner = F.silu(fast_linear(z, weights["W1"])) * fast_linear(z, weights["W2"])
        result, inputs = fast_linear(inner, weights["W3"]), {"W1": z, "W2": z, "W3": inner}
        return (z + result if settings["residual"] else result), inputs
    signal, inputs = z, {}
    for n in range(1, settings["depth"] + 1):
        inputs[f"W{n}"] = signal
        signal = fast_linear(signal, weights[f"W{n}"])
        if n < settings["depth"]:
            signal = activated(settings["activation"], signal)
    if settings["norm"]:
        signal = layer_normed(signal)
    return (z + signal if settings["residual"] else signal), inputs


def fast_linear(z: Tensor, weight: Any) -> Tensor:
    """W z `[..., out]` for `[..., in]`; in place of a tensor an engine may hand in a layer of its own."""
    return z @ weight.transpose(-1, -2) if isinstance(weight, Tensor) else weight(z)


def rms_normed(z: Tensor, eps: float) -> Tensor:
    """The last axis divided by its root mean square; in float32 where z is in half precision."""
    wide = full_precision(z)  # the slope holds 1 / rms^3, which float16 does not reach
    return (wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()).to(z.dtype)


def layer_normed(z: Tensor, eps: float = 1e-5) -> Tensor:
    """The last axis centred and divided by its deviation; in float32 where z is in half precision.

    Written out, since the third derivatives of torch's own are wrong: those that a loss needs which looks at
    gradients through inner gradients.
    """
    wide = full_precision(z)
    centred = wide - wide.mean(-1, keepdim=True)
    return (centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt()).to(z.dtype)


def activated(name: str, z: Tensor) -> Tensor:
    """The activation `name` of `z`: gelu (exact), silu, relu or tanh."""
    if name == "tanh":
        return torch.tanh(z)
    return {
        "gelu": F.gelu,
        "silu": F.silu,
        "relu": F.relu,
    }[name](z)
