"""Gradient modes of memories in whole models: compiled, against the token loop, and trained."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch.nn.functional import cross_entropy

import nldsl
from nldsl.codegen.plan.engines import choose
from nldsl.codegen.plan.gradients import gradient_note
from nldsl.diagnostics.model import Source
from nldsl.resolve.expanded import MemoryInstance
from tests.codegen.building import built, gradients, streamed, tokens

LENGTH, PIECES = 17, (1, 6, 2, 8)
MODES = ("through", "through 3 tokens", "first_order", "stop")
KINDS = {
    "hebbian": "objective = dot\n retain = x |> linear(heads) |> sigmoid",
    "divided": "objective = dot\n normalise = sum\n rate = x |> linear(heads) |> sigmoid",
    "delta": "rate = x |> linear(heads) |> sigmoid\n retain = x |> linear(heads) |> sigmoid",
    "delta_current": "anchor = current\n rate = 0.5",
    "descent": "rule = dgd\n objective = dot\n rate = 0.5",
    "descent_frozen": "rule = dgd\n update = every 4 tokens\n rate = 0.5",
    "hebbian_channels": "objective = dot\n retain = x |> linear |> sigmoid",
    "delta_channels": "rate = 0.5\n retain = x |> linear |> sigmoid",
    "erasing_apart": "erase = (x |> linear |> unit, key)\n anchor = current\n rate = 0.5",
    "frozen_channels": "anchor = every 4 tokens\n rate = 0.5\n retain = x |> linear |> sigmoid",
    "cache": "map = cache(5 tokens)",
    "frozen": "anchor = every 4 tokens\n rate = 0.5\n start = learned",
    "deep": "map = mlp(residual, hidden = 6)\n update = every 4 tokens\n"
    " rate = 0.2\n momentum = x |> linear(heads) |> sigmoid",
}


@cache
def _spec(kind: str, mode: str) -> nldsl.Spec:
    key = "(x |> linear |> elu) + 1" if kind == "divided" else "x |> linear |> unit"
    text = f"""edition 2026

memory Mixer(dim, heads = 2) {{
  key = {key}
  value = x |> linear
  query = {key}
  {KINDS[kind]}
  gradient = {mode}
}}

block Block(dim) {{
  x = x + (x |> rmsnorm |> Mixer(dim))
}}

model Small(dim = 8, vocab = 11) {{
  tokens |> embed(vocab, dim) |> repeat(2, Block(dim)) |> rmsnorm |> unembed(tied)
}}
"""
    return nldsl.load(Source(f"{kind}.nl", text))


def _core(spec: nldsl.Spec) -> MemoryInstance:
    return next(one for one, _ in spec.expanded.instances() if isinstance(one, MemoryInstance))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mode_means_the_same_token_by_token(kind: str, mode: str) -> None:
    spec = _spec(kind, mode)
    engine = choose(_core(spec).core).engine.function
    assert engine != "token_loop"
    fast, slow = built(spec), built(spec, "reference")
    slow.load_state_dict(fast.state_dict())
    ids = tokens(fast, LENGTH)
    with torch.no_grad():
        expected, _ = slow(ids)
        torch.testing.assert_close(fast(ids)[0], expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(streamed(fast, ids, PIECES)[0], expected, rtol=1e-9, atol=1e-9)
    wanted, found = gradients(slow, ids), gradients(fast, ids)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-8, msg=name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["delta", "deep"])
def test_a_mode_trains(kind: str, mode: str) -> None:
    model = built(_spec(kind, mode))
    ids = tokens(model, LENGTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses: list[float] = []
    for _ in range(3):
        optimizer.zero_grad()
        logits, _ = model(ids[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_stop_leaves_without_a_gradient_is_what_check_names(kind: str) -> None:
    spec = _spec(kind, "stop")
    dead = {"key_linear", "value_linear", "rate_linear", "momentum_linear", "erase_linear"}
    model = built(spec)
    reached = gradients(model, tokens(model, LENGTH))
    unreached = {n.split(".")[-2] for n, _ in model.named_parameters() if n not in reached}
    named = "".join(d.message for d in spec.diagnostics if d.code == "NL0340")
    assert unreached == {n for n in dead if f"`{n.removesuffix('_linear')}`" in named}
    assert {"key_linear", "value_linear"} <= unreached


def test_what_a_mode_changes_is_said() -> None:
    notes = {
        (kind, mode): gradient_note(choose(core).engine, core)
        for kind in KINDS
        for mode in MODES
        for core in [_core(_spec(kind, mode)).core]
    }
    assert {note for (_, mode), note in notes.items() if mode == "through"} == {""}
    assert all(note for (_, mode), note in notes.items() if mode != "through")
    assert "without gradient" in notes["delta", "first_order"]
    assert "is the full gradient" in notes["descent", "first_order"]
