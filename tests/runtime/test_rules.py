"""The library's rules step for step, against torch's classes or the equations written out once more."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nldsl

torch.set_num_threads(1)
FLUSH_DENORMAL = True

STEPS = 50
SHAPES = ((3, 4), (5,), (2, 3, 2))


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _weights(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    return [nn.Parameter(_noise(i, *shape)) for i, shape in enumerate(shapes)]


def _run(
    optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: int = STEPS, begin: int = 0
) -> list[Tensor]:
    """Steps with noise for gradients and a rate that changes at each."""
    for step in range(begin, begin + steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 / (1 + step % 7)
        for i, weight in enumerate(weights):
            weight.grad = _noise(1000 * step + i, *weight.shape)
        optimizer.step()
    return [weight.detach() for weight in weights]


TORCH: list[tuple[str, dict[str, Any], Callable[..., torch.optim.Optimizer], dict[str, Any]]] = [
    ("gd", {}, torch.optim.SGD, {}),
    ("gd", {"decay": 0.1}, torch.optim.SGD, {"weight_decay": 0.1}),
    ("momentum", {"beta": 0.8}, torch.optim.SGD, {"momentum": 0.8}),
    ("momentum", {"decay": 0.1}, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    ("nesterov", {"decay": 0.1}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("adagrad", {}, torch.optim.Adagrad, {}),
    ("adagrad", {"decay": 0.1}, torch.optim.Adagrad, {"weight_decay": 0.1}),
    ("rmsprop", {"beta": 0.9}, torch.optim.RMSprop, {"alpha": 0.9}),
    ("rmsprop", {"momentum": 0.8, "decay": 0.1}, torch.optim.RMSprop, {"momentum": 0.8, "weight_decay": 0.1}),
    ("adam", {"beta1": 0.8, "decay": 0.1}, torch.optim.Adam, {"betas": (0.8, 0.999), "weight_decay": 0.1}),
    ("adamw", {"decay": 0.1, "eps": 1e-6}, torch.optim.AdamW, {"weight_decay": 0.1, "eps": 1e-6}),
]


@pytest.mark.parametrize(("name", "options", "kind", "theirs"), TORCH)
@pytest.mark.parametrize("kernel", ["fused", "foreach"])
def test_rules_that_torch_has_are_torchs(
    name: str,
    options: dict[str, Any],
    kind: Callable[..., torch.optim.Optimizer],
    theirs: dict[str, Any],
    kernel: str,
) -> None:
    ours, other = _weights(*SHAPES), _weights(*SHAPES)
    if kind is torch.optim.RMSprop and kernel == "fused":
        kernel = "foreach"  # torch has no fused one
    got = _run(nldsl.rule(name, ours, 0.05, **options), ours)
    want = _run(kind(other, lr=0.05, **{kernel: True}, **theirs), other)
    for one, two in zip(got, want, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["adamw", "momentum", "adagrad"])
def test_what_torch_has_fused_is_the_same_bit_for_bit(name: str) -> None:
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": torch.optim.AdamW,
        "momentum": torch.optim.SGD,
        "adagrad": torch.optim.Adagrad,
    }
    more: dict[str, dict[str, float]] = {
        "adamw": {"weight_decay": 0.1},
        "momentum": {"momentum": 0.9, "weight_decay": 0.1},
        "adagrad": {},
    }
    ours, other = ([nn.Parameter(w.float()) for w in _weights(*SHAPES)] for _ in range(2))
    made = nldsl.rule(name, ours, 0.05, **({} if name == "adagrad" else {"decay": 0.1}))
    theirs = kinds[name](other, lr=0.05, fused=True, **more[name])
    for step in range(20):
        for i, (a, b) in enumerate(zip(ours, other, strict=True)):
            a.grad = _noise(1000 * step + i, *a.shape).float()
            b.grad = a.grad.clone()
        made.step()
        theirs.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, other, strict=True))


def test_groups_have_options_of_their_own() -> None:
    ours, other = _weights((3, 4), (5,)), _weights((3, 4), (5,))
    groups = [{"params": ours[:1]}, {"params": ours[1:], "decay": 0.0, "beta1": 0.5}]
    theirs = [{"params": other[:1]}, {"params": other[1:], "weight_decay": 0.0, "betas": (0.5, 0.999)}]
    got = _run(nldsl.rule("adamw", groups, 0.1, decay=0.5), ours)
    want = _run(torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.5), other)
    for one, two in zip(got, want, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "muon"])
def test_a_missing_gradient_leaves_its_weight_alone(name: str) -> None:
    ours = _weights((3, 4), (3, 4))
    before = [w.detach().clone() for w in ours]
    made = nldsl.rule(name, ours, 0.05)
    for step in range(3):
        ours[0].grad = _noise(step, 3, 4)
        made.step()
    ours[1].grad = _noise(9, 3, 4)
    alone = nn.Parameter(before[1].clone())
    single = nldsl.rule(name, [alone], 0.05)
    alone.grad = _noise(9, 3, 4)
    made.step()
    single.step()
    assert torch.equal(ours[1], alone)  # its first update, whatever the others' number
    assert made.state[ours[0]]["step"] == 4


@pytest.mark.parametrize("name", ["gd", "adamw", "rmsprop", "muon", "m3", "delta_momentum", "deep_momentum"])
def test_nothing_to_do_and_nothing_to_learn(name: str) -> None:
    weights = _weights((4, 3))
    made = nldsl.rule(name, weights, 0.05)
    before = weights[0].detach().clone()
    made.step()
    assert torch.equal(weights[0], before)
    for _ in range(5):
        weights[0].grad = torch.zeros(4, 3, dtype=torch.float64)
        made.step()
    assert torch.isfinite(weights[0]).all()
    torch.testing.assert_close(weights[0], before)


# --------------------------------------------------------------------------- matrices


def _newton_schulz(matrix: Tensor) -> Tensor:
    """By singular values: the iteration acts on each of them alone."""
    if not matrix.any():
        return matrix
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / (torch.linalg.norm(s) + 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_newton_schulz_acts_on_singular_values(shape: tuple[int, int]) -> None:
    rules = nldsl.api.rules.compiled(nldsl.api.rules.library_rule("muon", 0.1))
    matrices = [_noise(i, *shape) for i in range(3)]
    for matrix, turned in zip(matrices, rules.orthogonal(matrices), strict=True):
        torch.testing.assert_close(turned, _newton_schulz(matrix), rtol=1e-9, atol=1e-11)
    assert not rules.orthogonal([torch.zeros(2, 3)])[0].any()


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_muon_is_the_published_algorithm(nesterov: bool, shape: tuple[int, int]) -> None:
    weights = _weights(shape, shape)
    got = _run(nldsl.rule("muon", weights, 0.05, nesterov=nesterov, decay=0.1), weights)
    for i, (weight, made) in enumerate(zip(_weights(shape, shape), got, strict=True)):
        w, m = weight.detach().clone(), torch.zeros(*shape, dtype=torch.float64)
        for step in range(STEPS):
            rate, g = 0.05 / (1 + step % 7), _noise(1000 * step + i, *shape)
            m = 0.95 * m + 0.05 * g
            u = 0.95 * m + 0.05 * g if nesterov else m
            w = w * (1 - rate * 0.1) - rate * math.sqrt(max(1, shape[0] / shape[1])) * _newton_schulz(u)
        torch.testing.assert_close(made, w, rtol=1e-9, atol=1e-11)


def test_muon_is_torchs_within_what_bfloat16_allows() -> None:
    """Torch turns matrices in bfloat16: a step is off by two to three hundredths of its length."""
    ours, other = _weights((6, 3)), _weights((6, 3))
    start = ours[0].detach().clone()
    made = nldsl.rule("muon", ours, 0.05)
    theirs = torch.optim.Muon(other, lr=0.05, weight_decay=0.0, momentum=0.95, nesterov=True)
    for one in (ours[0], other[0]):
        one.grad = _noise(7, 6, 3)
    made.step()
    theirs.step()
    moved, wanted = ours[0].detach() - start, other[0].detach() - start
    assert (moved - wanted).norm() / wanted.norm() < 0.04
    assert torch.nn.functional.cosine_similarity(moved.flatten(), wanted.flatten(), dim=0) > 0.999


def test_stacks_of_matrices_are_taken_one_by_one() -> None:
    stack = nn.Parameter(_noise(0, 2, 4, 3))
    made = nldsl.rule("muon", [{"params": [stack], "matrix": True}], 0.05)
    alone = [nn.Parameter(stack.detach()[i].clone()) for i in range(2)]
    single = nldsl.rule("muon", alone, 0.05)
    for step in range(5):
        stack.grad = _noise(step + 50, 2, 4, 3)
        for i, one in enumerate(alone):
            one.grad = stack.grad[i].clone()
        made.step()
        single.step()
    torch.testing.assert_close(stack.detach(), torch.stack([one.detach() for one in alone]))


@pytest.mark.parametrize("name", ["muon", "m3"])
@pytest.mark.parametrize("group", [{}, {"matrix": False}])
def test_what_is_no_matrix_is_left_to_adamw(name: str, group: dict[str, Any]) -> None:
    shape = (3, 4) if group else (5,)
    ours, other = _weights(shape), _weights(shape)
    got = _run(nldsl.rule(name, [{"params": ours, **group}], 0.05, decay=0.1, adam_scale=0.5), ours)
    theirs = torch.optim.AdamW(other, lr=0.05, weight_decay=0.1)
    for step in range(STEPS):
        theirs.param_groups[0]["lr"] = 0.5 * 0.05 / (1 + step % 7)
        other[0].grad = _noise(1000 * step, *shape)
        theirs.step()
    torch.testing.assert_close(got[0], other[0].detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("accumulate", ["ema", "sum"])
@pytest.mark.parametrize("divide", ["root", "relative"])
@pytest.mark.parametrize("period", [1, 2, 5])
def test_m3_is_the_algorithm_of_the_paper(accumulate: str, divide: str, period: int) -> None:
    weights = _weights((4, 3))
    options = {"fast": 0.8, "slow": 0.7, "norm": 0.9, "mix": 0.3, "period": period, "eps": 1e-6}
    made = nldsl.rule("m3", weights, 0.05, accumulate=accumulate, divide=divide, **options)
    (got,) = _run(made, weights, 13)

    w = _weights((4, 3))[0].detach().clone()
    near, far, size, block = (torch.zeros(4, 3, dtype=torch.float64) for _ in range(4))

    def gather(memory: Tensor, value: Tensor, keep: float) -> Tensor:
        return memory + keep * value if accumulate == "sum" else keep * memory + (1 - keep) * value

    for t in range(13):
        if t > 0 and t % period == 0:  # a block begins: the far memory takes in the block that ended
            far = gather(far, block if accumulate == "sum" else block / period, 0.7)
            block = torch.zeros_like(block)
        g = _noise(1000 * t, 4, 3)
        block = block + g
        near, size = gather(near, g, 0.8), gather(size, g * g, 0.9)
        root = size.sqrt()
        if divide == "relative":
            root = root / size.mean().sqrt()
        w = w - 0.05 / (1 + t % 7) * (_newton_schulz(near) + 0.3 * _newton_schulz(far)) / (root + 1e-6)
    torch.testing.assert_close(got, w, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("form", ["explicit", "implicit"])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4,)])
def test_delta_momentum_erases_before_it_writes(form: str, shape: tuple[int, ...]) -> None:
    beta, eta = 0.9, 0.02
    weights = _weights(shape)
    (got,) = _run(nldsl.rule("delta_momentum", weights, 0.05, beta=beta, eta=eta, form=form), weights)
    w, m = _weights(shape)[0].detach().clone(), torch.zeros(*shape, dtype=torch.float64)
    for step in range(STEPS):  # in the paper's scale, where the memory holds eta times ours
        g = _noise(1000 * step, *shape)
        gram = g.T @ g if g.ndim == 2 else torch.diag(g * g)
        eye = torch.eye(gram.shape[0], dtype=torch.float64)
        if form == "explicit":
            m = m @ (beta * eye - eta * gram) - eta * g
        else:
            m = (beta * m - eta * g) @ torch.linalg.inv(eye + eta * gram)
        w = w + 0.05 / (1 + step % 7) / eta * m
    torch.testing.assert_close(got, w, rtol=1e-9, atol=1e-11)


def test_the_explicit_form_is_one_step_down_on_the_objective() -> None:
    weights = _weights((4, 3))
    made = nldsl.rule("delta_momentum", weights, 0.05, beta=1.0, eta=0.02, form="explicit")
    _run(made, weights, 3)
    held, g = made.state[weights[0]]["momentum"].clone(), _noise(5, 4, 3)

    def loss(m: Tensor) -> Tensor:  # |m g^T + P|^2 / 2 in the paper's scale, with P the identity
        return (m @ g.T + torch.eye(4, dtype=torch.float64)).square().sum() / 2

    want = (0.02 * held - 0.02 * torch.func.grad(loss)(0.02 * held)) / 0.02
    weights[0].grad = g
    made.step()
    torch.testing.assert_close(made.state[weights[0]]["momentum"], want, rtol=1e-11, atol=1e-12)


def test_the_implicit_form_is_stable_where_the_explicit_one_is_not() -> None:
    sizes = {}
    for form in ("explicit", "implicit"):
        weight = nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
        made = nldsl.rule("delta_momentum", [weight], 0.1, form=form)
        for _ in range(50):
            weight.grad = torch.full((3, 3), 10.0, dtype=torch.float64)
            made.step()
        sizes[form] = weight.abs().max()
    assert sizes["implicit"] < 10 < 1e6 < sizes["explicit"]


def _net(layers: list[Tensor], rows: Tensor, residual: bool) -> Tensor:
    made = torch.nn.functional.gelu(rows @ layers[0].T) @ layers[1].T
    return rows + made if residual else made


def test_deep_momentum_by_rows_regresses_to_minus_the_gradient() -> None:
    weights = _weights((4, 3))
    made = nldsl.rule("deep_momentum", weights, 0.05, beta=0.9, eta=0.02, decay=0.1)
    weights[0].grad = _noise(0, 4, 3)
    before = weights[0].detach().clone()
    made.step()
    state = made.state[weights[0]]
    assert state["momentum_1"].shape == (32, 3)
    for step in range(1, 6):
        old = [state["momentum_1"].clone(), state["momentum_2"].clone()]
        before, g = weights[0].detach().clone(), _noise(step, 4, 3)
        kept = [0.9 * layer for layer in old]

        def loss(layers: list[Tensor], g: Tensor = g) -> Tensor:
            return (_net(layers, g, True) + g).square().sum() / 2

        slopes = torch.func.grad(loss)(kept)
        want = [w - 0.02 * slope for w, slope in zip(kept, slopes, strict=True)]
        weights[0].grad = g
        made.step()
        torch.testing.assert_close(state["momentum_1"], want[0], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(state["momentum_2"], want[1], rtol=1e-12, atol=1e-13)
        moved = (1 - 0.05 * 0.1) * before + 0.05 * _net(want, g, True)
        torch.testing.assert_close(weights[0].detach(), moved, rtol=1e-12, atol=1e-13)
    assert state["momentum_2"].abs().max() > 1e-3


# --------------------------------------------------------------------------- checkpoints


RULES = ["gd", "momentum", "adamw", "rmsprop", "muon", "m3", "delta_momentum", "deep_momentum"]


@pytest.mark.parametrize("name", RULES)
def test_a_rule_goes_on_from_its_state_bit_for_bit(name: str) -> None:
    whole = _weights((4, 3), (4, 3), (5,))
    options = {"period": 4} if name == "m3" else {}
    want = _run(nldsl.rule(name, whole, 0.05, **options), whole, 11)
    part = _weights((4, 3), (4, 3), (5,))
    first = nldsl.rule(name, part, 0.05, **options)
    _run(first, part, 6)
    second = nldsl.rule(name, part, 0.05, **options)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    got = _run(second, part, 5, begin=6)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(
    ("rule", "options", "words"),
    [
        ("adamm", {}, "did you mean `adam"),
        ("zzzzz", {}, "known: `adagrad`"),
        ("adamw", {"betta1": 0.5}, "did you mean `beta1`"),
        ("m3", {"accumulate": "all"}, "accumulate"),
        ("delta_momentum", {"form": "x"}, "form"),
    ],
)
def test_what_does_not_exist_is_said(rule: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        nldsl.rule(rule, _weights((3, 3)), 0.1, **options)


def test_a_period_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="period"):
        nldsl.rule("m3", _weights((3, 3)), 0.1, period=0)
