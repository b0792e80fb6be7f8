"""Each rule step for step against torch, or against the equations written out once more."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nldsl.run.folder import Build

STEPS = 7


@pytest.fixture
def rules(build: Build):
    return build.rules


def _gradients(*shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(STEPS)]


def _start(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def _run(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, gradients: list[Tensor]) -> Tensor:
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


TORCH = [
    ("gd", {}, torch.optim.SGD, {}),
    ("gd", {"decay": 0.1}, torch.optim.SGD, {"weight_decay": 0.1}),
    ("momentum", {"beta": 0.8}, torch.optim.SGD, {"momentum": 0.8}),
    ("nesterov", {}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ("adagrad", {}, torch.optim.Adagrad, {}),
    ("rmsprop", {"beta": 0.9}, torch.optim.RMSprop, {"alpha": 0.9}),
    ("adam", {"beta1": 0.8}, torch.optim.Adam, {"betas": (0.8, 0.999)}),
    ("adamw", {"decay": 0.1, "eps": 1e-6}, torch.optim.AdamW, {"weight_decay": 0.1, "eps": 1e-6}),
]


@pytest.mark.parametrize(("name", "options", "kind", "theirs"), TORCH)
def test_torch_rules_are_torchs(rules, name: str, options: dict, kind, theirs: dict) -> None:
    ours, other = torch.nn.Parameter(_start(3, 4)), torch.nn.Parameter(_start(3, 4))
    got = _run(rules.make(name, [ours], 0.05, **options), ours, _gradients(3, 4))
    want = _run(kind([other], lr=0.05, foreach=False, **theirs), other, _gradients(3, 4))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_gradient_descent_decays_outside_the_gradient(rules) -> None:
    weight = torch.nn.Parameter(_start(3))
    gradient = _gradients(3)[0]
    want = (1 - 0.1 * 0.2) * weight.detach() - 0.1 * gradient
    torch.testing.assert_close(_run(rules.make("gd", [weight], 0.1, decay=0.2), weight, [gradient]), want)


@pytest.mark.parametrize("name", ["muon", "m3"])
def test_what_is_no_matrix_is_left_to_adamw(rules, name: str) -> None:
    ours, other = torch.nn.Parameter(_start(5)), torch.nn.Parameter(_start(5))
    got = _run(rules.make(name, [ours], 0.05, decay=0.1), ours, _gradients(5))
    want = _run(torch.optim.AdamW([other], lr=0.05, weight_decay=0.1), other, _gradients(5))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def _newton_schulz(matrix: Tensor) -> Tensor:
    """By singular values: the iteration acts on each of them alone."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / (torch.linalg.norm(s) + 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_newton_schulz_acts_on_singular_values(rules, shape: tuple[int, int]) -> None:
    matrix = _start(*shape)
    torch.testing.assert_close(rules.orthogonal(matrix), _newton_schulz(matrix), rtol=1e-9, atol=1e-11)
    singular = torch.linalg.svdvals(rules.orthogonal(matrix))
    assert singular.min() > 0.6
    assert singular.max() < 1.2


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_muon_is_the_reference_form(rules, nesterov: bool, shape: tuple[int, int]) -> None:
    weight = torch.nn.Parameter(_start(*shape))
    got = _run(rules.make("muon", [weight], 0.05, nesterov=nesterov, decay=0.1), weight, _gradients(*shape))
    w, m = _start(*shape), torch.zeros(*shape, dtype=torch.float64)
    for g in _gradients(*shape):
        m = 0.95 * m + 0.05 * g
        u = 0.95 * m + 0.05 * g if nesterov else m
        w = w * (1 - 0.05 * 0.1) - 0.05 * math.sqrt(max(1, shape[0] / shape[1])) * _newton_schulz(u)
    torch.testing.assert_close(got, w, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("accumulate", ["ema", "sum"])
@pytest.mark.parametrize("divide", ["root", "relative"])
def test_m3_is_the_algorithm_of_the_paper(rules, accumulate: str, divide: str) -> None:
    weight = torch.nn.Parameter(_start(4, 3))
    options = {"fast": 0.8, "slow": 0.7, "norm": 0.9, "mix": 0.3, "period": 2, "eps": 1e-6}
    made = rules.make("m3", [weight], 0.05, accumulate=accumulate, divide=divide, **options)
    got = _run(made, weight, _gradients(4, 3))

    w = _start(4, 3)
    gradients = _gradients(4, 3)
    near, far, size = (torch.zeros(4, 3, dtype=torch.float64) for _ in range(3))

    def gather(memory: Tensor, value: Tensor, keep: float) -> Tensor:
        return memory + keep * value if accumulate == "sum" else keep * memory + (1 - keep) * value

    for t, g in enumerate(gradients):
        if t > 0 and t % 2 == 0:  # a block begins: the far memory takes in the block that ended
            block = gradients[t - 2] + gradients[t - 1]
            far = gather(far, block if accumulate == "sum" else block / 2, 0.7)
        near, size = gather(near, g, 0.8), gather(size, g * g, 0.9)
        slow = _newton_schulz(far) if far.any() else far
        root = size.sqrt()
        if divide == "relative":
            root = root / size.mean().sqrt()
        w = w - 0.05 * (_newton_schulz(near) + 0.3 * slow) / (root + 1e-6)
    torch.testing.assert_close(got, w, rtol=1e-8, atol=1e-10)


def test_m3_survives_gradients_that_are_all_zero(rules) -> None:
    weight = torch.nn.Parameter(_start(4, 3))
    zeros = [torch.zeros(4, 3, dtype=torch.float64)] * 5
    for divide in ("root", "relative"):
        got = _run(rules.make("m3", [weight], 0.05, period=2, divide=divide), weight, zeros)
        torch.testing.assert_close(got, _start(4, 3))


def test_stacks_of_matrices_are_taken_one_by_one(rules) -> None:
    stack = torch.nn.Parameter(_start(2, 4, 3))
    gradients = _gradients(2, 4, 3)
    got = _run(rules.make("muon", [{"params": [stack], "matrix": True}], 0.05), stack, gradients)
    for i in range(2):
        one = torch.nn.Parameter(_start(2, 4, 3)[i].clone())
        want = _run(rules.make("muon", [one], 0.05), one, [g[i] for g in gradients])
        torch.testing.assert_close(got[i], want)


def test_an_embedding_is_a_matrix_that_muon_leaves_aside(rules) -> None:
    ours, other = torch.nn.Parameter(_start(3, 4)), torch.nn.Parameter(_start(3, 4))
    got = _run(rules.make("muon", [{"params": [ours], "matrix": False}], 0.05), ours, _gradients(3, 4))
    want = _run(torch.optim.AdamW([other], lr=0.05, weight_decay=0.0), other, _gradients(3, 4))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("form", ["explicit", "implicit"])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4,)])
def test_delta_momentum_erases_before_it_writes(rules, form: str, shape: tuple[int, ...]) -> None:
    rate, beta, eta = 0.05, 0.9, 0.2
    weight = torch.nn.Parameter(_start(*shape))
    made = rules.make("delta_momentum", [weight], rate, beta=beta, eta=eta, form=form)
    got = _run(made, weight, _gradients(*shape))
    w, m = _start(*shape), torch.zeros(*shape, dtype=torch.float64)
    for g in _gradients(*shape):  # in the paper's scale, where the memory holds eta times ours
        gram = g.T @ g if g.ndim == 2 else torch.diag(g * g)
        eye = torch.eye(gram.shape[0], dtype=torch.float64)
        if form == "explicit":
            m = m @ (beta * eye - eta * gram) - eta * g
        else:
            m = (beta * m - eta * g) @ torch.linalg.inv(eye + eta * gram)
        w = w + rate / eta * m
    torch.testing.assert_close(got, w, rtol=1e-9, atol=1e-11)


def test_the_implicit_form_is_stable_where_the_explicit_one_is_not(rules) -> None:
    gradient = [torch.full((3, 3), 10.0, dtype=torch.float64)] * 50
    sizes = {}
    for form in ("explicit", "implicit"):
        weight = torch.nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
        sizes[form] = (
            _run(rules.make("delta_momentum", [weight], 0.1, form=form), weight, gradient).abs().max()
        )
    assert sizes["implicit"] < 10 < 1e6 < sizes["explicit"]


@pytest.mark.parametrize("name", ["gd", "momentum", "adamw", "muon", "m3", "delta_momentum"])
def test_a_rule_goes_on_from_its_state(rules, name: str) -> None:
    gradients = _gradients(4, 3)
    whole = torch.nn.Parameter(_start(4, 3))
    want = _run(rules.make(name, [whole], 0.05), whole, gradients)
    part = torch.nn.Parameter(_start(4, 3))
    first = rules.make(name, [part], 0.05)
    _run(first, part, gradients[:3])
    second = rules.make(name, [part], 0.05)
    second.load_state_dict(first.state_dict())
    assert torch.equal(_run(second, part, gradients[3:]), want)


def test_groups_have_their_own_decay(rules) -> None:
    a, b = torch.nn.Parameter(_start(3)), torch.nn.Parameter(_start(3))
    made = rules.make("adamw", [{"params": [a]}, {"params": [b], "decay": 0.0}], 0.1, decay=0.5)
    assert [group["weight_decay"] for group in made.param_groups] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("rule", "options", "words"),
    [
        ("adamm", {}, "did you mean `adam`, `adamw`"),
        ("zzzzz", {}, "known: `gd`"),
        ("adamw", {"betta1": 0.5}, "did you mean `beta1`"),
        ("m3", {"accumulate": "all"}, "can be `ema` or `sum`"),
        ("m3", {"divide": "all"}, "can be `root` or `relative`"),
        ("m3", {"period": 0}, "1 or more"),
        ("delta_momentum", {"form": "x"}, "can be `implicit` or `explicit`"),
    ],
)
def test_what_does_not_exist_is_said(rules, rule: str, options: dict, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared below
        rules.make(rule, [torch.nn.Parameter(_start(3))], 0.1, **options)
    assert words in str(caught.value)
