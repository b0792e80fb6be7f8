"""Levels of the task with weights of each sequence, against token-by-token streams without the kernels.

The naive form knows one sequence, keeps plain weights, reads one token at a time, and when a segment ends
runs it again for `torch.func.grad` of its own loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nldsl.codegen.engines.parts import activate
from nldsl.codegen.engines.task_levels import Learning, TaskMatrix, TaskMLP, TaskSwiGLU, is_due, next_due
from nldsl.codegen.engines.task_sequence import learn_in_sequence

VOCAB, DIM, HIDDEN = 5, 4, 6
Weights = dict[str, list[Tensor]]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_num_threads(1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Toy(nn.Module):
    """Embeddings, a running average with a learned decay, levels of the task after it, logits."""

    def __init__(self, levels: dict[str, nn.Module], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(VOCAB, DIM)
        self.decay = nn.Parameter(torch.tensor(0.3))
        self.levels = nn.ModuleDict(levels)
        self.out = nn.Linear(DIM, VOCAB)
        for one in self.parameters():
            if one.dim() > 1:
                nn.init.normal_(one, std=0.6)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return learn_in_sequence(self, self.read, tokens, state)

    def read(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        x = self.embed(tokens)
        h = x.new_zeros(x.shape[0], DIM) if state is None else state["h"]
        seen = []
        for t in range(x.shape[1]):
            h = self.decay * h + x[:, t]
            seen.append(h)
        y = torch.stack(seen, dim=1) if seen else x
        for level in self.levels.values():
            y = level(y)
        return self.out(y), {"h": h}


def known(level: nn.Module) -> TaskMLP | TaskSwiGLU | TaskMatrix:
    assert isinstance(level, TaskMLP | TaskSwiGLU | TaskMatrix)
    return level


def learned(level: nn.Module) -> Learning:
    return known(level).learning


# --------------------------------------------------------------------------- the naive form


def answer(level: nn.Module, weights: list[Tensor], y: Tensor) -> Tensor:
    """One level on a vector."""
    if isinstance(level, TaskMLP):
        z = y if level.norm is None else F.rms_norm(y, (DIM,), level.norm.weight)
        for n, w in enumerate(weights):
            z = w @ (activate(level.activation, z) if n else z)
        return y + z if level.residual else z
    if isinstance(level, TaskSwiGLU):
        return weights[2] @ (F.silu(weights[0] @ y) * (weights[1] @ y))
    return weights[0] @ y


def step(model: Toy, weights: Weights, h: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
    h = model.decay * h + model.embed.weight[token]
    y = h
    for name, level in model.levels.items():
        y = answer(level, weights[name], y)
    return model.out.weight @ y + model.out.bias, h


def segment_loss(weights: Weights, model: Toy, h: Tensor, tokens: Tensor, labels: Tensor) -> Tensor:
    total = torch.zeros(())
    for token, label in zip(tokens, labels, strict=True):
        logits, h = step(model, weights, h, token)
        total = total - logits.log_softmax(-1)[label]
    return total


def naive(model: Toy, tokens: Tensor) -> Tensor:
    """Logits `[T, vocab]` of one sequence."""
    levels = dict(model.levels.items())
    starts: Weights = {name: [one.weight for one in known(level).starts()] for name, level in levels.items()}
    weights = {name: list(found) for name, found in starts.items()}
    origins = {name: list(found) for name, found in starts.items()}
    zero = {name: [torch.zeros_like(w) for w in found] for name, found in starts.items()}
    moment, total = {n: list(z) for n, z in zero.items()}, {n: list(z) for n, z in zero.items()}
    above, above_moment = {n: list(z) for n, z in zero.items()}, {n: list(z) for n, z in zero.items()}
    counts, above_counts = dict.fromkeys(levels, 0), dict.fromkeys(levels, 0)
    h = torch.zeros(DIM)
    begun, entered, given = 0, h, []
    for t, token in enumerate(tokens):
        ends = t > 0 and any(is_due(t, *c) for level in levels.values() for c in learned(level).clocks())
        if ends:
            # The label of position t - 1 is this token.
            loss = torch.func.grad(segment_loss)(
                weights, model, entered, tokens[begun:t], tokens[begun + 1 : t + 1]
            )
            for name, level in levels.items():
                own = learned(level)
                g = loss[name] if own.gradient == "through" else [one.detach() for one in loss[name]]
                total[name] = [a + b for a, b in zip(total[name], g, strict=True)]
                above[name] = [a + b for a, b in zip(above[name], g, strict=True)]
                counts[name] += t - begun
                above_counts[name] += t - begun
            for name, level in levels.items():
                own = learned(level)
                if is_due(t, own.period, own.offset):
                    rate = own.rate / (counts[name] if own.reduce == "mean" else 1)
                    for n, g in enumerate(total[name]):
                        moment[name][n] = own.momentum * moment[name][n] - rate * g
                        weights[name][n] = own.retain * weights[name][n] + moment[name][n]
                    total[name], counts[name] = list(zero[name]), 0
                if own.origin is not None and is_due(t, own.origin.period, own.origin.offset):
                    rate = own.origin.rate / (above_counts[name] if own.origin.reduce == "mean" else 1)
                    for n, g in enumerate(above[name]):
                        above_moment[name][n] = own.origin.momentum * above_moment[name][n] - rate * g
                        origins[name][n] = own.origin.retain * origins[name][n] + above_moment[name][n]
                    above[name], above_counts[name] = list(zero[name]), 0
                if any(is_due(t, *clock) for clock in own.resets):
                    weights[name] = list(origins[name])
                    moment[name], total[name], counts[name] = list(zero[name]), list(zero[name]), 0
            begun, entered = t, h
        logits, h = step(model, weights, h, token)
        given.append(logits)
    return torch.stack(given)


# --------------------------------------------------------------------------- cases


def mlp(learning: Learning, **options: Any) -> TaskMLP:
    return TaskMLP(DIM, HIDDEN, learning=learning, **options)


def full(learning: Learning) -> TaskMLP:
    return mlp(learning, residual=True, norm=True)


CASES: dict[str, Callable[[str], dict[str, nn.Module]]] = {
    "one level": lambda g: {"a": mlp(Learning(4, 0.1, gradient=g))},
    "three clocks": lambda g: {
        "a": full(Learning(2, 0.1, gradient=g)),
        "b": full(Learning(4, 0.05, gradient=g, reduce="mean")),
        "c": full(Learning(8, 0.02, gradient=g)),
    },
    "clocks that do not nest": lambda g: {
        "a": full(Learning(3, 0.1, gradient=g)),
        "b": full(Learning(5, 0.05, gradient=g)),
    },
    "retain and momentum": lambda g: {
        "a": full(Learning(3, 0.1, retain=0.9, momentum=0.8, gradient=g)),
        "b": full(Learning(6, 0.1, retain=0.7, gradient=g, reduce="mean")),
    },
    "offset": lambda g: {"a": full(Learning(4, 0.1, offset=3, reduce="mean", gradient=g))},
    "other maps": lambda g: {
        "a": TaskMatrix(DIM, learning=Learning(2, 0.1, gradient=g)),
        "b": TaskSwiGLU(DIM, HIDDEN, learning=Learning(3, 0.1, retain=0.95, gradient=g)),
    },
    "period above the sequence": lambda g: {"a": full(Learning(64, 0.1, gradient=g))},
    "resets": lambda g: {
        "a": full(Learning(2, 0.2, retain=0.9, momentum=0.5, gradient=g, resets=((5, 0), (8, 0)))),
        "b": full(Learning(4, 0.1, retain=0.9, gradient=g, resets=((8, 0),))),
    },
    "a start that a slower level teaches": lambda g: {
        "a": full(
            Learning(
                2,
                0.2,
                retain=0.9,
                gradient=g,
                resets=((4, 0),),
                origin=Learning(4, 0.1, 0, 0.8, 0.5, "mean", g),
            )
        ),
        "b": full(Learning(4, 0.1, gradient=g)),
    },
}
EACH = pytest.mark.parametrize("case", CASES)
GRADIENTS = pytest.mark.parametrize("gradient", ["first_order", "stop", "through"])


def tokens_of(batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def outer(logits: Tensor, tokens: Tensor) -> Tensor:
    """A loss in which every position counts differently."""
    weights = torch.linspace(0.5, 1.5, tokens.shape[1])
    return (F.cross_entropy(logits.mT, tokens.roll(-1, 1), reduction="none") * weights).mean()


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True))


def assert_close(found: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@EACH
@GRADIENTS
def test_logits_and_outer_gradients_are_those_of_the_token_stream(case: str, gradient: str) -> None:
    model = Toy(CASES[case](gradient))
    tokens = tokens_of(2, 17)
    logits, _ = model(tokens)
    wanted = torch.stack([naive(model, one) for one in tokens])
    assert_close([logits], [wanted])
    assert_close(gradients(model, outer(logits, tokens)), gradients(model, outer(wanted, tokens)))


@EACH
@GRADIENTS
@pytest.mark.parametrize("cuts", [(1,) * 17, (3, 1, 9, 4), (16, 1), (8, 8, 1)])
def test_calls_of_any_length_are_one_call(case: str, gradient: str, cuts: tuple[int, ...]) -> None:
    model = Toy(CASES[case](gradient))
    tokens = tokens_of(2, 17)
    whole, last = model(tokens)
    state, pieces = None, []
    for piece in tokens.split(cuts, dim=1):
        logits, state = model(piece, state)
        pieces.append(logits)
    parted = torch.cat(pieces, dim=1)
    assert_close([parted], [whole])
    assert_close(list(leaves(state)), list(leaves(last)))
    assert_close(gradients(model, outer(parted, tokens)), gradients(model, outer(whole, tokens)))
    with torch.no_grad():
        silent, after = model(tokens)
    assert_close([silent, *leaves(after)], [whole, *leaves(last)])
    assert not any(one.requires_grad for one in leaves(after))


def leaves(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for one in state.values() if isinstance(state, dict) else state:
            yield from leaves(one)


@EACH
def test_a_sequence_of_a_batch_is_as_if_alone(case: str) -> None:
    model = Toy(CASES[case]("first_order"))
    tokens = tokens_of(3, 14)
    together, _ = model(tokens)
    for n in range(3):
        alone, _ = model(tokens[n : n + 1])
        assert_close([together[n : n + 1]], [alone])


@EACH
def test_no_token_sees_a_later_one(case: str) -> None:
    model = Toy(CASES[case]("first_order"))
    tokens = tokens_of(1, 14)
    before, _ = model(tokens)
    for t, other in itertools.product(range(1, 14), range(VOCAB)):
        changed = tokens.clone()
        changed[0, t] = other
        after, _ = model(changed)
        assert torch.equal(after[:, :t], before[:, :t])


@EACH
@GRADIENTS
def test_at_rate_zero_it_is_the_plain_model(case: str, gradient: str) -> None:
    made = CASES[case](gradient)
    for level in made.values():
        known(level).learning = replace(learned(level), rate=0.0, retain=1.0, origin=None)
    model = Toy(made)
    tokens = tokens_of(2, 13)
    logits, _ = model(tokens)
    plain, _ = model.read(tokens)
    assert_close([logits], [plain])
    assert_close(gradients(model, outer(logits, tokens)), gradients(model, outer(plain, tokens)))


def test_one_token_and_none() -> None:
    model = Toy(CASES["three clocks"]("first_order"))
    logits, state = model(tokens_of(2, 1))
    assert logits.shape == (2, 1, VOCAB)
    none, same = model(tokens_of(2, 0), state)
    assert none.shape == (2, 0, VOCAB)
    assert_close(list(leaves(same)), list(leaves(state)))


def test_the_update_of_a_boundary_waits_for_its_last_label() -> None:
    model = Toy(CASES["one level"]("first_order"))
    tokens = tokens_of(1, 5)
    _, early = model(tokens[:, :4])
    start = known(model.levels["a"]).starts()[0].weight
    assert torch.equal(early["levels"]["levels.a"]["running"]["weights"][0][0], start)
    _, late = model(tokens)
    assert not torch.equal(late["levels"]["levels.a"]["running"]["weights"][0][0], start)


def test_it_learns_in_inference_mode_too() -> None:
    model = Toy(CASES["three clocks"]("first_order"))
    tokens = tokens_of(2, 13)
    whole, _ = model(tokens)
    with torch.inference_mode():
        early, state = model(tokens[:, :6])
        late, _ = model(tokens[:, 6:], state)
    assert_close([torch.cat((early, late), dim=1)], [whole])


def test_it_learns_from_half_precision_with_weights_in_full() -> None:
    model = Toy(CASES["three clocks"]("first_order")).float()
    tokens = tokens_of(2, 13)
    wide, _ = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        narrow, state = model(tokens)
    assert (narrow.float() - wide).norm() < 0.1 * wide.norm()
    kept = state["levels"]["levels.a"]["running"]["weights"]
    assert all(one.dtype == torch.float32 for one in kept)


def test_outer_gradients_come_twice_from_one_graph() -> None:
    model = Toy(CASES["retain and momentum"]("first_order"))
    tokens = tokens_of(2, 13)
    loss = outer(model(tokens)[0], tokens)
    first = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    again = torch.autograd.grad(loss, list(model.parameters()))
    assert_close(list(again), list(first))


def test_frozen_starts_learn_within_the_sequence_all_the_same() -> None:
    model = Toy(CASES["three clocks"]("first_order"))
    tokens = tokens_of(2, 13)
    whole, _ = model(tokens)
    model.requires_grad_(False)
    still, _ = model(tokens)
    assert_close([still], [whole])


def test_due_times_of_clocks() -> None:
    assert [t for t in range(20) if is_due(t, 4, 0)] == [4, 8, 12, 16]
    assert [t for t in range(20) if is_due(t, 4, 3)] == [3, 7, 11, 15, 19]
    assert [next_due(t, 4, 3) for t in (0, 2, 3, 6, 7)] == [3, 3, 7, 7, 11]
