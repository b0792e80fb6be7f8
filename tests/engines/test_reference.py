"""The token loop against formulas written out in numpy, and against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.codegen.engines.newton_schulz import newton_schulz
from nldsl.codegen.engines.reference import token_loop
from tests.engines.compare import assert_same, inputs, piecewise, rand

T, D, E = 6, 3, 2


def _one(
    seed: int = 0, dim_v: int = E, *, momentum: bool = False
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One sequence and one head, as tensors and as numpy rows."""
    tensors = {n: t.detach() for n, t in inputs(1, 1, T, D, dim_v, seed=seed, momentum=momentum).items()}
    return tensors, {n: t[0, 0].numpy() for n, t in tensors.items()}


def _matrix(seed: int = 90) -> tuple[torch.Tensor, np.ndarray]:
    start = rand(1, E, D, seed=seed).detach()
    return start, start[0].numpy()


@pytest.mark.parametrize("anchor", ["retained", "current", 4])
@pytest.mark.parametrize("objective", ["dot", "l2"])
@pytest.mark.parametrize("read", ["after", "before", "boundary"])
def test_gradient_descent_with_momentum(anchor: str | int, objective: str, read: str) -> None:
    tensors, n = _one(1, momentum=True)
    start, w = _matrix()
    s, opened, expected = np.zeros_like(w), w, []
    for t in range(T):
        if isinstance(anchor, int) and t % anchor == 0:
            opened = w
        kept = n["retain"][t] * w
        at = {"retained": kept, "current": w}.get(str(anchor), opened)
        error = (at @ n["key"][t] if objective == "l2" else 0) - n["value"][t]
        s = n["momentum"][t] * s - n["rate"][t] * np.outer(error, n["key"][t])
        before, w = w, kept + s
        if not isinstance(anchor, int):
            opened = start[0].numpy() if t == 0 else opened
        seen = {"after": w, "before": before, "boundary": opened if isinstance(anchor, int) else before}[read]
        expected.append(seen @ n["query"][t])
    if read == "boundary" and not isinstance(anchor, int):
        read = "before"
    result, state = token_loop(**tensors, start=start, anchor=anchor, objective=objective, read=read)
    np.testing.assert_allclose(result[0, 0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state["W"][0, 0], w, rtol=1e-12)
    np.testing.assert_allclose(state["S"][0, 0], s, rtol=1e-12, atol=1e-12)


def test_reads_wait_for_the_end_of_an_update() -> None:
    tensors, _ = _one(2)
    start, w = _matrix()
    result, state = token_loop(**tensors, start=start, update=4)
    np.testing.assert_allclose(result[0, 0, :4], tensors["query"][0, 0, :4].numpy() @ w.T)
    assert int(state["phase"]) == 2
    after_four = token_loop(**{k: v[:, :, :4] for k, v in tensors.items()}, start=start)[1]["W"]
    np.testing.assert_allclose(state["W_start"], after_four)


def test_an_update_and_an_anchor_of_different_periods_keep_both_starts() -> None:
    tensors = inputs(2, 1, 11, D, E, seed=3)
    start = rand(1, E, D, seed=4)
    whole = token_loop(**tensors, start=start, update=2, anchor=6)
    assert set(whole[1]) == {"W", "W_start", "W_anchor", "phase"}
    assert int(whole[1]["phase"]) == 5
    pieces = piecewise(token_loop, tensors, [1, 6, 9], start=start, update=2, anchor=6)
    assert_same(pieces, whole, tensors, tolerance=1e-12)


def test_delta_gradient_descent_on_an_mlp() -> None:
    hidden = 4
    tensors, n = _one(5, dim_v=D)
    w1 = 0.5 * rand(1, hidden, D, seed=6).detach()
    w2 = 0.5 * rand(1, D, hidden, seed=7).detach()
    a, b = w1[0].numpy(), w2[0].numpy()
    expected = []
    anchor_a, anchor_b = a, b
    for t in range(T):
        k, rate, keep = n["key"][t], n["rate"][t], n["retain"][t]
        if t % 3 == 0:
            anchor_a, anchor_b = a, b
        h = np.tanh(anchor_a @ k)
        error = k + anchor_b @ h - n["value"][t]
        inner = (1 - h**2) * (anchor_b.T @ error)
        own = rate / (1 + rate * h @ h)
        a = a @ (keep * np.eye(D) - rate * np.outer(k, k)) - rate * np.outer(inner, k)
        b = b @ (keep * np.eye(hidden) - own * np.outer(h, h)) - own * np.outer(error, h)
        expected.append(n["query"][t] + b @ np.tanh(a @ n["query"][t]))
    spec = {"kind": "mlp", "hidden": hidden, "residual": True, "activation": "tanh"}
    result, state = token_loop(**tensors, start=(w1, w2), map=spec, rule="dgd", anchor=3)
    np.testing.assert_allclose(result[0, 0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state["W2"][0, 0], b, rtol=1e-12, atol=1e-12)


def test_a_delta_step_with_momentum_and_running_gradient() -> None:
    tensors, n = _one(8, momentum=True)
    start, w = _matrix()
    s = np.zeros_like(w)
    for t in range(T):
        k, rate = n["key"][t], n["rate"][t]
        s = n["momentum"][t] * s - rate * np.outer(w @ k - n["value"][t], k)
        w = w @ (n["retain"][t] * np.eye(D) - rate * np.outer(k, k)) + s
    _, state = token_loop(**tensors, start=start, rule="dgd", anchor="current")
    np.testing.assert_allclose(state["W"][0, 0], w, rtol=1e-12, atol=1e-12)


def _sum_of_squares(memory: Any, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return (memory(key) - value).square().sum() + 0.1 * memory(2 * key).sum()


MAPS: list[tuple[Any, tuple[tuple[int, ...], ...]]] = [
    ("matrix", ((D, D),)),
    ("vector", ((D,),)),
    ({"kind": "mlp", "hidden": 4, "depth": 3, "activation": "silu"}, ((4, D), (4, 4), (D, 4))),
    ({"kind": "mlp", "hidden": 4, "residual": True, "norm": True}, ((4, D), (D, 4))),
    ({"kind": "swiglu", "hidden": 4, "residual": True}, ((4, D), (4, D), (D, 4))),
]


def _loss(objective: Any, kind: Any, weights: list[np.ndarray], key: np.ndarray, value: np.ndarray) -> float:
    """The objective, written out once more in numpy."""

    def memory(z: np.ndarray) -> np.ndarray:
        if kind == "matrix":
            return weights[0] @ z
        if kind == "vector":
            return weights[0] * z
        if kind["kind"] == "swiglu":
            gate = weights[0] @ z
            return z + weights[2] @ (gate / (1 + np.exp(-gate)) * (weights[1] @ z))
        signal = weights[0] @ z
        for layer in weights[1:]:
            if kind.get("activation") == "silu":
                signal = signal / (1 + np.exp(-signal))
            else:
                signal = torch.nn.functional.gelu(torch.from_numpy(signal)).numpy()
            signal = layer @ signal
        if kind.get("norm"):
            signal = (signal - signal.mean()) / np.sqrt(signal.var() + 1e-5)
        return z + signal if kind.get("residual") else signal

    error = memory(key) - value
    if objective == "dot":
        return float(-memory(key) @ value)
    if objective == "l2":
        return float(0.5 * error @ error)
    if objective == "oja":
        back = weights[0].T @ value
        return float(-memory(key) @ value + 0.5 * back @ back)
    if objective == ("lp", 3.0):
        return float((np.abs(error) ** 3).sum())
    if objective == ("huber", 0.7):
        return float(sum(0.5 * x * x if abs(x) <= 0.7 else 0.7 * (abs(x) - 0.35) for x in error))
    return float(error @ error + 0.1 * memory(2 * key).sum())


@pytest.mark.parametrize(("kind", "shapes"), MAPS)
@pytest.mark.parametrize("objective", ["dot", "l2", ("lp", 3.0), ("huber", 0.7), _sum_of_squares])
def test_one_step_follows_the_gradient(
    kind: Any, shapes: tuple[tuple[int, ...], ...], objective: Any
) -> None:
    _follow(kind, shapes, objective)


def test_one_step_of_oja_follows_its_gradient() -> None:
    _follow("matrix", ((D, D),), "oja")


def _follow(kind: Any, shapes: tuple[tuple[int, ...], ...], objective: Any) -> None:
    start = tuple(0.6 * rand(1, *shape, seed=60 + n).detach() for n, shape in enumerate(shapes))
    key, value = (rand(1, 1, 1, D, seed=s).detach() for s in (70, 71))
    _, state = token_loop(key, key, value, start=start, map=kind, objective=objective)
    weights = [w[0].numpy().copy() for w in start]
    for n, name in enumerate(state):
        slope = np.zeros_like(weights[n])
        for at in np.ndindex(slope.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [w.copy() for w in weights]
                moved[n][at] += step
                ends.append(_loss(objective, kind, moved, key[0, 0, 0].numpy(), value[0, 0, 0].numpy()))
            slope[at] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(weights[n] - state[name][0, 0].numpy(), slope, rtol=1e-6, atol=1e-7)


def test_oja_is_its_printed_recurrence() -> None:
    tensors, n = _one(10)
    start, w = _matrix()
    for t in range(T):
        v = n["value"][t]
        w = n["retain"][t] * w + n["rate"][t] * np.outer(v, n["key"][t] - w.T @ v)
    _, state = token_loop(**tensors, start=start, objective="oja", anchor="current")
    np.testing.assert_allclose(state["W"][0, 0], w, rtol=1e-11)


def test_an_implicit_step_minimises_the_proximal_objective() -> None:
    tensors, n = _one(11)
    start, w = _matrix()
    one: dict[str, Any] = {name: t[:, :, :1] for name, t in tensors.items()} | {
        "rate": torch.full((1, 1, 1), 0.8, dtype=torch.float64)
    }
    _, state = token_loop(**one, start=start, rule="gd_implicit")
    kept, k = n["retain"][0] * w, n["key"][0]
    exact = (kept + 0.8 * np.outer(n["value"][0], k)) @ np.linalg.inv(np.eye(D) + 0.8 * np.outer(k, k))
    np.testing.assert_allclose(state["W"][0, 0], exact, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 5)])
def test_newton_schulz_keeps_singular_vectors(shape: tuple[int, int]) -> None:
    matrix = rand(2, *shape, seed=12).detach()
    u, s, vt = np.linalg.svd(matrix.numpy(), full_matrices=False)
    s = s / (np.sqrt((s**2).sum(-1, keepdims=True)) + 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    np.testing.assert_allclose(newton_schulz(matrix), (u * s[:, None]) @ vt, rtol=1e-8, atol=1e-10)


def test_muon_orthogonalises_its_momentum() -> None:
    tensors, n = _one(13, momentum=True)
    start, w = _matrix()
    s = np.zeros_like(w)
    for t in range(T):
        kept = n["retain"][t] * w
        s = n["momentum"][t] * s - np.outer(kept @ n["key"][t] - n["value"][t], n["key"][t])
        w = kept + n["rate"][t] * newton_schulz(torch.from_numpy(s)).numpy()
    _, state = token_loop(**tensors, start=start, rule="muon")
    np.testing.assert_allclose(state["W"][0, 0], w, rtol=1e-9, atol=1e-9)


def test_gates_per_channel_and_an_erasure_of_its_own() -> None:
    tensors, n = _one(14)
    start, w = _matrix()
    along, into, keep = (rand(1, 1, T, D, seed=15 + i).detach() for i in range(3))
    keep = keep.sigmoid()
    for t in range(T):  # the transition of RWKV-7 with a = -along and b = into
        a, b, r = (x[0, 0, t].numpy() for x in (along, into, keep))
        w = w * r - n["rate"][t] * np.outer(w @ a, b) + n["rate"][t] * np.outer(n["value"][t], n["key"][t])
    given_gates: dict[str, Any] = tensors | {"retain": keep}
    _, state = token_loop(**given_gates, erase=(along, into), start=start, anchor="current")
    np.testing.assert_allclose(state["W"][0, 0], w, rtol=1e-11, atol=1e-11)
    same_into = token_loop(**given_gates, erase=(along, tensors["key"]), start=start)
    assert torch.equal(token_loop(**given_gates, erase=along, start=start)[0], same_into[0])


def test_a_window_sums_the_gradients_of_its_tokens() -> None:
    tensors, n = _one(16)
    start, w = _matrix()
    weight = rand(1, 1, T, seed=17, low=0.2).detach()
    for t in range(T):
        back = range(max(0, t - 2), t + 1)
        slope = sum(
            weight[0, 0, i].item() * np.outer(w @ n["key"][i] - n["value"][i], n["key"][i]) for i in back
        )
        w = n["retain"][t] * w - n["rate"][t] * slope
    _, state = token_loop(**tensors, weight=weight, start=start, window=3, anchor="current")
    np.testing.assert_allclose(state["W"][0, 0], w, rtol=1e-11)
    assert state["window_key"].shape[2] == 2


def test_softmax_constraint_is_descent_on_logarithms() -> None:
    tensors, n = _one(18)
    start, w = _matrix()
    share = np.exp(w) / np.exp(w).sum(1, keepdims=True)
    for t in range(T):
        slope = np.outer(share @ n["key"][t] - n["value"][t], n["key"][t])
        logits = n["retain"][t] * np.log(share) - n["rate"][t] * slope
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    _, state = token_loop(**tensors, start=start, constrain=(("softmax", None, 1),))
    np.testing.assert_allclose(state["W"][0, 0], share, rtol=1e-10)


def test_lq_constraint_is_monetas() -> None:
    tensors, n = _one(19)
    start, a = _matrix()
    w = a / (np.abs(a) ** 4).sum() ** (2 / 4)
    for t in range(T):
        a = n["retain"][t] * a - n["rate"][t] * np.outer(w @ n["key"][t] - n["value"][t], n["key"][t])
        w = a / (np.abs(a) ** 4).sum() ** (2 / 4)
    _, state = token_loop(**tensors, start=start, constrain=(("lq", 4.0, 1),))
    np.testing.assert_allclose(state["W"][0, 0], w, rtol=1e-10)
    np.testing.assert_allclose(state["A"][0, 0], a, rtol=1e-10)


def test_norm_constraint_is_applied_when_due() -> None:
    tensors, n = _one(20)
    start, w = _matrix()
    for t in range(T):
        w = n["retain"][t] * (w - 0 * w)
        w = w - n["rate"][t] * np.outer(w @ n["key"][t] - n["value"][t], n["key"][t])
        w = w / np.linalg.norm(w) if t % 3 == 2 else w
    _, state = token_loop(**tensors, start=start, constrain=(("norm", None, 3),))
    np.testing.assert_allclose(state["W"][0, 0], w, rtol=1e-11)


def test_a_vector_with_keys_of_ones_is_an_average() -> None:
    tensors = inputs(1, 2, T, D, D, seed=22)
    ones = torch.ones_like(tensors["key"])
    rate = torch.full_like(tensors["rate"], 0.1)
    result, _ = token_loop(ones, ones, tensors["value"], rate, map="vector")
    average = torch.zeros_like(tensors["value"][:, :, 0])
    for t in range(T):
        average = 0.9 * average + 0.1 * tensors["value"][:, :, t]
        torch.testing.assert_close(result[:, :, t], average)


def test_a_normalised_read_is_a_weighted_mean_of_values() -> None:
    tensors: dict[str, Any] = {k: v.detach().abs() + 0.1 for k, v in inputs(1, 1, T, D, E, seed=23).items()}
    tensors["retain"] = torch.ones_like(tensors["retain"])
    result, state = token_loop(**tensors, objective="dot", normalise=True)
    share = (tensors["query"] @ tensors["key"].transpose(-1, -2)).tril() * tensors["rate"].unsqueeze(-2)
    torch.testing.assert_close(result, (share / share.sum(-1, keepdim=True)) @ tensors["value"])
    assert set(state) == {"W", "z"}


# ------------------------------------------------------------------ outer gradients


def test_stop_leaves_the_start_and_the_retention_reached() -> None:
    tensors = inputs(1, 1, T, D, E, seed=24)
    start = rand(1, E, D, seed=25)
    result, _ = token_loop(**tensors, start=start, gradient="stop", anchor="current")
    leaves = [start, tensors["retain"], tensors["key"], tensors["value"], tensors["rate"]]
    grads = torch.autograd.grad(result.sum(), leaves, allow_unused=True)
    assert [g is not None for g in grads] == [True, True, False, False, False]


def test_first_order_differs_from_through_only_in_second_order_terms() -> None:
    tensors = inputs(1, 1, T, D, E, seed=26)
    start = rand(1, E, D, seed=27)
    kinds = ("through", "first_order")
    reads = {g: token_loop(**tensors, start=start, gradient=g)[0] for g in kinds}
    assert torch.equal(*reads.values())
    grads = {g: torch.autograd.grad(r.sum(), [start, tensors["value"]]) for g, r in reads.items()}
    assert not torch.allclose(grads["through"][0], grads["first_order"][0])
    retained = torch.einsum("bht,bhtk->bhk", tensors["retain"].cumprod(-1), tensors["query"])
    expected = retained.sum(0).unsqueeze(-2).expand_as(start)
    torch.testing.assert_close(grads["first_order"][0], expected)  # the retain path alone


def test_through_n_tokens_cuts_the_past() -> None:
    tensors = inputs(1, 1, T, D, E, seed=28)
    result, _ = token_loop(**tensors, gradient=("through", 4))
    (early,) = torch.autograd.grad(result[:, :, 4:].sum(), tensors["value"], retain_graph=True)
    assert early[:, :, :4].abs().max() == 0
    assert early[:, :, 4:].abs().max() > 0


def test_the_start_is_reached_by_the_tokens_before_the_first_cut() -> None:
    tensors = inputs(1, 1, T, D, E, seed=28)
    start = rand(1, E, D, seed=29)
    result, _ = token_loop(**tensors, start=start, gradient=("through", 4))
    (first,) = torch.autograd.grad(result[:, :, :4].sum(), start, retain_graph=True)
    (later,) = torch.autograd.grad(result[:, :, 4:].sum(), start)
    assert first.abs().max() > 0
    assert later.abs().max() == 0


def test_stop_leaves_the_divisor_of_reads_a_constant() -> None:
    tensors = inputs(1, 1, T, D, E, seed=30)
    result, _ = token_loop(**tensors, normalise=True, objective="dot", gradient="stop")
    leaves = [tensors[n] for n in ("retain", "key", "value", "rate")]
    grads = torch.autograd.grad(result.sum(), leaves, allow_unused=True)
    assert [g is not None for g in grads] == [True, False, False, False]


@pytest.mark.parametrize(
    "options",
    [
        {"anchor": "current"},
        {"rule": "dgd", "anchor": 3},
        {"rule": "muon"},
        {"objective": "huber", "objective_parameter": 0.5},
        {"window": 2, "anchor": 2},
    ],
    ids=str,
)
def test_outer_gradients_are_right_by_finite_differences(options: dict[str, Any]) -> None:
    tensors = inputs(1, 1, 4, D, E, seed=29, momentum=True)
    start = rand(1, E, D, seed=30)
    names = list(tensors)

    def run(start: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return token_loop(**dict(zip(names, values, strict=True)), start=start, **options)[0]

    leaves = [start, *(t.detach().requires_grad_() for t in tensors.values())]
    assert torch.autograd.gradcheck(run, leaves, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------ streaming

OPTIONS: list[dict[str, Any]] = [
    {"update": 3, "anchor": 3},
    {"update": 3, "normalise": True, "objective": "dot"},
    {"anchor": 4, "rule": "dgd"},
    {"window": 3, "anchor": 2},
    {"constrain": (("lq", 4.0, 3),), "anchor": "current"},
    {"constrain": (("norm", None, 2),), "update": 3},
    {"gradient": ("through", 3)},
    {"rule": "muon", "update": 2, "anchor": 2},
    {"map": {"kind": "mlp", "hidden": 3, "residual": True}, "update": 4, "anchor": 2},
]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=4))
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_pieces_agree_with_the_whole(options: dict[str, Any], tokens: int, cuts: list[int]) -> None:
    deep = "map" in options
    tensors = inputs(1, 2, tokens, D, D if deep else E, seed=31, momentum="normalise" not in options)
    start: Any = rand(2, E, D, seed=32)
    if deep:
        start = tuple(rand(2, *shape, seed=33) for shape in ((3, D), (D, 3)))
    cuts = [min(cut, tokens) for cut in cuts]
    whole = token_loop(**tensors, start=start, **options)
    pieces = piecewise(token_loop, tensors, cuts, start=start, **options)
    assert_same(pieces, whole, tensors, tolerance=1e-10)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rule": "sgd"}, "unknown rule 'sgd'"),
        ({"map": "tensor"}, "unknown map 'tensor'"),
        ({"objective": "l3"}, "unknown objective 'l3'"),
        ({"constrain": (("unit", None, 1),)}, "unknown constraint 'unit'"),
    ],
)
def test_unknown_words_are_refused(options: dict[str, Any], says: str) -> None:
    tensors, _ = _one(34)
    with pytest.raises(ValueError, match=says):
        token_loop(**tensors, **options)


def test_a_gate_per_channel_of_a_hidden_layer_is_refused() -> None:
    tensors, _ = _one(35, dim_v=D)
    tensors["retain"] = torch.ones(1, 1, T, D, dtype=torch.float64)
    with pytest.raises(ValueError, match="a gate per channel"):
        token_loop(**tensors, map={"kind": "mlp", "hidden": 5})
