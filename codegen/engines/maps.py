"""The functions whose weights a memory writes, for one memory: no batch, no heads, no tokens.

A map is a name or a dict with `kind` and its settings:

    "matrix"    M(z) = W z
    "vector"    M(z) = W * z, element by element; keys of ones make it an average of values
    "mlp"       M(z) = (z +) norm(Wn act(... act(W1 z)))
                hidden, depth = 2, residual = False, activation = "gelu", norm = False
    "swiglu"    M(z) = (z +) W3 (silu(W1 z) * (W2 z)); hidden, residual = False

`norm` is a layer norm without weights of its own, as in TTT-MLP and Miras: z + LN(net(z)).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def map_settings(spec: str | dict[str, Any]) -> dict[str, Any]:
    """The map as a dict with every setting filled in; an unknown kind is a `ValueError`."""
    given = {"kind": spec} if isinstance(spec, str) else dict(spec)
    defaults: dict[str, dict[str, Any]] = {
        "matrix": {},
        "vector": {},
        "mlp": {"hidden": None, "depth": 2, "residual": False, "activation": "gelu", "norm": False},
        "swiglu": {"hidden": None, "residual": False},
        "cache": {"window": None},
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
    """M(z) `[Dv]` for one input `[Dk]`, and the input of each linear layer by the name of its weight."""
    settings = map_settings(spec)
    kind = settings["kind"]
    if kind == "matrix":
        return weights["W"] @ z, {"W": z}
    if kind == "vector":
        return weights["W"] * z, {"W": z}
    if kind == "swiglu":
        inner = torch.nn.functional.silu(weights["W1"] @ z) * (weights["W2"] @ z)
        result, inputs = weights["W3"] @ inner, {"W1": z, "W2": z, "W3": inner}
        return (z + result if settings["residual"] else result), inputs
    signal, inputs = z, {}
    for n in range(1, settings["depth"] + 1):
        inputs[f"W{n}"] = signal
        signal = weights[f"W{n}"] @ signal
        if n < settings["depth"]:
            signal = activated(settings["activation"], signal)
    if settings["norm"]:
        signal = torch.nn.functional.layer_norm(signal, signal.shape[-1:])
    return (z + signal if settings["residual"] else signal), inputs


def activated(name: str, z: Tensor) -> Tensor:
    """The activation `name` of `z`: gelu (exact), silu, relu or tanh."""
    if name == "tanh":
        return torch.tanh(z)
    return {
        "gelu": torch.nn.functional.gelu,
        "silu": torch.nn.functional.silu,
        "relu": torch.nn.functional.relu,
    }[name](z)
