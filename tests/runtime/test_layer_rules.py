"""Rules that read what linear layers are given: against closed forms, over open periods, and resumed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

import nldsl

torch.set_num_threads(1)


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def _first(model: nn.Sequential) -> nn.Linear:
    layer = model[0]
    assert isinstance(layer, nn.Linear)
    return layer


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def _loss(model: nn.Module, seed: int) -> Tensor:
    return (model(_noise(seed, 2, 6, 4)) - _noise(seed + 1, 2, 6, 3)).square().mean()


@pytest.mark.parametrize("form", ["implicit", "explicit"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_dgd_is_the_closed_form(form: str, decay: float) -> None:
    """W (I - n x x^T) - n g, and for the implicit form the exact step on the mean over tokens."""
    model = _model()
    made = nldsl.rule("dgd", model, 0.1, form=form, decay=decay)
    layer = _first(model)
    for step in range(3):
        weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        loss = _loss(model, 10 * step)
        made.zero_grad()
        loss.backward()
        x = _noise(10 * step, 2, 6, 4).flatten(0, 1)
        gram, eye = x.T @ x / len(x), torch.eye(4, dtype=torch.float64)
        gradient, moved = _gradients(model)[:2]
        made.step()
        if form == "explicit":
            want = weight @ (eye - 0.1 * gram) - 0.1 * gradient
        else:
            want = (weight - 0.1 * gradient) @ torch.linalg.inv(eye + 0.1 * gram)
        torch.testing.assert_close(layer.weight.detach(), want - 0.1 * decay * weight, rtol=1e-11, atol=1e-12)
        left = (1 - 0.1 * decay) * bias - 0.1 * moved
        torch.testing.assert_close(layer.bias.detach(), left, rtol=1e-12, atol=1e-14)


def test_one_token_is_sherman_and_morrisons_step() -> None:
    layer = nn.Linear(4, 3, bias=False).double()
    made = nldsl.rule("dgd", layer, 0.3)
    x, u = _noise(1, 1, 4), _noise(2, 1, 3)
    weight = layer.weight.detach().clone()
    (layer(x) * u).sum().backward()
    made.step()
    small = 0.3 / (1 + 0.3 * x.square().sum())
    want = weight @ (torch.eye(4, dtype=torch.float64) - small * x.T @ x) - small * u.T @ x
    torch.testing.assert_close(layer.weight.detach(), want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["dgd", "deep_momentum"])
def test_what_is_gathered_over_a_period_is_a_mean_over_its_tokens(name: str) -> None:
    """Two halves of a batch, each scaled as its share, are the whole batch."""
    options: dict[str, Any] = {"by": "input"} if name == "deep_momentum" else {}
    whole, halves = _model(), _model()
    one, two = (nldsl.rule(name, model, 0.1, **options) for model in (whole, halves))
    for step in range(2):
        inputs, wanted = _noise(10 * step, 2, 6, 4), _noise(10 * step + 1, 2, 6, 3)
        one.zero_grad()
        two.zero_grad()
        (whole(inputs) - wanted).square().mean().backward()
        with torch.no_grad():
            halves(inputs)  # what is only looked at is not gathered
        for part in (0, 1):
            ((halves(inputs[part]) - wanted[part]).square().mean() / 2).backward()
        one.step()
        two.step()
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_sums_and_means_of_sequences_go_with_their_gradients() -> None:
    """Gradients of two sequences summed: the Gram matrix counts twice; averaged: once."""
    for reduce in ("mean", "sum"):
        model = _model()
        made: Any = nldsl.rule("dgd", model, 0.1, form="explicit")
        weight = _first(model).weight.detach().clone()
        for seed in (0, 10):
            _loss(model, seed).backward()
        if reduce == "mean":
            for gathered in _gradients(model):
                gathered.div_(2)
        made.settle(1.0, 0.5) if reduce == "mean" else made.settle(2.0, 1.0)
        gradient = _gradients(model)[0]
        made.step()
        x = torch.cat([_noise(seed, 2, 6, 4).flatten(0, 1) for seed in (0, 10)])
        gram = x.T @ x / len(x) * (1 if reduce == "mean" else 2)
        want = weight - 0.1 * (gradient + weight @ gram)
        torch.testing.assert_close(_first(model).weight.detach(), want, rtol=1e-11, atol=1e-12)


def test_deep_momentum_by_input_follows_the_slope_of_what_it_learned() -> None:
    """It regresses inputs to minus the errors of single tokens; the weights follow its mean Jacobian."""
    model = _model()
    made = nldsl.rule("deep_momentum", model, 0.1, by="input", beta=0.9, eta=0.05, hidden=6)
    layer = _first(model)
    state = made.state[layer.weight]
    for step in range(4):
        kept = [0.9 * state[f"momentum_{i}"] for i in (1, 2)] if step else []
        weight = layer.weight.detach().clone()
        errors: list[Tensor] = []

        def look(_module: nn.Module, _given: Any, out: Tensor, errors: list[Tensor] = errors) -> None:
            out.register_hook(errors.append)

        handle = layer.register_forward_hook(look)
        made.zero_grad()
        _loss(model, 10 * step).backward()
        handle.remove()
        made.step()
        if not step:
            continue
        x, wanted = _noise(10 * step, 2, 6, 4).flatten(0, 1), -errors[0].flatten(0, 1) * 12

        def net(layers: list[Tensor], rows: Tensor) -> Tensor:
            return gelu(rows @ layers[0].T) @ layers[1].T

        def loss(layers: list[Tensor], x: Tensor = x, wanted: Tensor = wanted) -> Tensor:
            return (net(layers, x) - wanted).square().sum() / 2 / 12

        slopes = torch.func.grad(loss)(kept)
        layers = [a - 0.05 * b for a, b in zip(kept, slopes, strict=True)]
        torch.testing.assert_close(state["momentum_1"], layers[0], rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(state["momentum_2"], layers[1], rtol=1e-11, atol=1e-13)
        tokens = [torch.func.jacrev(lambda row, layers=layers: net(layers, row))(row) for row in x]
        want = weight + 0.1 * torch.stack(tokens).mean(0)
        torch.testing.assert_close(layer.weight.detach(), want, rtol=1e-11, atol=1e-13)


LINEAR = """
edition 2026
optimizer mine(rate, beta = 0.9) {
  memory m { map = matrix, key = input, value = -error, objective = dot, rate = 1, retain = beta }
  weight = weight + rate * m
}
"""


def test_with_a_matrix_and_the_dot_product_it_is_momentum() -> None:
    from nldsl.api.reading import linked
    from nldsl.api.rules import rule_of
    from nldsl.diagnostics.model import Source

    ours, plain = nn.Linear(4, 3, bias=False).double(), nn.Linear(4, 3, bias=False).double()
    plain.load_state_dict(ours.state_dict())
    module = linked(Source("mine.nl", LINEAR), None).module
    made = rule_of(module, "mine", ours, 0.1, {})
    theirs = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    for step in range(5):
        for model, optimizer in ((ours, made), (plain, theirs)):
            optimizer.zero_grad()
            _loss(model, 10 * step).backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, plain.weight, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["dgd", "deep_momentum"])
def test_an_open_period_is_part_of_the_state(name: str) -> None:
    options: dict[str, Any] = {"by": "input"} if name == "deep_momentum" else {}
    whole = _model()
    made = nldsl.rule(name, whole, 0.1, **options)
    _loss(whole, 0).backward()
    kept, gradients = copy.deepcopy(made.state_dict()), [g.clone() for g in _gradients(whole)]
    resumed = _model()
    again = nldsl.rule(name, resumed, 0.1, **options)
    again.load_state_dict(kept)
    for parameter, gradient in zip(resumed.parameters(), gradients, strict=True):
        parameter.grad = gradient
    for model, optimizer in ((whole, made), (resumed, again)):
        _loss(model, 10).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_rule_that_saw_no_layer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = nldsl.rule("dgd", _model(), 0.1)
    weight = nn.Parameter(_noise(0, 3, 4))
    weight.grad = _noise(1, 3, 4)
    alone = type(made)([weight], 0.1)
    monkeypatch.setattr(type(made), "otherwise", None)
    with pytest.raises(ValueError, match="call `watch"):
        alone.step()
