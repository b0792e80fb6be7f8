"""Memories against code that nobody here wrote: reads, last states and gradients in float64.

docs/oracles.md says which conventions differ and how far apart the two sides were measured.
"""

from __future__ import annotations

import dataclasses
import re
from itertools import chain
from pathlib import Path

import pytest
import torch

import nldsl
from bench.peers import PEERS
from bench.peers.outside import fla, widened
from tests.oracles.cases import CASES
from tests.oracles.compare import Case, core, difference
from tests.oracles.matrices import FORMS

ROOT = Path(__file__).resolve().parents[2]
RUNS = list(chain.from_iterable(((case, lowering) for lowering in case.lowerings) for case in CASES))


@pytest.mark.parametrize(
    ("case", "lowering"), RUNS, ids=[f"{case.name}, {lowering}" for case, lowering in RUNS]
)
def test_memory_is_what_others_compute(case: Case, lowering: str) -> None:
    found = difference(case, lowering)
    assert found.worst <= case.tolerance, found


@pytest.mark.parametrize(
    ("library", "own"),
    [
        *((library, own) for library, (own, _) in FORMS.items() if library != "LinearAttention"),
        ("LinearAttention", "NormalisedSum"),
        ("MomentumDelta", "DeltaWithMomentumAfterFading"),
        ("DeltaProduct", "DeltaTwice"),
        ("MesaNet", "Ridge"),
        ("SoftmaxAttention", "Cache"),
    ],
)
def test_the_library_has_the_algebra_that_is_compared(library: str, own: str) -> None:
    """But for gates that a memory of the library does without."""
    theirs, ours = nldsl.core(library, "reference").memory.core, core(own, "reference").memory.core
    names = [field.name for field in dataclasses.fields(ours)]
    apart = {name for name in names if getattr(theirs, name) != getattr(ours, name)}
    assert apart <= {"rate"}, apart
    assert theirs.rate in (ours.rate, "none")


def test_the_page_lists_every_comparison_with_the_version_that_is_installed() -> None:
    page = (ROOT / "docs" / "oracles.md").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    for case in CASES:
        assert f"| {case.name} | {pins[case.package]} |" in page, "run python -m tests.oracles.measure"


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
