"""The bounds of the warnings about steps, against the token loop itself: one unit key, again and again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nldsl.codegen.engines.reference import token_loop

TOKENS = 64


def size_at_the_end(rate: float, retain: float, momentum: float | None = None, **settings: object) -> float:
    """How large the memory has grown after `TOKENS` writes of one key."""
    torch.set_num_threads(1)
    shape = (1, 1, TOKENS, 1)
    key, value = torch.ones(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)
    gates = {
        name: torch.full(shape[:3], number, dtype=torch.float64)
        for name, number in (("rate", rate), ("retain", retain), ("momentum", momentum))
        if number is not None
    }
    _, state = token_loop(query=key, key=key, value=value, **gates, **settings)  # type: ignore[arg-type]
    return float(state["W"].abs().max())


@pytest.mark.parametrize("retain", [1.0, 0.5])
@pytest.mark.parametrize(
    ("settings", "bound"),
    [
        ({"map": "matrix", "objective": "l2", "rule": "gd"}, lambda a: 1 + 1 / a),
        ({"map": "matrix", "objective": "l2", "rule": "gd", "anchor": "current"}, lambda a: 1 + a),
        ({"map": "matrix", "objective": "dot", "rule": "dgd"}, lambda a: 1 + a),
    ],
)
def test_a_write_diverges_exactly_beyond_its_bound(settings, bound, retain: float) -> None:
    assert size_at_the_end(bound(retain) - 0.1, retain, **settings) < 100
    assert size_at_the_end(bound(retain) + 0.2, retain, **settings) > 100


def test_frozen_gradients_diverge_beyond_a_sum_of_two() -> None:
    settings: dict[str, Any] = {"map": "matrix", "objective": "l2", "rule": "gd", "anchor": 8}
    assert size_at_the_end(1.9 / 8, 1.0, **settings) < 10
    assert size_at_the_end(4 / 8, 1.0, **settings) > 1000


def test_momentum_moves_the_bound() -> None:
    settings: dict[str, Any] = {"map": "matrix", "objective": "l2", "rule": "gd"}
    assert size_at_the_end(2.5, 1.0, **settings) > 100
    assert size_at_the_end(2.5, 1.0, momentum=0.9, **settings) < 100


def test_dgd_with_l2_converges_to_half() -> None:
    end = size_at_the_end(0.3, 1.0, map="matrix", objective="l2", rule="dgd")
    assert end == pytest.approx(0.5, abs=1e-6)


def test_dgd_with_dot_converges_to_the_value() -> None:
    end = size_at_the_end(0.3, 1.0, map="matrix", objective="dot", rule="dgd")
    assert end == pytest.approx(1.0, abs=1e-6)
