"""What the level graph counts is what the code holds: numbers learned, and numbers of state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nldsl.resolve.expanded import Apply, BlockInstance
from tests.codegen.building import FEATURES, built, feature, tokens

LENGTH = 12
SHORTER = ("attention", "grouped_cache", "streams_context")  # caches that are not full after so few tokens


def held(state: Any, batch: int) -> int:
    """Floating-point numbers in the state of `batch` sequences; what they share stands for each of them."""
    match state:
        case Tensor() if state.is_floating_point():
            return state.numel() if state.ndim else batch
        case dict():
            return sum(held(one, batch) for one in state.values())
        case list() | tuple():
            return sum(held(one, batch) for one in state)
        case _:
            return 0


def convolved(name: str) -> bool:
    """Whether a block has a convolution of its own, which the level graph shows no state for."""
    instances = [instance for instance, _ in feature(name).expanded.instances()]
    lines = [line for i in instances if isinstance(i, BlockInstance) for line in i.every_line()]
    return any(isinstance(n, Apply) and n.primitive == "conv" for line in lines for n in line.flow.walk())


@pytest.mark.parametrize("name", FEATURES)
def test_the_level_graph_counts_what_the_code_has(name: str) -> None:
    spec, model = feature(name), built(feature(name))
    levels = spec.levels()
    assert levels.parameters == sum(p.numel() for p in model.parameters())
    if name in SHORTER or convolved(name):
        return
    ids = tokens(model, LENGTH)
    with torch.no_grad():
        _, state = model(ids)
    said = sum(c.state_bytes * c.copies for c in levels.components if c.per_sequence)
    assert held(state, ids.shape[0]) * 4 == said * ids.shape[0]
