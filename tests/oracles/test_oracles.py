"""Memories against code that nobody here wrote: reads, last states and gradients in float64.

docs/oracles.md says which conventions differ and how far apart the two sides were measured.
"""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from bench.peers import PEERS
from bench.peers.outside import fla, widened
from tests.oracles import attention, deep, matrices
from tests.oracles.compare import Case, difference

CASES = [*matrices.CASES, *attention.CASES, *deep.CASES]
RUNS = list(chain.from_iterable(((case, lowering) for lowering in case.lowerings) for case in CASES))


@pytest.mark.parametrize(
    ("case", "lowering"), RUNS, ids=[f"{case.name}, {lowering}" for case, lowering in RUNS]
)
def test_memory_is_what_others_compute(case: Case, lowering: str) -> None:
    found = difference(case, lowering)
    assert found.worst <= case.tolerance, found


def test_every_peer_is_compared() -> None:
    assert set(PEERS) <= {case.name for case in CASES}


def test_widened_code_is_float64_inside_and_float32_after() -> None:
    peer = PEERS["fla naive_recurrent_gated_delta_rule"]
    q = torch.ones(1, 1, 2, 3, dtype=torch.float64)
    narrow = peer(query=q, key=q, value=q)[1]
    with widened(peer.load()):
        wide = peer(query=q, key=q, value=q)[1]
    assert narrow is not None and wide is not None
    assert (narrow.dtype, wide.dtype) == (torch.float32, torch.float64)
    assert torch.ones(1).double().float().dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32


def test_the_titans_formula_of_fla_does_not_descend_the_loss_it_names() -> None:
    """Why it is compared with nothing: a bracket of its layer norm's gradient closes too early."""
    step = fla("titans.naive").titans_linear
    torch.manual_seed(0)
    key, value, memory = torch.randn(1, 1, 1, 4), torch.randn(1, 1, 1, 4), torch.randn(1, 1, 4, 4)
    ones, zeros = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    scale, shift = torch.ones(1, 4), torch.zeros(1, 4)
    _, after = step(key, key, value, scale, shift, ones, zeros, zeros, 1e-6, 1, memory, True)
    weights = memory.clone().requires_grad_()
    normed = torch.nn.functional.layer_norm(key @ weights, (4,), eps=1e-6)
    (gradient,) = torch.autograd.grad((normed - (value - key)).square().sum(), weights)
    assert (memory - gradient - after).abs().max() > 0.5 * gradient.abs().max()
