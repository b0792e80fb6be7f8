"""The pieces the engines share, and the rules of their files."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
import torch

from nldsl.codegen.engines.decay import decay_matrix
from nldsl.codegen.engines.tiles import cut, joined, tiling
from nldsl.codegen.engines.triangular import unit_lower_solve
from tests.engines.compare import rand

ENGINES = Path(__file__).resolve().parents[2] / "codegen" / "engines"
FILES = sorted(path for path in ENGINES.glob("*.py") if path.name != "__init__.py")


def _products(gates: torch.Tensor) -> torch.Tensor:
    size = len(gates) + 1
    zero = gates.new_zeros(())
    return torch.stack(
        [torch.stack([gates[i:t].prod() if i <= t else zero for i in range(size)]) for t in range(size)]
    )


@pytest.mark.parametrize(
    "gates", [[0.5, 0.0, 0.3, 1.0, 1.0, 0.0, 0.7], [0.0, 0.0, 0.0], [1.0, 1.0], [1e-20, 1e-25, 0.9], []]
)
def test_decays_and_their_gradients_are_exact_at_closed_and_open_gates(gates: list[float]) -> None:
    retain = torch.tensor(gates, dtype=torch.float64, requires_grad=True)
    weights = rand(len(gates) + 1, len(gates) + 1, seed=1).detach()
    plain, fast = _products(retain), decay_matrix(retain)
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=0)
    assert torch.equal(fast == 0, plain == 0)
    expected = torch.autograd.grad((plain * weights).sum(), retain, allow_unused=True, materialize_grads=True)
    found = torch.autograd.grad((fast * weights).sum(), retain)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_decays_are_twice_differentiable() -> None:
    retain = rand(2, 4, seed=2, low=0.1).detach().requires_grad_()
    assert torch.autograd.gradcheck(decay_matrix, (retain,))
    assert torch.autograd.gradgradcheck(decay_matrix, (retain,))


def test_solves_share_a_system_and_are_twice_differentiable() -> None:
    lower, right = rand(2, 4, 4, seed=3), rand(3, 2, 4, 2, seed=4)
    identity = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close((identity + lower.tril(-1)) @ unit_lower_solve(lower, right), right)
    assert torch.autograd.gradcheck(unit_lower_solve, (lower, right))
    assert torch.autograd.gradgradcheck(unit_lower_solve, (lower, right))


def test_kernels_run_under_vmap() -> None:
    retain, lower, right = rand(3, 4, seed=5, low=0.1), rand(3, 4, 4, seed=6), rand(3, 4, 2, seed=7)
    torch.testing.assert_close(torch.func.vmap(decay_matrix)(retain), decay_matrix(retain))
    torch.testing.assert_close(
        torch.func.vmap(unit_lower_solve)(lower, right), unit_lower_solve(lower, right)
    )


@pytest.mark.parametrize("period", [None, 1, 2, 6, 7, 12, 97])
@pytest.mark.parametrize("phase", [0, 1, 5])
@pytest.mark.parametrize("tokens", [1, 5, 23])
def test_tiles_cover_the_tokens_and_open_where_periods_begin(
    period: int | None, phase: int, tokens: int
) -> None:
    phase = phase % period if period else 0
    (front, back, size), opens = tiling(tokens, 4, period, phase)
    assert front + tokens + back == size * len(opens)
    places = torch.arange(tokens, dtype=torch.float64)[None, None]
    tiles = cut(places.unsqueeze(-1), (front, back, size))
    assert torch.equal(joined(tiles, (front, back, size)), places.unsqueeze(-1))
    starts = [max(0, n * size - front) for n in range(len(opens))]
    expected = [period is not None and (phase + start) % period == 0 for start in starts]
    assert opens == expected
    if period is not None:
        inside = [(phase + start) // period for start in starts]
        last = [
            (phase + min(tokens, start + size - (front if start == 0 else 0)) - 1) // period
            for start in starts
        ]
        assert inside == last


def test_every_name_stands_in_one_file_since_builds_collect_them_in_one() -> None:
    names = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_engines_import_torch_the_standard_library_and_each_other(path: Path) -> None:
    standard = {
        "math",
        "typing",
        "collections",
        "contextlib",
        "contextvars",
        "dataclasses",
        "functools",
        "itertools",
    }
    allowed = {"__future__", "torch"} | standard
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            assert module.startswith("nldsl.codegen.engines.") or module.split(".")[0] in allowed
