"""Whole models against the token loop, and self-modifying memories against their definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.codegen.building import (
    FEATURES,
    SPECS,
    built,
    feature,
    gallery,
    gradients,
    streamed,
    tokens,
    written,
)

FLUSH_DENORMAL = True

PIECES = (1, 5, 2, 11)


def _lowered(name: str) -> bool:
    return written(feature(name)).text != written(feature(name), "reference").text


def _agree(spec: Any, length: int, pieces: tuple[int, ...]) -> None:
    fast, slow = built(spec), built(spec, "reference")
    slow.load_state_dict(fast.state_dict())
    ids = tokens(fast, length)
    with torch.no_grad():
        expected, _ = slow(ids)
        torch.testing.assert_close(fast(ids)[0], expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(streamed(fast, ids, pieces)[0], expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(streamed(slow, ids, pieces)[0], expected, rtol=1e-9, atol=1e-9)
    wanted, found = gradients(slow, ids), gradients(fast, ids)
    assert found.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-7, atol=1e-8, msg=parameter)


@pytest.mark.parametrize("name", [name for name in FEATURES if _lowered(name)])
def test_a_feature_means_the_same_token_by_token(name: str) -> None:
    _agree(feature(name), sum(PIECES), PIECES)


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_means_the_same_token_by_token(name: str) -> None:
    _agree(gallery(name), 35, (1, 16, 7, 11))


# --------------------------------------------------------------------------- memories that write themselves


def _matrix(weights: tuple[Tensor, ...], z: Tensor) -> Tensor:
    return (weights[0] @ z.unsqueeze(-1)).squeeze(-1)


def _residual_mlp(weights: tuple[Tensor, ...], z: Tensor) -> Tensor:
    hidden = z
    for weight in weights[:-1]:
        hidden = F.gelu((weight @ hidden.unsqueeze(-1)).squeeze(-1))
    return z + (weights[-1] @ hidden.unsqueeze(-1)).squeeze(-1)


@dataclass
class Definition:
    """A self-modifying memory as its spec states it; `now` holds what the current token has computed."""

    memory: nn.Module
    names: tuple[str, ...]  # the parameters of the starts: the memory itself first
    fields: Callable[[Definition, Tensor], dict[str, Tensor]]
    map: Callable[[tuple[Tensor, ...], Tensor], Tensor] = _residual_mlp
    rule: str = "dgd"
    objective: str = "dot"
    target: str = "self"
    period: int = 4
    after: bool = False
    retained: bool = False
    gradient: str | int = "through"
    own: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the name of a projection's start
    out: Callable[[Definition, Tensor, Tensor], Tensor] = lambda d, read, x: read
    anchor: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    history: dict[str, list[Tensor]] = field(default_factory=dict)
    answers: dict[str, Tensor] = field(default_factory=dict)

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (2, -1))

    def of(self, name: str, what: str) -> Any:
        """A setting of one memory, or of all where it has none of its own."""
        return self.own.get(name, {}).get(what, getattr(self, what))

    def project(self, name: str, x: Tensor) -> Tensor:
        """P(x) for every head, `[B, H, d]`, by the weights that are read."""
        answer = self.of(name, "map")(self.anchor[name], x if x.dim() == 3 else self.heads(x))
        self.answers[name] = answer
        return answer  # type: ignore[no-any-return]

    def conv(self, name: str, x: Tensor) -> Tensor:
        """A causal depthwise convolution of `[B, width]`, from its formula."""
        seen = self.history.setdefault(name, [])
        seen.append(x)
        kernel = getattr(self.memory, name).weight[:, 0].flip(-1)  # the current token first
        return sum(kernel[:, age] * past for age, past in enumerate(reversed(seen[-kernel.shape[1] :])))  # type: ignore[return-value]

    def gate(self, name: str, x: Tensor, scale: float = 1.0) -> Tensor:
        linear, start = getattr(self.memory, f"{name}_linear"), getattr(self.memory, f"{name}_start")
        return torch.sigmoid(linear(x) + start) * scale

    def run(self, x: Tensor) -> Tensor:
        """`[B, T, d]` to the same, one token after another."""
        batch = x.shape[0]
        running = {n: tuple(w.expand(batch, *w.shape) for w in getattr(self.memory, n)) for n in self.names}
        moments = {n: tuple(torch.zeros_like(w) for w in running[n]) for n in self.names}
        outputs = []
        for t in range(x.shape[1]):
            self.anchor |= {n: w for n, w in running.items() if t % self.of(n, "period") == 0}
            now = self.fields(self, x[:, t])
            answered = self.map(self.anchor["start"], now["query"])
            after = {}
            for name in self.names:
                wanted = self.own.get(name, {}).get("target", self.target if name == "start" else "self")
                target = now["value"]
                if wanted != "value":
                    target = self.of(name, "map")(self.anchor[name], target)
                    target = F.normalize(target, dim=-1, eps=1e-6) if self.target == "unit" else target
                after[name], moments[name] = self.write(running[name], name, moments[name], now, target)
            running = after
            answered = self.map(running["start"], now["query"]) if self.after else answered
            outputs.append(self.out(self, answered.flatten(-2), x[:, t]))
            if isinstance(self.gradient, int) and (t + 1) % self.gradient == 0:
                running = {n: tuple(w.detach() for w in one) for n, one in running.items()}
                moments = {n: tuple(w.detach() for w in one) for n, one in moments.items()}
        return torch.stack(outputs, dim=1)

    def write(
        self,
        running: tuple[Tensor, ...],
        name: str,
        moments: tuple[Tensor, ...],
        now: dict[str, Tensor],
        target: Tensor,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """One write (Nested Learning, Eq. 86-91; every layer with its own input)."""

        forward, rule = self.of(name, "map"), self.of(name, "rule")

        def loss(weights: tuple[Tensor, ...], key: Tensor, wanted: Tensor) -> Tensor:
            found = forward(weights, key)
            return (
                -(found * wanted).sum() if self.objective == "dot" else 0.5 * (found - wanted).square().sum()
            )

        how = self.own.get(name, {}).get("key", "shared")
        key = {"shared": now["key"], "own": self.answers.get(name), "unit": None}[how]
        key = _unit(self.answers[name]) if key is None else key
        at = self.anchor[name]
        if self.retained:
            at = tuple(now["retain"][..., None, None] * w for w in running)
        at = tuple(w.detach() for w in at) if self.gradient == "first_order" else at
        slopes = torch.func.grad(loss)(at, key, target)
        inputs = [key]
        for weight in at[:-1]:
            inputs.append(F.gelu((weight @ inputs[-1].unsqueeze(-1)).squeeze(-1)))
        rate, retain = now["rate"][..., None, None], now["retain"][..., None, None]
        new, pushed = [], []
        for layer, (weight, slope, entered, moment) in enumerate(
            zip(running, slopes, inputs, moments, strict=False)
        ):
            outer = entered.unsqueeze(-1) * entered.unsqueeze(-2)
            push = now["momentum"][..., None, None] * moment if "momentum" in now else 0 * moment
            if rule == "gd" or (rule == "first_layer" and layer > 0):
                push = push - rate * slope
                new.append(retain * weight + push)
            else:
                own = rate / (1 + rate * entered.square().sum(-1)[..., None, None]) if layer > 0 else rate
                push = push - own * slope
                new.append(retain * weight - own * weight @ outer + push)
            pushed.append(push)
        if self.gradient == "stop":
            kept = [retain * weight for weight in running]
            new = [k + (w - k).detach() for k, w in zip(kept, new, strict=True)]
            pushed = [push.detach() for push in pushed]
        return tuple(new), tuple(pushed)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1, eps=1e-6)


def _constant(like: Tensor, value: float) -> Tensor:
    return torch.full_like(like[..., 0], value)


def _descent(d: Definition, x: Tensor) -> dict[str, Tensor]:
    m = d.memory
    return {
        "key": _unit(d.heads(d.conv("key_conv", d.project("key_memory", x).flatten(-2)))),
        "value": _unit(d.project("value_memory", x)),
        "query": _unit(d.heads(d.conv("query_conv", m.query_linear(x)))),  # type: ignore[operator]
        "rate": d.gate("rate", d.project("rate_memory", x).flatten(-2), 0.5),
        "retain": d.gate("retain", d.project("retain_memory", x).flatten(-2)),
    }


def _descent_with_momentum(d: Definition, x: Tensor) -> dict[str, Tensor]:
    now = _descent(d, x)
    return now | {"rate": 0.4 * now["rate"], "momentum": d.gate("momentum", x)}  # 0.2 in all


def _momentum(d: Definition, x: Tensor) -> dict[str, Tensor]:
    key = _unit(d.project("key_memory", x))
    return {
        "key": key,
        "value": _unit(d.heads(d.memory.value_linear(x))),  # type: ignore[operator]
        "query": _unit(d.project("query_memory", x)),
        "rate": _constant(key, 0.1),
        "retain": _constant(key, 0.95),
        "momentum": d.gate("momentum", x),
    }


def _matrices(d: Definition, x: Tensor) -> dict[str, Tensor]:
    key = _unit(d.project("key_memory", x))
    return {
        "key": key,
        "value": d.project("value_memory", x),
        "query": _unit(d.heads(d.memory.query_linear(x))),  # type: ignore[operator]
        "rate": _constant(key, 0.2),
        "retain": d.gate("retain", x),
    }


def _tokens(d: Definition, x: Tensor) -> dict[str, Tensor]:
    key = _unit(d.heads(d.memory.key_linear(x)))  # type: ignore[operator]
    return {
        "key": key,
        "value": d.project("value_memory", x),
        "query": _unit(d.heads(d.memory.query_linear(x))),  # type: ignore[operator]
        "rate": _constant(key, 0.2),
        "retain": _constant(key, 1.0),
    }


def _stages(d: Definition, x: Tensor) -> dict[str, Tensor]:
    key = _unit(d.project("key_memory", x))
    return {
        "key": key,
        "value": _unit(d.heads(d.memory.value_linear(x))),  # type: ignore[operator]
        "query": _unit(d.project("query_memory", x)),
        "rate": d.gate("rate", d.project("rate_memory", x).flatten(-2)),
        "retain": _constant(key, 0.95),
    }


def _clocks(d: Definition, x: Tensor) -> dict[str, Tensor]:
    key = _unit(d.project("key_memory", x))
    return {
        "key": key,
        "value": _unit(d.project("value_memory", x)),
        "query": _unit(d.heads(d.memory.query_linear(x))),  # type: ignore[operator]
        "rate": _constant(key, 0.1),
        "retain": d.gate("retain", d.project("retain_memory", x).flatten(-2)),
    }


def _moving(d: Definition, x: Tensor) -> dict[str, Tensor]:
    key = _unit(d.project("key_memory", x))
    return {
        "key": key,
        "value": _unit(d.heads(d.memory.value_linear(x))),  # type: ignore[operator]
        "query": _unit(d.heads(d.memory.query_linear(x))),  # type: ignore[operator]
        "rate": _constant(key, 0.2),
        "retain": d.gate("retain", x),
        "momentum": _constant(key, 0.5),
    }


def _one_for_all(d: Definition, x: Tensor) -> dict[str, Tensor]:
    query = _unit(d.project("query_memory", x))
    return {
        "key": query,
        "value": query,
        "query": query,
        "rate": _constant(query, 0.2),
        "retain": d.gate("retain", x),
        "momentum": _constant(query, 0.5),
    }


def _token_by_token(m: nn.Module, gradient: str | int = "through") -> Definition:
    return Definition(
        m,
        ("start", "query_memory" if gradient == "stop" else "key_memory"),
        _one_for_all if gradient == "stop" else _moving,
        map=_matrix,
        rule="gd",
        objective="l2",
        target="value",
        period=1,
        after=True,
        retained=True,
        gradient=gradient,
    )


def _plain(d: Definition, x: Tensor) -> dict[str, Tensor]:
    m = d.memory
    key = _unit(d.heads(m.key_linear(x)))  # type: ignore[operator]
    return {
        "key": key,
        "value": d.heads(m.value_linear(x)),  # type: ignore[operator]
        "query": _unit(d.heads(m.query_linear(x))),  # type: ignore[operator]
        "rate": _constant(key, 0.1),
        "retain": _constant(key, 0.95),
    }


def _local(d: Definition, x: Tensor) -> dict[str, Tensor]:
    m = d.memory
    seen = F.silu(d.conv("seen_conv", x))
    d.history["seen"] = [seen]
    key = _unit(d.project("key_memory", seen))
    return {
        "key": key,
        "value": _unit(d.heads(m.value_linear(seen))),  # type: ignore[operator]
        "query": _unit(d.heads(m.query_linear(seen))),  # type: ignore[operator]
        "rate": torch.sigmoid(m.rate_linear(key.flatten(-2)) + m.rate_start),  # type: ignore[operator]
        "retain": _constant(key, 1.0),
    }


def _norm_linear(d: Definition, read: Tensor, x: Tensor) -> Tensor:
    return d.memory.out_linear(d.memory.out_norm(d.heads(read)).flatten(-2))  # type: ignore[operator]


def _gated(d: Definition, read: Tensor, x: Tensor) -> Tensor:
    m, seen = d.memory, d.history["seen"][0]
    return m.out_linear_2(m.out_norm(d.heads(read)).flatten(-2) * F.silu(m.out_linear(seen)))  # type: ignore[operator]


_ALL = ("start", "key_memory", "value_memory", "rate_memory", "retain_memory")
DEFINITIONS: dict[str, Callable[[nn.Module], Definition]] = {
    "adaptive_descent": lambda m: Definition(m, _ALL, _descent, target="unit", out=_norm_linear),
    "adaptive_descent_momentum": lambda m: Definition(
        m, _ALL, _descent_with_momentum, target="unit", out=_norm_linear
    ),
    "adaptive_momentum": lambda m: Definition(
        m, ("start", "key_memory", "query_memory"), _momentum, rule="gd", objective="l2", target="value"
    ),
    "adaptive_matrix": lambda m: Definition(
        m, _ALL[:3], _matrices, map=_matrix, target="value", period=1, after=True
    ),
    "adaptive_tokens": lambda m: Definition(
        m,
        ("start", "value_memory"),
        _tokens,
        map=_matrix,
        rule="gd",
        objective="l2",
        target="value",
        period=1,
    ),
    "adaptive_stages": lambda m: Definition(
        m,
        ("start", "key_memory", "query_memory", "rate_memory"),
        _stages,
        rule="gd",
        objective="l2",
        target="value",
        own={
            "key_memory": {"key": "unit", "target": "value"},
            "query_memory": {"key": "own", "target": "value"},
            "rate_memory": {"key": "unit", "target": "value"},
        },
    ),
    "adaptive_clocks": lambda m: Definition(
        m,
        ("start", "key_memory", "value_memory", "retain_memory"),
        _clocks,
        target="unit",
        own={
            "key_memory": {"period": 8},
            "value_memory": {"period": 2, "rule": "gd", "map": _matrix},
            "retain_memory": {"target": "value"},
        },
    ),
    "adaptive_retained": _token_by_token,
    "adaptive_first_order": lambda m: _token_by_token(m, "first_order"),
    "adaptive_stop": lambda m: _token_by_token(m, "stop"),
    "adaptive_cut": lambda m: _token_by_token(m, 3),
    "self_target": lambda m: Definition(m, ("start",), _plain),
    "self_target_local": lambda m: Definition(
        m, ("start", "key_memory"), _local, rule="first_layer", target="unit", out=_gated
    ),
}


def test_every_self_modifying_feature_has_a_definition() -> None:
    looped = {name for name in FEATURES if "stacked_starts" in written(feature(name)).text}
    assert looped == set(DEFINITIONS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_self_modifying_memory_is_its_definition(name: str) -> None:
    model = built(feature(name))
    memory = next(m for n, m in model.named_modules() if n == "blocks.0.mixer")
    x = torch.randn(
        2, 11, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True
    )
    weights = torch.randn(2, 11, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    parameters = dict(memory.named_parameters())
    expected = DEFINITIONS[name](memory).run(x)
    found, _ = memory(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    learned = [x, *parameters.values()]
    wanted = torch.autograd.grad(
        (expected * weights).sum(), learned, allow_unused=True, materialize_grads=True
    )
    got = torch.autograd.grad((found * weights).sum(), learned, allow_unused=True, materialize_grads=True)
    for label, a, b in zip(["x", *parameters], got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=label)
