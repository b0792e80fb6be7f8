"""A user's own block as the map of a memory: its function, its starts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import nldsl
from nldsl.api.cores import Core
from tests.codegen.building import built, imported, written

BLOCKS = {
    "three layers with norms": """
block Map(dim) {
  x = x + (x |> rmsnorm |> linear(dim + 1) |> gelu |> linear(dim))
  x = x |> layernorm |> linear(7, bias) |> tanh |> linear(dim)
}
""",
    "gated": "block Map(dim) {\n  x |> swiglu(6)\n}\n",
    "two branches": """
block Map(dim) {
  left  = x |> rmsnorm |> linear(5) |> tanh
  right = x |> linear(5, bias) |> sigmoid(start = 0.3)
  x = x + (left * right ^ 2 |> learned |> linear(dim)) - 0.1 * x
}
""",
    "blocks inside": """
block Layer(dim, wide) {
  y = x |> mlp(wide, 3, residual, norm, silu)
  x = y |> unit |> scale(0.5)
}
block Map(dim) {
  x = x + (x |> repeat(2, Layer(dim, wide = dim + 1)) |> softplus(start = 0.2))
  x |> elu |> exp
}
""",
}
MEMORY = """
memory Mixer(dim, heads = 1) {
  key   = x |> linear |> unit
  value = x |> linear
  query = x |> linear |> unit
  rate  = 0.1
  map   = Map(dim)
  anchor = every 3 tokens
}
"""
INNER = "memory Inner(dim) {\n  key = x |> linear\n  value = x |> linear\n  query = x |> linear\n}\n"
MODEL = """
model Small(dim = 4, vocab = 11) {
  plain: a = tokens |> embed(vocab, dim) |> Map(dim)
  mixer: b = a |> Mixer(dim)
  b |> unembed(tied)
}
"""


def _spec(text: str, tmp_path: Path) -> nldsl.Spec:
    path = tmp_path / "small.nl"
    path.write_text(f"edition 2026\n{text}", encoding="utf-8")
    return nldsl.load(path)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_function_is_the_block(name: str, tmp_path: Path) -> None:
    spec = _spec(BLOCKS[name] + MEMORY + MODEL, tmp_path)
    model = built(spec)
    plain, mixer = model.get_submodule("plain"), model.get_submodule("mixer")
    starts = dict(mixer.start.items())
    learned = dict(plain.named_parameters())
    assert len(starts) == len(learned)
    assert sum(p.numel() for p in starts.values()) == sum(p.numel() for p in learned.values())
    own = type(imported(spec).build().get_submodule("mixer"))
    with torch.no_grad():  # what has one shape gets one value, in whatever order it is kept
        for weight in learned.values():
            weight.copy_(_value(weight.shape))
        for start in starts.values():
            start.copy_(_value(start.shape[1:]))
    x = torch.randn(5, 4, dtype=torch.float64)
    expected = plain(x.unsqueeze(0))
    found = own.map_map({n: w[0] for n, w in starts.items()}, x)
    assert torch.allclose(found, expected[0], atol=1e-9)


def _value(shape: tuple[int, ...]) -> torch.Tensor:
    size = torch.Size(shape).numel()
    return torch.linspace(0.2, 9.0, size, dtype=torch.float64).sin().reshape(shape)


def test_the_lowerings_agree_and_streams_go_on(tmp_path: Path) -> None:
    spec = _spec(BLOCKS["two branches"] + MEMORY + MODEL, tmp_path)
    chunked, reference = built(spec), built(spec, "reference")
    assert "layered(" in written(spec).text
    ids = torch.randint(0, 11, (2, 10), generator=torch.Generator().manual_seed(1))
    whole, _ = chunked(ids)
    assert torch.allclose(whole, reference(ids)[0], atol=1e-9)
    first, state = chunked(ids[:, :4])
    assert torch.allclose(torch.cat((first, chunked(ids[:, 4:], state)[0]), 1), whole, atol=1e-9)


def test_the_core_of_a_block() -> None:
    spec = nldsl.load(Path(__file__).parent / "features" / "layered_block.nl")
    fast, slow = nldsl.core(spec), nldsl.core(spec, lowering="reference")
    assert isinstance(fast, Core)
    assert isinstance(slow, Core)
    drawn = torch.Generator().manual_seed(3)
    names = ("query", "key", "value")
    given: dict[str, Any] = {n: torch.randn(2, 2, 9, 4, generator=drawn, dtype=torch.float64) for n in names}
    given |= {n: torch.rand(2, 2, 9, generator=drawn, dtype=torch.float64) for n in ("rate", "retain")}
    read, state = fast(**given)
    other, _ = slow(**given)
    assert torch.allclose(read, other, atol=1e-9)
    assert set(fast.init_state(2, 2, 4, 4)) == set(state)
    assert state["W_left_linear"].shape == (2, 2, 8, 4)
    begun = fast.init_state(1, 2, 4, 4, dtype=torch.float64)
    start = {n: w[0] for n, w in begun.items() if f"{n}_start" in state}
    assert torch.equal(fast(**given, start=start)[0], read)
    with pytest.raises(ValueError, match="works on 4 features"):
        fast.init_state(1, 2, 6, 6)
    with pytest.raises(ValueError, match="W_left_linear"):
        fast(**given, start={n: w for n, w in start.items() if n != "W_left_linear"})


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("block Map(dim) {\n  x |> conv(3) |> linear\n}\n", "NL0530"),
        ("block Map(dim) {\n  x |> dropout(0.1) |> linear\n}\n", "NL0530"),
        (f"block Map(dim) {{\n  x |> Inner(dim)\n}}\n{INNER}", "NL0530"),
        ("block Map(dim) {\n  x |> tanh\n}\n", "NL0530"),
        ("block Map(dim) {\n  x |> linear(3)\n}\n", "NL0401"),
    ],
)
def test_what_no_map_can_be(block: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "small.nl"
    path.write_text(f"edition 2026\n{block}{MEMORY}{MODEL.replace('|> Map(dim)', '')}", encoding="utf-8")
    with pytest.raises(nldsl.SpecError) as caught:
        nldsl.load(path)
    assert said in {finding.code for finding in caught.value.diagnostics}
