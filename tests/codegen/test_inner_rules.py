"""Declared rules inside the sequence: against loops by hand, against the words that they are."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import nldsl
from nldsl.api import planned
from nldsl.codegen.engines.momentum import heavy_ball
from nldsl.codegen.engines.reference import token_loop
from nldsl.codegen.plan.engines import ENGINES, TOKEN_LOOP, choose
from nldsl.resolve.expanded import MemoryInstance
from tests.codegen.building import built
from tests.codegen.naive_rules import Naive
from tests.engines.compare import inputs, rand

torch.set_num_threads(1)
FLUSH_DENORMAL = True

B, H, T, D, E = 1, 2, 7, 3, 3

RULES = """
optimizer lion(rate, beta1 = 0.9, beta2 = 0.99, decay = 0.0) {
  memory average { map = vector, value = grad, objective = l2, rate = 1 - beta2, read = before }
  weight = weight * (1 - rate * decay) - rate * sign(beta1 * average + (1 - beta1) * grad)
}
optimizer capped(rate, most = 0.5) {
  weight = weight - min(rate, most) * sqrt(max(rate, 0.1)) * grad / (1 + norm(grad))
}
optimizer forgetful(rate) {
  weight = solve(weight - rate * grad, identity(columns) + rate * gram(input))
}
optimizer turned(rate, beta = 0.9) {
  memory velocity { map = vector, value = grad, objective = l2, rate = 1 - beta }
  weight = weight - rate * sqrt(max(1, rows / columns)) * orthogonal(velocity, 2)
  otherwise adamw(rate * 2, beta1 = beta)
}
optimizer heavy(rate, b = 0.9) {
  memory velocity { map = vector, value = 2 * rate * grad, objective = dot, rate = 1, retain = b }
  weight = weight - velocity / 2
}
optimizer ball(rate, b = 0.9) {
  memory velocity { map = vector, value = grad, objective = l2, rate = 1 - b }
  weight = weight - rate * velocity
}
optimizer halved(rate) {
  half = grad / 2
  weight = weight - rate * half
}
optimizer square(rate, beta = 0.9) {
  memory velocity { map = vector, value = grad, objective = dot, rate = 1, retain = beta }
  weight = weight - rate * sqrt(max(1, rows / columns)) * orthogonal(-velocity) * -1
}
"""


def memory(tmp_path: Path, rule: str, fields: str = "", rate: str = "x |> linear(heads) |> sigmoid") -> Any:
    """A spec with one memory that learns by `rule`."""
    text = f"""edition 2026
{RULES}
memory Mixer(dim, heads = {H}) {{
  key = x |> linear |> unit
  value = x |> linear
  query = x |> linear |> unit
  rate = {rate}
  retain = 0.9
  rule = {rule}
  {fields}
}}
model Small(dim = {D * H}, vocab = 11) {{
  tokens |> embed(vocab, dim) |> Mixer(dim) |> unembed(tied)
}}
"""
    path = tmp_path / "one.nl"
    path.write_text(text)
    return nldsl.load(path)


def core(tmp_path: Path, rule: str, fields: str = "", **more: str) -> nldsl.Core:
    """Its core, token by token."""
    made = nldsl.core(memory(tmp_path, rule, fields, **more), lowering="reference")
    assert isinstance(made, nldsl.Core)
    return made


def instance(spec: Any) -> MemoryInstance:
    """The one memory of a spec."""
    return next(i for i, _ in spec.expanded.instances() if isinstance(i, MemoryInstance))


def by_hand(rule: Any, given: dict[str, Tensor], start: Tensor, gradient: str = "through") -> Tensor:
    """The reads of a matrix under `l2`: for each sequence and head, one weight after the other."""
    reads = []
    for b, h in itertools.product(range(B), range(H)):
        own = {name: tensor[b, h] for name, tensor in given.items()}
        naive, weight = Naive(rule, start[h], dict(rule.options)), start[h]
        for t in range(T):
            key, value = own["key"][t], own["value"][t]
            kept = own["retain"][t] * weight
            at = kept.detach() if gradient == "first_order" else kept
            grad = torch.outer(at @ key - value, key)
            naive.weight = kept
            seen = {"input": key[None]} if rule.of_layers else {}
            weight = naive.step(grad, own["rate"][t], **seen)  # type: ignore[arg-type]
            reads.append(weight @ own["query"][t])
    return torch.stack(reads).view(B, H, T, -1)


def slopes(read: Tensor, given: dict[str, Tensor], start: Tensor) -> list[Tensor]:
    """The gradients of everything that goes in."""
    ramp = torch.linspace(0.3, 1.1, read.numel(), dtype=read.dtype).view(read.shape)
    return list(torch.autograd.grad((read.sin() * ramp).sum(), [*given.values(), start]))


CALLS = [
    "adamw(beta1 = 0.8, decay = 0.1)",
    "adam",
    "nesterov(0.8)",
    "rmsprop(momentum = 0.5)",
    "adagrad",
    "m3(period = 3 steps, divide = relative)",
    "delta_momentum(eta = 0.5)",
    "delta_momentum(form = explicit)",
    "lion(beta1 = 0.8, decay = 0.2)",
    "capped",
    "forgetful",
    "turned",
]


@pytest.mark.parametrize("gradient", ["through", "first_order"])
@pytest.mark.parametrize("call", CALLS)
def test_a_rule_token_by_token(call: str, gradient: str, tmp_path: Path) -> None:
    one = core(tmp_path, call, f"gradient = {gradient}")
    rule = one.memory.core.optimizer
    assert rule is not None
    given, start = inputs(B, H, T, D, E, seed=3), rand(H, E, D, seed=9)
    given["rate"] = (given["rate"].detach() + 0.05).requires_grad_()
    read, state = one(**given, start=start)
    wanted = by_hand(rule, given, start, gradient)
    torch.testing.assert_close(read, wanted, rtol=1e-9, atol=1e-10)
    for found, known in zip(slopes(read, given, start), slopes(wanted, given, start), strict=True):
        torch.testing.assert_close(found, known, rtol=1e-7, atol=1e-8)
    pieces, before = [], None
    for begin, end in itertools.pairwise((0, 1, 4, T)):
        piece = {name: tensor[:, :, begin:end] for name, tensor in given.items()}
        begins = {"start": start} if before is None else {}
        part, before = one(**piece, state=before, **begins)
        pieces.append(part)
    torch.testing.assert_close(torch.cat(pieces, 2), read, rtol=1e-10, atol=1e-12)
    assert before is not None and set(before) == set(state)
    assert int(state["step"]) == T


def test_a_deep_rule_starts_as_in_the_outer_loop(tmp_path: Path) -> None:
    """Each row of the gradient is asked for, and taught minus itself, by an mlp."""
    one = core(tmp_path, "deep_momentum(beta = 0.7, eta = 0.2, hidden = 4)")
    given, start = inputs(1, 1, 3, D, E, seed=5), rand(1, E, D, seed=9)
    read, _ = one(**given, start=start)
    own = {name: tensor[0, 0] for name, tensor in given.items()}
    first, last, weight, reads = torch.eye(4, D).double(), torch.zeros(D, 4).double(), start[0], []
    first[3, 0] = -1.0

    def said(layers: tuple[Tensor, Tensor], rows: Tensor) -> Tensor:
        return rows + F.gelu(rows @ layers[0].T) @ layers[1].T

    layers = (first, last)
    for t in range(3):
        kept = own["retain"][t] * weight
        grad = torch.outer(kept @ own["key"][t] - own["value"][t], own["key"][t])
        held = (0.7 * layers[0], 0.7 * layers[1])
        wrong = torch.func.grad(lambda m, g=grad: (said(m, g) + g).square().sum() / 2)(held)
        layers = (held[0] - 0.2 * wrong[0], held[1] - 0.2 * wrong[1])
        weight = kept + own["rate"][t] * said(layers, grad)
        reads.append(weight @ own["query"][t])
    torch.testing.assert_close(read[0, 0], torch.stack(reads), rtol=1e-10, atol=1e-12)


def test_the_weights_of_a_deep_map_have_rules_of_their_own(tmp_path: Path) -> None:
    one = core(tmp_path, "adamw(beta1 = 0.8)", "map = mlp(4)\n  anchor = every 2 tokens\n  read = before")
    given = inputs(1, 1, 4, D, E, seed=6)
    starts = (rand(1, 4, D, seed=1), rand(1, E, 4, seed=2))
    read, state = one(**given, start=starts)
    rule = one.memory.core.optimizer
    own = {name: tensor[0, 0] for name, tensor in given.items()}
    weights = [s[0] for s in starts]
    rules, reads, anchored = [Naive(rule, w, dict(rule.options)) for w in weights], [], weights  # type: ignore[union-attr]

    def answer(layers: list[Tensor], z: Tensor) -> Tensor:
        return layers[1] @ F.gelu(layers[0] @ z)

    for t in range(4):
        anchored = weights if t % 2 == 0 else anchored
        reads.append(answer(weights, own["query"][t]))
        wrong = torch.func.grad(
            lambda w, k=own["key"][t], v=own["value"][t]: (answer(w, k) - v).square().sum() / 2
        )(anchored)
        for naive, weight in zip(rules, weights, strict=True):
            naive.weight = own["retain"][t] * weight
        weights = [n.step(g, own["rate"][t]) for n, g in zip(rules, wrong, strict=True)]  # type: ignore[arg-type]
    torch.testing.assert_close(read[0, 0], torch.stack(reads), rtol=1e-9, atol=1e-10)
    assert {"rule_first.W1", "rule_second.W2"} <= set(state)


def test_a_vector_goes_to_what_the_rule_names_for_it(tmp_path: Path) -> None:
    fields = "map = vector\n  objective = l2"
    left, right = (
        core(tmp_path, "turned(beta = 0.7)", fields),
        core(tmp_path, "adamw(beta1 = 0.7)", fields),
    )
    given, start = inputs(B, H, T, D, D, seed=3), rand(H, D, seed=9)
    read, _ = left(**given, start=start)
    twice, _ = right(**(given | {"rate": 2 * given["rate"]}), start=start)
    torch.testing.assert_close(read, twice, rtol=1e-12, atol=1e-12)


def test_constants_stop_what_a_token_adds(tmp_path: Path) -> None:
    one = core(tmp_path, "adamw", "gradient = stop")
    given, start = inputs(B, H, T, D, E, seed=3), rand(H, E, D, seed=9)
    read, _ = one(**given, start=start)
    names = ["query", "retain", "key", "value", "rate"]
    found = torch.autograd.grad(read.sum(), [*(given[n] for n in names), start], allow_unused=True)
    assert [n for n, g in zip([*names, "start"], found, strict=True) if g is not None and bool(g.any())] == [
        "query",
        "retain",
        "start",
    ]
    kept = given["retain"].cumprod(-1)
    wanted = torch.einsum("bht,bhtd->hd", kept, given["query"])
    torch.testing.assert_close(found[-1], wanted[:, None].expand(-1, E, -1))


def test_where_nothing_is_wrong_no_slope_is_infinite(tmp_path: Path) -> None:
    one = core(tmp_path, "adamw")
    given = inputs(B, H, T, D, E, seed=3)
    with torch.no_grad():
        given["key"][..., 0] = 0
        given["value"][:, :, 0] = 0
    read, _ = one(**given, start=torch.zeros(H, E, D, dtype=torch.float64))
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(read.sum(), list(given.values())))


# --------------------------------------------------------------------------- rules that are words


@pytest.mark.parametrize(
    ("call", "rate", "word", "momentum"),
    [
        ("heavy(0.8)", "x |> linear(heads) |> sigmoid", "gd", True),
        ("ball(0.8)", "0.3", "gd", True),
        ("momentum(0.8)", "0.3", "gd", True),
        ("halved", "x |> linear(heads) |> sigmoid", "gd", False),
        ("square(0.8)", "0.3", "muon", True),
    ],
)
def test_recognised_rules_run_on_the_engines_of_their_words(
    call: str, rate: str, word: str, momentum: bool, tmp_path: Path
) -> None:
    spec = memory(tmp_path, call, "anchor = every 4 tokens", rate=rate)
    found = instance(spec).core
    assert (found.rule, found.optimizer, found.momentum != "none") == (word, None, momentum)
    assert choose(found).engine is not TOKEN_LOOP


def test_a_rate_outside_the_average_is_the_word_only_while_it_is_one_number(tmp_path: Path) -> None:
    spec = memory(tmp_path, "ball(0.8)")
    assert instance(spec).core.optimizer is not None
    assert all(engine.obstacles(instance(spec).core) for engine in ENGINES)
    assert "momentum" not in instance(spec).flows
    rows = [line.strip() for line in planned.plan(spec.expanded).splitlines()]
    assert "nearly      with one rate for all tokens, `ball` has the formulas of `momentum`" in rows


def test_what_is_recognised_computes_what_the_rule_says(tmp_path: Path) -> None:
    """Momentum in its engine, and with a rate inside or outside as a function, in the token loop."""
    given, start = inputs(B, H, T, D, E, seed=4, momentum=True), rand(H, E, D, seed=9)
    del given["momentum"]
    given["rate"] = torch.full_like(given["rate"], 0.2).requires_grad_()
    gate = torch.full_like(given["rate"], 0.8)
    others = {n: x for n, x in given.items() if n != "rate"}

    def inside(weight: Tensor, grad: Tensor, state: dict[str, Tensor], rate: Tensor, step: int) -> Any:
        velocity = 0.8 * state["velocity"] + rate * grad
        return weight - velocity, {"velocity": velocity}

    def outside(weight: Tensor, grad: Tensor, state: dict[str, Tensor], rate: Tensor, step: int) -> Any:
        velocity = 0.8 * state["velocity"] + grad
        return weight - rate * velocity, {"velocity": velocity}

    for rule in (inside, outside):
        read, _ = token_loop(**given, start=start, rule=rule, memories={"velocity": ("rows", "columns")})
        word, _ = heavy_ball(**given, momentum=gate, start=start)
        torch.testing.assert_close(read, word, rtol=1e-10, atol=1e-12)
        ours, theirs = slopes(read, others, start), slopes(word, others, start)
        for found, known in zip(ours, theirs, strict=True):
            torch.testing.assert_close(found, known, rtol=1e-8, atol=1e-10)


def test_factors_go_into_the_rate(tmp_path: Path) -> None:
    """`ball` at 0.3 is momentum at 0.3 (1 - b), `halved` is gradient descent at half of each rate."""
    ball = instance(memory(tmp_path, "ball(0.8)", rate="0.3")).flows["rate"]
    assert float(ball.number.value) == pytest.approx(0.06)  # type: ignore[attr-defined]
    halved = built(memory(tmp_path, "halved"))
    plain = built(memory(tmp_path, "gd", rate="0.5 * (x |> linear(heads) |> sigmoid)"))
    tokens = torch.randint(0, 11, (2, 9))
    torch.testing.assert_close(halved(tokens)[0], plain(tokens)[0], rtol=1e-12, atol=1e-12)


def test_the_same_text_in_the_outer_loop() -> None:
    """`momentum` has its rate outside there, as torch has it."""
    weight = torch.nn.Parameter(rand(3, 4, seed=0).detach())
    optimizer = nldsl.rule("momentum", [weight], rate=0.1, beta=0.8)
    known, velocity = weight.detach().clone(), torch.zeros(3, 4, dtype=torch.float64)
    for step in range(5):
        rate = 0.1 / (step + 1)
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = rand(3, 4, seed=10 + step).detach()
        optimizer.step()
        velocity = 0.8 * velocity + weight.grad
        known = known - rate * velocity
        torch.testing.assert_close(weight.detach(), known, rtol=1e-12, atol=1e-12)


def test_the_graph_and_the_costs_hold_what_a_rule_keeps(tmp_path: Path) -> None:
    spec = memory(tmp_path, "m3(period = 4 steps)")
    found = {c.path: c for c in spec.levels().components}
    assert {"Small.Mixer.m3.near", "Small.Mixer.m3.size", "Small.Mixer.m3.far"} <= set(found)
    assert found["Small.Mixer.m3.far"].tokens_per_update == 4
    assert found["Small.Mixer.m3.near"].state_bytes == 4 * H * D * D
    assert found["Small.Mixer.m3.far"].state_bytes == 2 * 4 * H * D * D  # and what a period has gathered
    assert found["Small.Mixer.m3.near"].rank < found["Small.Mixer"].rank


@pytest.mark.parametrize(
    "call", ["nesterov(0.8)", "adamw", "lion", "turned", "capped", "adagrad", "rmsprop(momentum = 0.5)", "m3"]
)
def test_other_formulas_are_no_words(call: str, tmp_path: Path) -> None:
    found = instance(memory(tmp_path, call, rate="0.3"))
    assert found.core.rule == "optimizer"
    assert choose(found.core).engine is TOKEN_LOOP


def test_a_build_with_a_rule_inside_the_sequence_trains(tmp_path: Path) -> None:
    """A build folder alone: a pattern that repeats is learned, and reading it in pieces gives the same."""
    memory(tmp_path, "adamw(beta1 = 0.8)")
    path = tmp_path / "one.nl"
    run = 'model = Small, data = text("sotu", length = 16, batch = 2), steps = 2'
    level = "level all { learns = rest, rule = momentum(rate = 0.1, beta = 0.8) }"
    path.write_text(f"{path.read_text()}\ntrain Run {{ {run}\n {level} }}\n")
    model = nldsl.load(path, set={"model.vocab": 256}).compile(tmp_path / "build").model().double()
    tokens = torch.arange(24).remainder(3).repeat(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    losses = []
    for _ in range(30):
        logits, _ = model(tokens)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        first, state = model(tokens[:, :10])
        second, _ = model(tokens[:, 10:], state)
        torch.testing.assert_close(torch.cat((first, second), 1), model(tokens)[0], rtol=1e-9, atol=1e-10)
