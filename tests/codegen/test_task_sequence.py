"""Chains with weights of each sequence, compiled: against a loop over one sequence at a time.

The loop reads a segment with `torch.func.functional_call` and weights that autograd knows, and changes them
by the numbers of the spec.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import nldsl
from nldsl.diagnostics.model import Source
from nldsl.resolve.expanded import ChainInstance, ChainLevel
from tests.codegen.building import built, streamed, tokens
from tests.codegen.naive_rules import Naive

MIXERS = {
    "attention": "SoftmaxAttention(dim, heads = 2)",
    "titans": "Titans(dim, heads = 2)",
    "delta": "GatedDeltaNet(dim, heads = 2)",
    "own": "SelfModifying(dim, heads = 2)",
}
CHAINS = {
    "one": "chain sequential { level only { map = mlp(6), update = every 4 tokens, rate = 0.05 } }",
    "three": """chain sequential {
    level fast { map = mlp(6, residual, norm), update = every 2 tokens, rate = 0.05 }
    level middle { map = swiglu(6), update = every 4 tokens offset 2, rate = 0.04, reduce = mean }
    level slow { map = matrix, update = every 8 tokens, rate = 0.02, retain = 0.9, momentum = 0.5 }
  }""",
    "side by side": """chain independent(combine = weighted) {
    level fast { map = mlp(6), update = every 2 tokens, rate = 0.05 }
    level slow { map = mlp(6), update = every 6 tokens, rate = 0.05 }
  }""",
    "nested": """chain nested {
    level fast { map = mlp(6, residual), update = every 2 tokens, rate = 0.05 }
    level slow { map = mlp(6, residual), update = every 6 tokens, rate = 0.05, momentum = 0.5 }
  }""",
    "returning": """chain sequential {
    level fast { map = mlp(6), update = every 2 tokens, rate = 0.05, retain = 0.9, reset = with slow }
    level slow { map = mlp(6), update = every 4 tokens, rate = 0.05, reset = every 6 tokens }
  }""",
    "ruled": """chain sequential {
    level fast { map = mlp(6), update = every 2 tokens, rate = 0.05, rule = adam, reset = with slow
      reduce = mean }
    level slow { map = matrix, update = every 4 tokens offset 2, rate = 0.04, rule = softened, retain = 0.9 }
  }""",
    "ruled and nested": """chain nested {
    level fast { map = mlp(6, residual), update = every 2 tokens, rate = 0.05, rule = nesterov(0.5) }
    level slow { map = mlp(6, residual), update = every 6 tokens, rate = 0.05, rule = softened(0.5) }
  }""",
    "heavy": """chain sequential {
    level only { map = mlp(6), update = every 4 tokens, rate = 0.05, rule = heavy(0.5), retain = 0.9 }
  }""",
}
LENGTH = 15


@cache
def spec(mixer: str, chain: str, gradient: str) -> nldsl.Spec:
    text = f"""edition 2026

import [SoftmaxAttention, Titans, GatedDeltaNet, SelfModifying] from std

optimizer softened(rate, beta = 0.9) {{
  memory average {{ map = vector, value = grad, objective = l2, rate = 1 - beta }}
  weight = weight - rate * average / (abs(average) + 0.1)
}}

optimizer heavy(rate, beta = 0.9) {{
  memory average {{ map = vector, value = grad, objective = l2, rate = 1 - beta }}
  weight = weight - rate * average
}}

memory Store(dim) {{
  objective = task
  scope     = sequence
  gradient  = {gradient}
  {CHAINS[chain]}
}}

block Block(dim) {{
  mixer: x = x + (x |> rmsnorm |> {MIXERS[mixer]})
  store: x = x + (x |> rmsnorm |> Store(dim))
}}

model Small(dim = 8, vocab = 11) {{
  tokens |> embed(vocab, dim) |> repeat(2, Block(dim)) |> rmsnorm |> unembed(tied)
}}
"""
    return nldsl.load(Source("store.nl", text))


# --------------------------------------------------------------------------- the loop


class Still(nn.Module):
    """A model while its weights stand still."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, given: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.model.read(given, state)


class Fast:
    """The weights of one level for one sequence, where they start, and what waits for their clock."""

    def __init__(self, level: ChainLevel, chain: ChainInstance, start: dict[str, Tensor]) -> None:
        self.level, self.weights, self.start = level, dict(start), dict(start)
        self.parent = next((one for one in chain.levels if one.name == level.reset_with), None)
        self.teacher = self.parent if level.start == "learned in" else None
        self.moment, self.total, self.count = self.rested(level), self.zeros(), 0
        self.above, self.above_moment = self.zeros(), self.rested(self.teacher or level)
        self.above_count = 0

    def zeros(self) -> dict[str, Tensor]:
        return {name: torch.zeros_like(one) for name, one in self.start.items()}

    def rested(self, level: ChainLevel) -> dict[str, Any]:
        """What the rule of a level keeps for each weight, before its first update."""
        assert level.rule is not None
        rule = level.rule.algorithm
        if rule is None:
            return self.zeros()
        return {name: Naive(rule, one, dict(rule.options)) for name, one in self.start.items()}

    def take(self, gradient: dict[str, Tensor], count: int) -> None:
        for name, one in gradient.items():
            self.total[name] = self.total[name] + one
            self.above[name] = self.above[name] + one
        self.count, self.above_count = self.count + count, self.above_count + count

    def change(self, position: int) -> None:
        if due(self.level, position):
            self.weights, self.moment = stepped(self.level, self.weights, self.moment, self.total, self.count)
            self.total, self.count = self.zeros(), 0
        if self.teacher is not None and due(self.teacher, position):
            self.start, self.above_moment = stepped(
                self.teacher, self.start, self.above_moment, self.above, self.above_count
            )
            self.above, self.above_count = self.zeros(), 0
        if returns(self.level, position) or (
            self.parent is not None and (due(self.parent, position) or returns(self.parent, position))
        ):
            self.weights, self.moment = dict(self.start), self.rested(self.level)
            self.total, self.count = self.zeros(), 0


def due(level: ChainLevel, position: int) -> bool:
    first = level.clock.offset or level.clock.period
    return position >= first and (position - first) % level.clock.period == 0


def returns(level: ChainLevel, position: int) -> bool:
    return level.reset is not None and position % level.reset.period == 0


def stepped(
    level: ChainLevel,
    weights: dict[str, Tensor],
    moment: dict[str, Any],
    total: dict[str, Tensor],
    count: int,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    assert level.rate is not None and level.rule is not None
    if level.rule.algorithm is not None:
        made, share = {}, count if level.reduce == "mean" else 1
        for name, naive in moment.items():
            naive.weight = level.retain * weights[name]
            made[name] = naive.step(total[name] / share, level.rate)
        return made, moment
    rate = level.rate / (count if level.reduce == "mean" else 1)
    moment = {name: level.momentum * moment[name] - rate * total[name] for name in moment}
    return {name: level.retain * weights[name] + moment[name] for name in weights}, moment


def looped(model: Any, found: nldsl.Spec, given: Tensor, *, through: bool) -> Tensor:
    """Logits `[T, vocab]` of one sequence."""
    assert found.expanded.model is not None
    chains = [one for one, _ in found.expanded.instances() if isinstance(one, ChainInstance)]
    still, named = Still(model), dict(model.named_parameters())
    fast: list[Fast] = []
    for chain in chains:
        for level in chain.levels:
            for block in range(2):
                place = f"blocks.{block}.store.{level.name}."
                own = {
                    n: p for n, p in named.items() if n.startswith(place) and not n.endswith("norm.weight")
                }
                fast.append(Fast(level, chain, own))
    assert sum(len(one.weights) for one in fast) > 0
    ends = [t for t in range(1, len(given)) if any(_ends(one, t) for one in fast)]
    state, logits = None, []
    for begin, end in zip([0, *ends], [*ends, len(given)], strict=True):
        weights = {name: one.view_as(one) for level in fast for name, one in level.weights.items()}
        piece, state = functional_call(
            still, {f"model.{n}": w for n, w in weights.items()}, (given[None, begin:end], state)
        )
        logits.append(piece[0])
        if end == len(given):
            break
        loss = F.cross_entropy(piece[0], given[begin + 1 : end + 1], reduction="sum")
        # Only this segment reads these weights, so what flowed in from before is held constant.
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=through, retain_graph=True)
        by_name = dict(zip(weights, gradients, strict=True))
        for level in fast:
            level.take({name: by_name[name] for name in level.weights}, end - begin)
            level.change(end)
    return torch.cat(logits)


def _ends(one: Fast, position: int) -> bool:
    return due(one.level, position) or returns(one.level, position)


# --------------------------------------------------------------------------- tests


def outer_gradients(model: nn.Module, logits: Tensor, given: Tensor) -> dict[str, Tensor]:
    weights = torch.linspace(0.5, 1.5, given.shape[1], dtype=torch.float64)
    loss = (F.cross_entropy(logits.mT, given.roll(-1, 1), reduction="none") * weights).mean()
    names, every = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, every, materialize_grads=True), strict=True))


@pytest.mark.parametrize("gradient", ["first_order", "through"])
@pytest.mark.parametrize(
    ("mixer", "chain"), [("attention", chain) for chain in CHAINS] + [(mixer, "three") for mixer in MIXERS]
)
def test_a_compiled_chain_learns_as_the_loop_does(mixer: str, chain: str, gradient: str) -> None:
    found = spec(mixer, chain, gradient)
    model = built(found)
    given = tokens(model, LENGTH)
    logits, _ = model(given)
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        wanted = torch.stack([looped(model, found, one, through=gradient == "through") for one in given])
    torch.testing.assert_close(logits, wanted, rtol=1e-9, atol=1e-11)
    mine, other = outer_gradients(model, logits, given), outer_gradients(model, wanted, given)
    for name, one in other.items():
        torch.testing.assert_close(mine[name], one, rtol=1e-8, atol=1e-11, msg=name)


@pytest.mark.parametrize(
    ("mixer", "chain"),
    [(mixer, "three") for mixer in MIXERS] + [("delta", "ruled"), ("delta", "ruled and nested")],
)
@pytest.mark.parametrize("cuts", [(1,) * LENGTH, (4, 4, 4, 3), (7, 1, 7)])
def test_a_compiled_chain_streams(mixer: str, chain: str, cuts: tuple[int, ...]) -> None:
    model = built(spec(mixer, chain, "first_order"))
    given = tokens(model, LENGTH)
    with torch.no_grad():
        whole, _ = model(given)
        torch.testing.assert_close(streamed(model, given, cuts)[0], whole, rtol=1e-9, atol=1e-11)
