"""Compiled models in mixed precision: gates near 1 keep their value over many tokens."""

from __future__ import annotations

import pytest
import torch

import nldsl
from nldsl.diagnostics.model import Source
from tests.codegen.building import imported, tokens

GATES = {
    "a number": "retain = 0.999",
    "squashed": "retain = x |> linear(heads) |> sigmoid",
    "begun": "retain = x |> linear(heads) |> sigmoid(start = 0.999)",
    "per head": "retain = 1 - 2 ^ (-10 - head)",
}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("objective", ["dot", "l2"])
def test_long_products_of_gates(gate: str, objective: str) -> None:
    text = f"""edition 2026

memory Mixer(dim, heads = 2) {{
  key = x |> linear |> unit
  value = x |> linear
  query = x |> linear |> unit
  rate = 0.5
  objective = {objective}
  {GATES[gate]}
}}

model Small(dim = 8, vocab = 11) {{
  tokens |> embed(vocab, dim) |> Mixer(dim) |> unembed(tied)
}}
"""
    torch.manual_seed(0)
    model = imported(nldsl.load(Source("half.nl", text))).build()
    with torch.no_grad():
        model.embed.weight.mul_(50)  # features of ordinary size, so that a squashed gate can come near 1
        if gate == "squashed":
            model.embed.weight[:, 0] = 3.0
            model.mixer.retain_linear.weight.zero_()[:, 0] = 2.3
    ids = tokens(model, 1024, batch=1)
    exact, _ = model.double()(ids)
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = model(ids)
    error = (found.double() - exact).norm() / exact.norm()
    assert error < 0.03, error
    found.float().square().mean().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
