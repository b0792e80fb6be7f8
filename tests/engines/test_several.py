"""Several writes for each token, against the definition over the longer sequence, and caches in groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nldsl.codegen.engines.attention import attention
from nldsl.codegen.engines.delta import delta
from nldsl.codegen.engines.reference import token_loop
from nldsl.codegen.engines.several import in_turn, several

torch.set_num_threads(1)
B, H, D = 2, 2, 3


def drawn(seed: int, tokens: int, writes: int, *, retained: float | None = None) -> dict[str, Any]:
    """Inputs in float64; gates of 0 and 1 with `retained`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    retain = normal(B, H, tokens).sigmoid() if retained is None else torch.full((B, H, tokens), retained)
    made = {
        "query": normal(B, H, tokens, D),
        "key": normal(B, H, tokens * writes, D),
        "value": normal(B, H, tokens * writes, D),
        "rate": normal(B, H, tokens * writes).sigmoid(),
        "retain": retain.double(),
    }
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def by_hand(given: dict[str, Any], writes: int, read: str) -> Tensor:
    """The delta rule, write by write."""
    weights = given["query"].new_zeros(B, H, D, D)
    reads = []
    for t in range(given["query"].shape[2]):
        query = given["query"][:, :, t].unsqueeze(-1)
        if read == "before":
            reads.append(weights @ query)
        weights = given["retain"][:, :, t, None, None] * weights
        for i in range(t * writes, (t + 1) * writes):
            key, value = given["key"][:, :, i].unsqueeze(-1), given["value"][:, :, i].unsqueeze(-1)
            step = given["rate"][:, :, i, None, None] * (weights @ key - value) @ key.transpose(-1, -2)
            weights = weights - step
        if read == "after":
            reads.append(weights @ query)
    return torch.stack(reads, dim=2).squeeze(-1)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 99),
    tokens=st.integers(1, 9),
    writes=st.integers(1, 4),
    read=st.sampled_from(["after", "before"]),
    retained=st.sampled_from([None, 0.0, 1.0]),
)
def test_writes_follow_one_another(
    seed: int, tokens: int, writes: int, read: str, retained: float | None
) -> None:
    given_ = drawn(seed, tokens, writes, retained=retained)
    wanted = by_hand(given_, writes, read)
    slopes = torch.autograd.grad(wanted.square().sum(), list(given_.values()), materialize_grads=True)
    for engine in (token_loop, delta):
        found, _ = several(engine, **given_, writes=writes, read=read)
        torch.testing.assert_close(found, wanted)
        own = torch.autograd.grad(found.square().sum(), list(given_.values()), materialize_grads=True)
        torch.testing.assert_close(own, slopes)


@pytest.mark.parametrize("cut", [0, 1, 4])
def test_pieces_equal_the_whole(cut: int) -> None:
    inputs: dict[str, Any] = {name: tensor.detach() for name, tensor in drawn(3, 7, 2).items()}
    whole, end = several(delta, **inputs, writes=2)
    ends = {"query": cut, "retain": cut}
    first: dict[str, Any] = {n: x[:, :, : ends.get(n, 2 * cut)] for n, x in inputs.items()}
    second: dict[str, Any] = {n: x[:, :, ends.get(n, 2 * cut) :] for n, x in inputs.items()}
    begun, state = several(delta, **first, writes=2)
    rest, last = several(delta, **second, writes=2, state=state)
    torch.testing.assert_close(torch.cat((begun, rest), dim=2), whole)
    torch.testing.assert_close(last["W"], end["W"])


def test_the_writes_of_a_head_stand_side_by_side() -> None:
    x = torch.arange(2 * 3 * 2).reshape(1, 6, 2)  # two heads of three writes, two tokens
    assert in_turn(x, 3).tolist() == [[[0, 2, 4, 1, 3, 5], [6, 8, 10, 7, 9, 11]]]
    assert in_turn(x.unsqueeze(-1), 3).shape == (1, 2, 6, 1)


@pytest.mark.parametrize("window", [None, 3])
def test_a_cache_may_hold_groups(window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 7, 3, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, 2, 2, 7, 3, generator=generator, dtype=torch.float64).unbind()
    wanted, kept = attention(query, key, value, window=window)
    found, held = token_loop(query, key, value, map={"kind": "cache", "window": window}, rule="softmax")
    keys, values = (x.repeat_interleave(2, dim=1) for x in (key, value))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(attention(query, keys, values, window=window)[0], wanted)
    assert held["key"].shape == kept["key"].shape == (2, 2, 7 if window is None else 2, 3)
