"""The study of continual learning: its penalty, its choices and its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nldsl
from bench.continual import report
from bench.continual.plan import ARMS, RATES, SPECS, STUDIES, Arm, Study, Trial, trials_of
from bench.continual.trial import Elastic, run
from nldsl.run.folder import load

STUDY = Study("digits", 27, "accuracy", (0, 1))
ARM = Arm("Hope, 1 level", "Hope1")


class Linear(nn.Module):
    """Logits [B, T, 3] by one matrix from tokens [B, T]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.float64))

    def forward(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Logits and the state as it came."""
        return self.weight[tokens], state


class Sequences:
    """Always the same sequence and targets."""

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One sequence of two tokens, of which one counts."""
        return torch.tensor([[1, 2]]), torch.tensor([[-100, 0]])


def test_the_penalty_is_the_gradient_of_what_it_is_said_to_be() -> None:
    torch.manual_seed(0)
    model = Linear()
    elastic = Elastic(model, strength=3.0)
    expected = torch.zeros_like(model.weight)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    for shift in (0.5, -0.25):
        probability = torch.softmax(model.weight[2].detach(), 0)
        gradient = probability - torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        importance = torch.zeros_like(model.weight)
        importance[2] = gradient**2
        kept.append((importance, model.weight.detach().clone()))
        elastic.keep(Sequences(), -100)
        with torch.no_grad():
            model.weight.add_(shift)
    leaf = model.weight.detach().clone().requires_grad_()
    penalty = sum(3.0 / 2 * (importance * (leaf - anchor) ** 2).sum() for importance, anchor in kept)
    assert isinstance(penalty, torch.Tensor)
    penalty.backward()
    assert leaf.grad is not None
    expected = leaf.grad + 1.0
    model.weight.sum().backward()
    assert model.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, expected, rtol=1e-12, atol=1e-14)


def _write(out: Path, trial: Trial, average: float, frozen: float = 0.0) -> None:
    path = out / "trials" / trial.name
    path.parent.mkdir(parents=True, exist_ok=True)

    def summary(value: float) -> dict[str, dict[str, float]]:
        return {
            "accuracy": dict.fromkeys(report.COLUMNS, value),
            "loss": dict.fromkeys(report.COLUMNS, -value),
        }

    content = {"summary": summary(average), "frozen": summary(frozen), "parameters": 1234}
    path.write_text(json.dumps(content))


def test_the_rate_is_the_best_of_the_first_seed(tmp_path: Path) -> None:
    for average, trial in zip((0.2, 0.6), trials_of(STUDY, ARM, 0, RATES), strict=True):
        _write(tmp_path, trial, average)
    chosen = report.tuned(STUDY, ARM, 1, tmp_path)
    assert (chosen.rate, chosen.seed) == (RATES[1], 1)
    by_loss = Study("digits", 27, "loss", (0, 1))
    assert report.tuned(by_loss, ARM, 1, tmp_path).rate == RATES[1]  # -0.6 is the smaller loss
    _write(tmp_path, chosen, 0.4)
    _write(tmp_path, report.tuned(STUDY, ARM, 0, tmp_path), 0.6, frozen=0.1)
    assert "| Hope, 1 level | 1,234 | 0.006 | 2 | 0.500 ± 0.141 |" in report.table(STUDY, [ARM], tmp_path)
    frozen = Arm("Hope, frozen", "Hope1", "frozen")
    averages = [one["average"] for one in report.results(STUDY, frozen, tmp_path)[1]]
    assert averages == [0.1, 0.0]  # with the rate that is best for a frozen model


def test_a_plot_is_drawn_of_what_is_there(tmp_path: Path) -> None:
    for trial in trials_of(STUDY, ARM, 0, RATES):
        _write(tmp_path, trial, 0.3)
    report.write([STUDY], [ARM], tmp_path)
    assert (tmp_path / "continual.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("way", ["plain", "ewc", "joint"])
def test_a_trial_gives_a_row_for_each_task(tmp_path: Path, way: str) -> None:
    spec = nldsl.load(SPECS / "digits.nl", set=["model = Transformer(vocab = 27)", "data.batch = 2"])
    spec.compile(tmp_path / "build")
    found = run(load(tmp_path / "build"), rate=1e-3, seed=1, way=way, strength=1.0 * (way == "ewc"), each=1)
    assert [len(row["within"]) for row in found["rows"]] == [5] * 6
    assert (found["steps"], found["parameters"]) == (5, 11200)
    assert set(found["summary"]) == {"loss", "accuracy", "within"}
    assert found["frozen"]["loss"]["forgetting"] == 0


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_arms_are_of_one_size(study: Study, tmp_path: Path) -> None:
    for path in SPECS.glob("*.nl"):
        (tmp_path / path.name).write_text(path.read_text())
    sizes: dict[str, int] = {}
    for model in {arm.model for arm in ARMS}:
        spec = nldsl.load(tmp_path / f"{study.name}.nl", set=[f"model = {model}(vocab = {study.vocabulary})"])
        sizes[model] = spec.levels().parameters
    for family in ("HopeAttention", "Hope"):
        own = [size for name, size in sizes.items() if name.rstrip("1234").removesuffix("OneClock") == family]
        assert len(own) == 5
        assert max(own) < 1.01 * min(own)
    assert sizes["Transformer"] == pytest.approx(sizes["HopeAttention1"], rel=0.01)
