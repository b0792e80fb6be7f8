"""What a norm adds under its root: the spec's number, in a layer and in a block that is a memory's map."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import nldsl
from nldsl.run.folder import load

torch.set_num_threads(1)

SPEC = """
edition 2026
model Small(dim = 8) {{
  tokens |> embed(16, dim) |> {norm}(eps = 0.25) |> unembed(tied)
}}
"""


@pytest.mark.parametrize(("norm", "kind"), [("rmsnorm", nn.RMSNorm), ("layernorm", nn.LayerNorm)])
def test_the_norm_of_the_build_adds_the_number_of_the_spec(norm: str, kind: type, tmp_path: Path) -> None:
    (tmp_path / "small.nl").write_text(SPEC.format(norm=norm), encoding="utf-8")
    nldsl.load(tmp_path / "small.nl").compile(tmp_path / "build")
    model = load(tmp_path / "build", ("kernels", "model")).model.build()
    assert isinstance(model.norm, kind)
    assert model.norm.eps == 0.25


def test_a_number_that_is_not_above_zero_is_found(tmp_path: Path) -> None:
    path = tmp_path / "small.nl"
    path.write_text(SPEC.format(norm="rmsnorm").replace("0.25", "0"), encoding="utf-8")
    assert [found.code for found in nldsl.check(path)] == ["NL0205"]
