"""`plastic = no` on a memory: it learns while it is trained, and stands still at test time."""

from __future__ import annotations

import pytest
import torch

import nldsl
from nldsl.diagnostics.model import Source, SpecError
from tests.codegen.building import built, feature, tokens

SPEC = """edition 2026

memory Still(dim, heads = 2) {{
  key = x |> linear |> unit
  value = x |> linear
  query = x |> linear |> unit
  rate = x |> linear(heads) |> sigmoid(start = 0.05)
  {fields}
  start = learned
  plastic = {plastic}
}}

model Small(dim = 8, vocab = 16) {{
  tokens |> embed(vocab, dim) |> Still(dim) |> rmsnorm |> unembed(tied)
}}
"""
FIELDS = {
    "delta": "objective = l2",
    "hebbian": "objective = dot\n  retain = 0.9",
    "momentum": "objective = l2\n  momentum = 0.5",
    "channels": "objective = l2\n  retain = x |> linear |> sigmoid(start = 0.9)",
    "deep": "objective = l2\n  map = mlp(6, residual, norm)\n  update = every 4 tokens",
    "dgd": "objective = dot\n  map = mlp(6, residual)\n  rule = dgd\n  retain = 0.9",
    "muon": "objective = l2\n  rule = muon\n  momentum = 0.5\n  anchor = every 4 tokens",
    "oja": "objective = oja",
    "huber": "objective = huber(0.1)",
    "lp": "objective = lp(3)",
    "ridge": "objective = l2\n  rule = ridge(1)",
    "window": "objective = l2\n  window = 3 tokens",
    "implicit": "objective = l2\n  rule = gd(implicit)",
}


def _models(fields: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same model with a memory that stands still and with one that does not, random starts in both."""
    found = []
    for plastic in ("no", "yes"):
        spec = nldsl.load(Source("still.nl", SPEC.format(fields=fields, plastic=plastic)))
        found.append(built(spec))
    still, alive = found
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in still.named_parameters():
            if "start" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 0.3)
    alive.load_state_dict(still.state_dict())
    return still, alive


@pytest.mark.parametrize("name", FIELDS)
def test_it_learns_in_training_and_reads_its_start_at_test_time(name: str) -> None:
    still, alive = _models(FIELDS[name])
    ids = tokens(still, 17)
    with torch.no_grad():
        torch.testing.assert_close(still.train()(ids)[0], alive(ids)[0], rtol=1e-12, atol=1e-12)
        logits, _ = still.eval()(ids)
        # Where nothing is written, a token's answer depends on nothing before it.
        alone = [still(ids[:, t : t + 1])[0] for t in range(17)]
        torch.testing.assert_close(logits, torch.cat(alone, 1), rtol=1e-10, atol=1e-10)
        assert not torch.allclose(logits, alive(ids)[0], rtol=1e-6, atol=1e-6)


def test_the_output_sees_keys_and_values_all_the_same() -> None:
    model = built(feature("standing_still")).eval()
    ids = tokens(model, 5)
    with torch.no_grad():
        memory = model.still
        x = model.embed(ids)
        key = memory.key_linear(x).unflatten(-1, (2, 4))
        key = key / key.norm(dim=-1, keepdim=True)
        value = memory.value_linear(x).unflatten(-1, (2, 4))
        read = torch.einsum("hvk,bthk->bthv", memory.start, key)
        wanted = memory.out_linear((read + key + value).flatten(2))
        torch.testing.assert_close(memory(x)[0], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("objective = dot\n  normalise = sum", "`normalise` divides by what was written"),
        ("objective = l2\n  constrain = norm", "`constrain` changes weights after a write"),
        ("objective = l2\n  erase = x |> linear |> unit", "`erase` forgets beside the gradient"),
        ("objective = log(cosh(M(key) - value))", "its objective is an expression"),
    ],
)
def test_what_cannot_stand_still_is_said(fields: str, words: str) -> None:
    spec = SPEC.format(fields=fields, plastic="no").replace("  start = learned\n", "")
    with pytest.raises(SpecError) as caught:
        nldsl.load(Source("still.nl", spec))
    assert [d.code for d in caught.value.diagnostics if d.severity == "error"] == ["NL0701"]
    assert words in caught.value.diagnostics[0].message
