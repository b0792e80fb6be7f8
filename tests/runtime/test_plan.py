"""`train.py --plan`: what a run will do, and that it does so."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from nldsl.run.folder import Build

TEXT = """\
Toy: 10 steps of 4 x 16 tokens
token clocks cut the sequences: gradients flow back over 6 to 10 tokens
measures at most 8 held-out windows every 3 steps

level     changes                first             updates  rule   weights
pretrain  every 1 step           step 1                 10  adamw    1,033
fast      every 10 tokens flush  step 1, token 10       20  gd          72
slow      every 4 steps          step 4                  2  gd         144
fast: the sum of its gradients; starts learned in slow; returns to its start with slow

steps     1       9
pretrain  ||||||||||
fast      222r222r22
slow      ...|...|..
          | changes, . gathers, r returns to its start, 2 changes so often in a step
"""


@pytest.fixture
def planned(build: Build) -> Any:
    s = build.schedule
    fast = s.Level(
        "fast", ("fast",), "gd", s.Clock(10, "token", 0, "flush"), s.Rate(0.1), reduce="sum",
        start="learned in slow", reset="with slow",
    )  # fmt: skip
    slow = s.Level("slow", ("slow",), "gd", s.Clock(4), s.Rate(0.1))
    return dataclasses.replace(build.settings, levels=(build.settings.levels[0], fast, slow), steps=10)


def test_the_plan_of_a_run(build: Build, planned: Any) -> None:
    assert build.train.schedule_of(planned) == TEXT


def test_the_trainer_does_what_was_planned(build: Build, planned: Any) -> None:
    changes, back = build.plan.simulate(planned, planned.steps)
    trainer = build.loop.Trainer(planned, torch.device("cpu"))
    for step in range(planned.steps):
        facts = trainer.train_step()
        assert {name: count[step] for name, count in changes.items() if count[step]} == facts["updates"]
        assert [name for name, gone in back.items() if gone[step]] == facts["reset"]


def test_what_never_happens_is_said(build: Build, planned: Any) -> None:
    short = dataclasses.replace(planned, steps=3, frozen=("embed",))
    assert build.train.schedule_of(short).splitlines()[-3:] == [
        "never: fast returns to its start with slow, and the run ends before",
        "never: slow changes every 4 steps, and the run ends before",
        "never: embed stands still",
    ]
    empty = dataclasses.replace(planned, steps=0)
    assert not any(line.startswith("steps ") for line in build.train.schedule_of(empty).splitlines())


def test_what_an_evaluation_measures_is_said_where_it_is_not_the_default(build: Build) -> None:
    s = build.schedule
    text, digits = s.Task("a", "a.txt"), s.Task("1", "digits", kind="classes", labels=("1",))

    def said(windows: Any, *tasks: Any, every: int = 3) -> str:
        data = dataclasses.replace(build.settings.data, tasks=tasks)
        settings = dataclasses.replace(
            build.settings, evaluate_windows=windows, evaluate_every=every, data=data
        )
        return build.train.schedule_of(settings).splitlines()[2]

    assert said(64) == ""
    assert said("all") == "measures all held-out windows every 3 steps"
    assert said("all", text, every=1) == "measures all held-out windows of each task every step"
    assert said(1_000, digits) == "measures at most 1,000 held-out items of each task every 3 steps"
    assert said(9, text, digits) == "measures at most 9 held-out windows or items of each task every 3 steps"


def test_the_command_line_plans_and_trains_nothing(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.train.main(["--plan", "--steps", "5", "--set", "levels.slow.clock=2 steps"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "Toy: 5 steps of 4 x 16 tokens"
    assert "slow      every 2 steps" in shown.out
    assert shown.err == ""
    assert not (build.folder / "runs").exists()
    assert build.train.main(["--plan", "--set", "levels.slow.reset=with nobody"]) == 1
    assert "leans on `nobody`, which is no other level of the run" in capsys.readouterr().err


def test_returns_are_shown_while_training(
    build: Build, planned: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    show = build.session.Printer(planned, every=1)
    trainer = build.loop.Trainer(planned, torch.device("cpu"))
    for step in range(1, 5):
        facts = trainer.train_step()
        show({"event": "step", "step": step, **facts, "tokens_per_second": 1.0, "seconds_left": 0.0})
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("changed: fast, pretrain")
    assert said[3].endswith("changed: fast, pretrain, slow; at their start: fast")
