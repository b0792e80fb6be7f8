"""Gates by channel and erasure apart from the key, against the token loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.codegen.engines import carried, channel_decay
from nldsl.codegen.engines.channel_decay import ChannelScores, channel_halves, channel_scores
from nldsl.codegen.engines.channels import channel_delta, channel_frozen, channel_hebbian
from nldsl.codegen.engines.reference import token_loop
from tests.engines.compare import assert_same, inputs, piecewise, rand

FEW = settings(max_examples=30, deadline=None)

shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "heads": st.integers(1, 2),
        "tokens": st.integers(0, 13),
        "dim_k": st.integers(1, 4),
        "dim_v": st.integers(1, 3),
        "seed": st.integers(0, 10_000),
    }
)
reads = st.sampled_from(["after", "before"])
anchors = st.sampled_from(["retained", "current"])
erasures = st.sampled_from(["key", "along", "along and into"])
gated = st.sets(st.sampled_from(["rate", "retain"])).map(sorted)
cuttings = st.lists(st.integers(0, 13), max_size=3)


def _gate(shape: tuple[int, ...], seed: int, high: float) -> torch.Tensor:
    """In [0, high], with exact zeros and exact tops."""
    gate = rand(*shape, seed=seed, low=0.0, high=high).detach()
    chance = torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1))
    gate = torch.where(chance < 0.15, torch.zeros_like(gate), gate)
    return torch.where(chance > 0.85, torch.full_like(gate, high), gate).requires_grad_()


def _case(shape: dict[str, Any], channels: list[str], erasure: str = "key") -> dict[str, Any]:
    """Inputs, `channels` among the gates by channel, and what is erased apart from the key."""
    tensors = inputs(**shape)
    wide = tuple(tensors["key"].shape)
    for n, name in enumerate(channels):
        tensors[name] = _gate(wide, shape["seed"] + 50 + n, 1.0)
    if erasure != "key":
        made = torch.nn.functional.normalize(rand(*wide, seed=shape["seed"] + 60), dim=-1)
        tensors["along"] = made.detach().requires_grad_()
    if erasure == "along and into":
        tensors["into"] = rand(*wide, seed=shape["seed"] + 61)
    return tensors


def _frozen(**given: Any) -> Any:
    return channel_frozen(**given, period=8)


def _start(shape: dict[str, Any]) -> torch.Tensor:
    return rand(shape["heads"], shape["dim_v"], shape["dim_k"], seed=shape["seed"] + 9)


def _erasing(core: Any) -> Any:
    """`core` with `along` and `into` as inputs of their own."""

    def called(along: Any = None, into: Any = None, **given: Any) -> Any:
        return core(**given, erase=along if into is None else (along, into))

    return called


@FEW
@given(shapes, gated, reads, st.integers(1, 9), st.booleans(), cuttings)
def test_hebbian_by_channel_is_the_token_loop(
    shape: dict[str, Any], channels: list[str], read: str, tile: int, normalise: bool, cuts: list[int]
) -> None:
    tensors, start = _case(shape, channels), _start(shape)
    if normalise:  # keeps the divisor away from zero
        for name in ("query", "key"):
            tensors[name] = tensors[name].detach().abs().add(0.2).requires_grad_()
        for name in ("retain", "rate"):
            tensors[name] = tensors[name].detach().clamp(min=0.3).requires_grad_()
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    options: dict[str, Any] = {"start": start, "read": read, "normalise": normalise}
    fast = piecewise(channel_hebbian, tensors, cuts, tile=tile, **options)
    assert_same(fast, token_loop(**tensors, objective="dot", **options), tensors | {"start": start})


@FEW
@given(shapes, gated, st.integers(2, 6), st.integers(1, 9), st.booleans(), cuttings)
def test_hebbian_by_channel_with_a_period(
    shape: dict[str, Any], channels: list[str], period: int, tile: int, normalise: bool, cuts: list[int]
) -> None:
    tensors, start = _case(shape, channels), _start(shape)
    if normalise:
        for name in ("query", "key"):
            tensors[name] = tensors[name].detach().abs().add(0.2).requires_grad_()
        for name in ("retain", "rate"):
            tensors[name] = tensors[name].detach().clamp(min=0.3).requires_grad_()
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    options: dict[str, Any] = {"start": start, "normalise": normalise}
    fast = piecewise(channel_hebbian, tensors, cuts, period=period, read="boundary", tile=tile, **options)
    slow = token_loop(**tensors, objective="dot", update=period, anchor=period, **options)
    assert_same(fast, slow, tensors | {"start": start})


@settings(FEW, max_examples=60)
@given(shapes, gated, reads, anchors, erasures, st.integers(1, 9), cuttings)
def test_erasure_is_the_token_loop(
    shape: dict[str, Any],
    channels: list[str],
    read: str,
    anchor: str,
    erasure: str,
    tile: int,
    cuts: list[int],
) -> None:
    tensors, start = _case(shape, channels, erasure), _start(shape)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    options: dict[str, Any] = {"start": start, "read": read, "anchor": anchor}
    fast = piecewise(_erasing(channel_delta), tensors, cuts, tile=tile, **options)
    slow = _erasing(token_loop)(**tensors, **options)
    assert_same(fast, slow, tensors | {"start": start})


@FEW
@given(shapes, gated, st.integers(1, 9))
def test_rwkv_and_kda_are_settings(shape: dict[str, Any], channels: list[str], tile: int) -> None:
    """The transitions as their authors write them, token by token, against one engine."""
    tensors = _case(shape, ["retain"], "along")
    query, key, value, decay = (tensors[n] for n in ("query", "key", "value", "retain"))
    kappa, learning = tensors["along"], _gate(tuple(key.shape), shape["seed"] + 70, 1.0)
    batch, heads, tokens, width = key.shape
    weights = expected = torch.zeros(batch, heads, shape["dim_v"], width, dtype=key.dtype)
    first, second = [], []
    for t in range(tokens):
        # RWKV-7: M (Diag(w) - kappa (a * kappa)^T) + v k^T
        turn = torch.diag_embed(decay[:, :, t]) - torch.einsum(
            "bhi,bhj->bhij", kappa[:, :, t], learning[:, :, t] * kappa[:, :, t]
        )
        weights = weights @ turn + torch.einsum("bhi,bhj->bhij", value[:, :, t], key[:, :, t])
        first.append(torch.einsum("bhij,bhj->bhi", weights, query[:, :, t]))
        # KDA: M Diag(w) (I - beta k k^T) + beta v k^T
        beta, k = tensors["rate"][:, :, t, None, None], key[:, :, t]
        kept = expected * decay[:, :, t, None]
        error = value[:, :, t, :, None] - kept @ k[..., None]
        expected = kept + beta * error @ k[..., None, :]
        second.append(torch.einsum("bhij,bhj->bhi", expected, query[:, :, t]))
    if not tokens:
        return
    given = {"query": query, "key": key, "value": value, "retain": decay}
    pair = (kappa, learning * kappa)
    read, state = channel_delta(**given, erase=pair, anchor="current", tile=tile)
    leaves = given | {"kappa": kappa, "learning": learning}
    assert_same((read, state), (torch.stack(first, 2), {"W": weights}), leaves)
    read, state = channel_delta(**given, rate=tensors["rate"], tile=tile)
    assert_same((read, state), (torch.stack(second, 2), {"W": expected}), given | {"rate": tensors["rate"]})


@pytest.mark.parametrize("erasure", ["key", "along and into"])
def test_strong_decay_is_finite_and_accurate_in_single_precision(erasure: str) -> None:
    """Products over a tile fall below 1e-100, and their inverses would overflow."""
    shape = {"batch": 1, "heads": 2, "tokens": 130, "dim_k": 8, "dim_v": 8, "seed": 3}
    tensors = _case(shape, ["retain"], erasure)
    wide = tuple(tensors["key"].shape)
    exponents = rand(*wide, seed=4, low=-4.0, high=0.0).detach()
    tensors["retain"] = (10.0**exponents).requires_grad_()
    single = {n: t.detach().float().requires_grad_() for n, t in tensors.items()}
    core = _erasing(channel_delta)
    exact, found = core(**tensors)[0], core(**single)[0]
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(found.sin().sum(), list(single.values())),
        torch.autograd.grad(exact.sin().sum(), list(tensors.values())),
        strict=True,
    ):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_closed_and_open_gates_are_exact(gate: float) -> None:
    tensors = _case(
        {"batch": 1, "heads": 1, "tokens": 21, "dim_k": 3, "dim_v": 2, "seed": 6}, ["retain", "rate"]
    )
    tensors["retain"] = torch.full_like(tensors["retain"], gate, requires_grad=True)
    for core, objective in ((channel_hebbian, "dot"), (channel_delta, "l2")):
        for tile in (4, 64):
            assert_same(core(**tensors, tile=tile), token_loop(**tensors, objective=objective), tensors)
    assert_same(channel_frozen(**tensors, period=5), token_loop(**tensors, anchor=5), tensors)


@pytest.mark.parametrize("core", [channel_hebbian, channel_delta, _frozen])
def test_gates_that_are_not_given_are_one(core: Any) -> None:
    tensors = inputs(1, 2, 7, 3, 2, seed=5)
    plain = {n: tensors[n] for n in ("query", "key", "value")}
    ones = torch.ones_like(tensors["rate"])
    wide = torch.ones_like(tensors["key"])
    assert_same(core(**plain), core(**plain, rate=ones, retain=ones), plain)
    assert_same(core(**plain), core(**plain, rate=wide, retain=wide), plain)


@pytest.mark.parametrize("core", [channel_hebbian, channel_delta, _frozen])
def test_half_precision_multiplies_its_gates_in_single(core: Any) -> None:
    shape = {"batch": 1, "heads": 2, "tokens": 200, "dim_k": 4, "dim_v": 4, "seed": 8}
    tensors = _case(shape, ["retain"])
    tensors["retain"] = torch.full_like(tensors["retain"], 0.99)
    tensors = {n: t.detach().bfloat16().requires_grad_() for n, t in tensors.items()}
    read, _ = core(**tensors)
    exact, _ = core(**{n: t.double() for n, t in tensors.items()})
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(read.double(), exact, rtol=0.1, atol=0.1)
    grads = torch.autograd.grad(read.float().sum(), list(tensors.values()))
    assert all(torch.isfinite(g).all() for g in grads)


def test_scores_are_sums_of_products_and_twice_differentiable() -> None:
    tokens, readers, writers = 5, rand(2, 5, 2, 3, seed=1), rand(2, 5, 1, 3, seed=2)
    retain = _gate((2, 5, 3), 3, 1.0)
    scores, begun, ended, total = channel_scores(readers, writers, retain)
    between = {
        (t, i): retain[:, i + 1 : t].prod(1) for t in range(tokens) for i in range(-1, tokens) if i < t
    }
    for t in range(tokens):
        for i in range(tokens):
            expected = (
                torch.einsum("brd,bpd,bd->brp", readers[:, t], writers[:, i], between[t, i])
                if i < t
                else torch.zeros(2, 2, 1, dtype=torch.float64)
            )
            torch.testing.assert_close(scores.movedim(2, 0)[..., t, i], expected)
        torch.testing.assert_close(begun[:, t], readers[:, t] * between[t, -1][:, None])
        torch.testing.assert_close(ended[:, t], writers[:, t] * retain[:, t + 1 :].prod(1)[:, None])
    torch.testing.assert_close(total, retain.prod(1))
    given = tuple(x[:, :4].detach().requires_grad_() for x in (readers, writers, retain))
    assert torch.autograd.gradcheck(channel_scores, given)
    assert torch.autograd.gradgradcheck(channel_scores, given)
    batched = torch.func.vmap(channel_scores, out_dims=(2, 0, 0, 0))(*given)
    for one, other in zip(batched, channel_scores(*given), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(channel_halves(*given), ChannelScores.apply(*given)[:4], strict=True):  # type: ignore[index]
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("erasure", ["key", "along and into"])
def test_erasure_is_twice_differentiable_and_runs_under_vmap(erasure: str) -> None:
    shape = {"batch": 2, "heads": 1, "tokens": 3, "dim_k": 2, "dim_v": 1, "seed": 11}
    tensors = _case(shape, ["retain", "rate"], erasure)
    core = _erasing(channel_delta)

    def read(*given: torch.Tensor) -> torch.Tensor:
        return core(**dict(zip(tensors, given, strict=True)), tile=2)[0]

    assert torch.autograd.gradcheck(read, tuple(tensors.values()))
    assert torch.autograd.gradgradcheck(read, tuple(tensors.values()))
    whole = read(*tensors.values())
    apart = torch.func.vmap(read)(*(x.unsqueeze(1) for x in tensors.values())).squeeze(1)
    torch.testing.assert_close(apart, whole)
    slopes = torch.func.vmap(torch.func.grad(lambda *given: read(*given).sin().sum()))(
        *(x.detach().unsqueeze(1) for x in tensors.values())
    ).squeeze(1)
    torch.testing.assert_close(slopes, torch.autograd.grad(whole.sin().sum(), tensors["query"])[0])


MODES: list[Any] = ["through", "first_order", "stop", ("through", 3)]


def test_compiled_calls_are_the_same() -> None:
    shape = {"batch": 1, "heads": 2, "tokens": 11, "dim_k": 3, "dim_v": 2, "seed": 12}
    tensors = _case(shape, ["retain"], "along and into")
    core = _erasing(channel_delta)
    compiled = torch.compile(core, backend="aot_eager")
    assert_same(compiled(**tensors, tile=4), core(**tensors, tile=4), tensors)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_forms_that_autograd_follows_are_the_same(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What compilers trace, and what mixed precision runs."""
    shape = {"batch": 1, "heads": 2, "tokens": 11, "dim_k": 3, "dim_v": 2, "seed": 12}
    tensors = _case(shape, ["retain"], "along and into")
    core = _erasing(channel_delta)
    closed = core(**tensors, tile=4, gradient=mode)
    for module in (carried, channel_decay):
        monkeypatch.setattr(module, "closed_form_fits", lambda *given: False)
    assert_same(core(**tensors, tile=4, gradient=mode), closed, tensors)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_modes_run_under_vmap(mode: Any) -> None:
    shape = {"batch": 2, "heads": 1, "tokens": 5, "dim_k": 2, "dim_v": 1, "seed": 11}
    tensors = _case(shape, ["retain"], "along and into")

    def total(*given: Any) -> torch.Tensor:
        named = dict(zip(tensors, given, strict=True))
        return _erasing(channel_delta)(**named, gradient=mode, tile=2)[0].sin().sum()

    leaves = list(tensors.values())
    whole = torch.autograd.grad(total(*leaves), leaves, allow_unused=True, materialize_grads=True)
    slope = torch.func.grad(total, argnums=tuple(range(len(leaves))))
    apart = torch.func.vmap(slope)(*(x.detach().unsqueeze(1) for x in leaves))
    for one, other in zip(apart, whole, strict=True):
        torch.testing.assert_close(one.squeeze(1), other)


@pytest.mark.parametrize("core", [channel_hebbian, channel_delta, _frozen])
def test_autocast_keeps_long_products_of_gates(core: Any) -> None:
    shape = {"batch": 1, "heads": 2, "tokens": 200, "dim_k": 4, "dim_v": 4, "seed": 8}
    tensors = {n: t.detach().float().requires_grad_() for n, t in _case(shape, ["retain"]).items()}
    tensors["retain"] = torch.full_like(tensors["retain"], 0.999, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read, _ = core(**tensors)
    exact, _ = core(**tensors)
    torch.testing.assert_close(read.float(), exact, rtol=0.1, atol=0.1)
    grads = torch.autograd.grad(read.float().sum(), list(tensors.values()))
    assert all(torch.isfinite(g).all() for g in grads)
