"""The measurements run: their tables have a row for each variant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import engines, models, sequence
from bench.goals import Goal, faster
from bench.memory import deep
from bench.timing import Timing, costs, interleaved, table


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_variants_take_turns() -> None:
    order: list[str] = []
    timings = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert "speed against a" in table("t", timings, "a")
    assert "| b | 1 |" in costs("t", timings, "a", {"b": "1"}, "parameters")


@pytest.mark.parametrize("name", ["GatedDeltaNet", "RWKV7", "SelfModifying"])
def test_engines_are_timed_on_the_same_numbers(name: str) -> None:
    found = engines.variants(name, 8)
    assert len(found) >= 2
    reads = [run() for run in list(found.values())[:2]]
    torch.testing.assert_close(*reads, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["plain Gated DeltaNet", "Hope, every 16", "Titans, every token"])
def test_models_train(name: str, tmp_path: Path) -> None:
    run = models.trainer(models.build(tmp_path / "m", models.spec(name, 16, 1, 16)), 16, batch=1)
    losses = [run() for _ in range(3)]
    assert losses[-1] < losses[0]


def test_the_reference_is_causal() -> None:
    model = models.Reference(dim=16, depth=1)
    tokens = torch.randint(0, 256, (1, 6))
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 256
    torch.testing.assert_close(model(tokens)[:, :-1], model(changed)[:, :-1])


def test_ways_of_the_deep_memory_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    from nldsl.codegen.engines import frozen_tiles

    monkeypatch.setattr(frozen_tiles, "closed_form_fits", frozen_tiles.closed_form_fits)
    grads = [deep(way, 8, 4, 8)(8) for way in ("closed", "autograd", "per token")]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(grads[0], grads[2], rtol=1e-3, atol=1e-5)


def test_goals_say_whether_they_are_reached() -> None:
    assert Goal("speed", 4.2, 4).row() == "| speed | 4.20 | 4 | yes |"
    assert Goal("cost", 4.2, 4, least=False).row() == "| cost | 4.20 | at most 4 | no |"


def test_ratios_compare_like_with_like() -> None:
    seconds = {"nldsl: x": 1.0, "nldsl: x, compiled": 0.5, "peer f (1)": 4.0, "peer f (1), compiled": 3.0}
    timings = {name: Timing(s, s) for name, s in seconds.items()}
    assert faster(timings, "peer f") == 4.0
    assert faster(timings, "peer f", compiled=True) == 6.0
    assert faster(timings, "another") is None


def test_peaks_are_of_the_program_and_not_of_what_started_it() -> None:
    held = torch.ones(150_000_000)  # 600 MB in this process
    code = "from bench.memory import peak; at = peak(); x = bytearray(200_000_000); print(peak() - at)"
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert len(held) and 100 < float(found.stdout) < 250


def test_chains_inside_the_sequence_are_timed_beside_plain_layers() -> None:
    found = sequence.timed(1, (4, 8), dim=8, batch=1, tokens=17)
    assert list(found) == ["plain layers", *sequence.GRADIENTS]
