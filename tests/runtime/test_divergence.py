"""Levels that leave the numbers are named, and told of before where that can be known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.run.folder import Build

CPU = torch.device("cpu")


def _two(build: Build, rule: str, rate: float, **changes: Any) -> Any:
    """The embedding and one layer by `rule` at `rate`; the rest by AdamW at a rate that does no harm."""
    s = build.schedule
    levels = (
        s.Level("rest", ("rest",), "adamw", s.Clock(1), s.Rate(1e-3)),
        s.Level("wild", ("fast", "embed"), rule, s.Clock(1), s.Rate(rate), **changes),
    )
    return dataclasses.replace(build.settings, levels=levels, clip=None, steps=40, evaluate_every=40)


@pytest.mark.parametrize(("rule", "rate"), [("gd", 10.0), ("gd", 100.0), ("momentum", 30.0)])
def test_a_rate_that_diverges_is_told_of_before_the_numbers_are_gone(
    build: Build, tmp_path: Path, rule: str, rate: float
) -> None:
    events: list[dict[str, Any]] = []
    with pytest.raises(build.schedule.UserError) as caught:
        build.train.train(_two(build, rule, rate), device="cpu", out=tmp_path, listen=events.append)
    assert caught.value.kind == "diverged"
    assert "level `wild`" in caught.value.message
    warnings = [event for event in events if event["event"] == "warning"]
    assert [event["text"].partition(":")[0] for event in warnings] == ["level `wild` may diverge"]
    assert f"levels.wild.rate={rate / 10:g}" in warnings[0]["text"]
    failed = next(event for event in events if event["event"] == "failed")
    assert warnings[0]["step"] < failed["step"]


@pytest.mark.parametrize(
    ("rule", "rate"), [("gd", 0.3), ("gd", 1.0), ("momentum", 0.3), ("adamw", 0.03), ("adamw", 3.0)]
)
def test_a_rate_that_stays_in_the_numbers_is_not_told_of(build: Build, rule: str, rate: float) -> None:
    trainer = build.loop.Trainer(_two(build, rule, rate), CPU)
    assert [trainer.train_step()["warnings"] for _ in range(40)] == [[]] * 40


def test_growing_for_a_warm_up_is_no_divergence(build: Build) -> None:
    settings = _two(build, "gd", 1.0)
    rest, wild = settings.levels
    slow = dataclasses.replace(wild, rate=build.schedule.Rate(1.0, warmup=30))
    trainer = build.loop.Trainer(dataclasses.replace(settings, levels=(rest, slow)), CPU)
    assert [trainer.train_step()["warnings"] for _ in range(40)] == [[]] * 40


def test_a_start_that_is_not_finite_is_named_with_the_level_that_learns_it(build: Build) -> None:
    s = build.schedule
    levels = (
        s.Level("rest", ("rest",), "adamw", s.Clock(1), s.Rate(1e-3)),
        s.Level(
            "quick", ("fast",), "gd", s.Clock(1), s.Rate(0.1), start="learned in slow", reset="with slow"
        ),
        s.Level("slow", ("slow",), "gd", s.Clock(2), s.Rate(0.1)),
    )
    trainer = build.loop.Trainer(dataclasses.replace(build.settings, levels=levels, steps=8), CPU)
    trainer.train_step()
    slow = trainer.learners[2]
    with torch.no_grad():
        slow.parameters["start of fast.weight"][0, 0] = float("inf")
    with pytest.raises(
        s.UserError, match=r"level `slow` has weights that are not finite .`start of fast.weight`"
    ):
        trainer.check_weights()
    slow.parameters["start of fast.weight"].grad = torch.full((8, 8), float("nan"))
    with pytest.raises(s.UserError, match=r"gradient of level `slow` .`start of fast.weight`. is not finite"):
        trainer.train_step()


def test_levels_of_the_last_step_ask_for_no_gradient_on_the_others(build: Build) -> None:
    s = build.schedule
    levels = (
        s.Level("rest", ("rest",), "adamw", s.Clock(1), s.Rate(1e-3)),
        s.Level("quick", ("fast",), "gd", s.Clock(12, "token"), s.Rate(0.1), reduce="last"),
        s.Level("slow", ("slow",), "gd", s.Clock(3), s.Rate(0.1), reduce="last"),
    )
    trainer = build.loop.Trainer(dataclasses.replace(build.settings, levels=levels, steps=8), CPU)
    asked: list[tuple[bool, bool]] = []
    forward = trainer.model.forward

    def spy(tokens: torch.Tensor, state: Any = None) -> Any:
        asked.append((trainer.model.fast.weight.requires_grad, trainer.model.slow.weight.requires_grad))
        return forward(tokens, state)

    trainer.model.forward = spy
    for _ in range(3):
        trainer.train_step()
    # Sequences of 16 tokens, cut after 12; 8; and 4 and 16: heard where an update follows.
    assert asked == [
        (True, False), (False, False), (True, False), (False, False), (True, True), (True, True),
    ]  # fmt: skip
    assert all(p.requires_grad for p in trainer.model.parameters())


def test_a_step_in_which_nobody_listens_changes_nothing(build: Build) -> None:
    s = build.schedule
    only = s.Level("all", ("rest",), "gd", s.Clock(2), s.Rate(0.1), reduce="last")
    trainer = build.loop.Trainer(dataclasses.replace(build.settings, levels=(only,), steps=4), CPU)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    facts = trainer.train_step()
    assert (facts["updated"], facts["norm"], facts["loss"] > 0) == ([], 0.0, True)
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())
    assert trainer.train_step()["updated"] == ["all"]


def test_copies_have_to_have_a_place(build: Build) -> None:
    s = build.schedule
    levels = (
        s.Level("rest", ("rest",), "gd", s.Clock(1), s.Rate(0.1)),
        s.Level("quick", ("fast", "slow"), "gd", s.Clock(1), s.Rate(0.1), start="copy of rest"),
    )
    with pytest.raises(s.UserError, match=r"no weight of `rest` stand where `fast\.weight` does"):
        build.loop.Trainer(dataclasses.replace(build.settings, levels=levels), CPU)
