"""Calibrations: what a process of its own finds out in a given time, and what is made of it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

import nldsl
from nldsl.ablate import calibrate as c
from nldsl.ablate.calibrate import Estimate, Times, calibrate
from nldsl.ablate.table import as_json, as_text

from .plans import SMALL, plan_of, spec_of


def test_a_calibration_times_every_variant_in_a_process_of_its_own() -> None:
    plan = plan_of(only=["store"])
    found = calibrate(plan, 120)
    assert (list(found.times), found.problem) == (["base", "without-Small_block.store"], "")
    for times in found.times.values():
        assert times.measured
        assert times.steps >= c.FEWEST
        assert 0 < times.step < times.around
    assert found.total(plan) == pytest.approx(2 * sum(4 * t.step + t.around for t in found.times.values()))


def test_a_calibration_ends_in_time_and_scales_what_it_did_not_come_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two variants the process comes to one: the other is scaled by its FLOPs, and marked."""
    facts = {
        "import": 1.0,
        "start": 0.5,
        "evaluations": 3,
        "batches": 6,
        "checkpoints": 2,
        "evaluation": 0.25,
    }

    class Slow:
        left, gone, problem = 0.0, False, "the time was up"

        def __init__(self, deadline: float) -> None:
            self.left = deadline

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            assert Path(request["folder"], "model.py").is_file()
            self.left = 0.0
            return facts | {"steps": [9.0, 0.5, 0.5], "checkpoint": 0.125}

    monkeypatch.setattr(c, "_Runner", Slow)
    plan = plan_of(only=["store"])
    found = calibrate(plan, 5)
    base, store = found.times["base"], found.times["without-Small_block.store"]
    assert base == Times(0.5, 1.0 + 0.5 + 4 * 0.25 + 2 * 0.125, 3)
    share = plan.rows[1].flops_per_token / plan.rows[0].flops_per_token
    assert store == Times(0.5 * share, base.around * share, 0, measured=False)
    assert found.per_step == {"base": 0.5}
    text = as_text(plan, found, jobs=2)
    assert "1 more (~) scaled by FLOPs: the time was up" in text
    assert "  ~" in text
    rows = json.loads(as_json(plan, found))["rows"]
    assert [row["seconds_measured"] for row in rows] == [True, False]


def test_time_that_is_up_leaves_nothing_behind() -> None:
    begun = time.monotonic()
    found = calibrate(plan_of(only=["store"]), 0.2)
    assert time.monotonic() - begun < 20
    assert (found.times, found.problem) == ({}, "the time was up")
    assert "no time can be told: the time was up" in as_text(plan_of(only=["store"]), found)


def test_a_variant_that_cannot_be_trained_is_told_and_does_not_end_the_calibration(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    requests = [f'{{"folder": "{tmp_path}", "seconds": 1}}'] * 2
    c.work(requests, told.append)
    assert [list(one) for one in told] == [["import"], ["problem"], ["end"]] * 2
    assert told[1]["problem"].startswith("RunError: ")


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "_MODULE", "nldsl.no_such_module")
    found = calibrate(plan_of(only=["store"]), 60)
    assert found.times == {}
    assert found.problem.startswith("the process ended with 1: ")
    assert "No module named nldsl.no_such_module" in found.problem


def test_how_often_a_training_evaluates_and_saves() -> None:
    settings = SimpleNamespace(
        steps=100,
        evaluate_every=30,
        checkpoint_every=0,
        data=SimpleNamespace(batch=5),
    )
    assert c._often(settings, 64) == {"evaluations": 5, "batches": 13, "checkpoints": 4}


def test_an_evaluation_of_all_windows_is_counted_by_those_there_are(tmp_path: Path) -> None:
    text = SMALL.replace("steps = 4\n", "steps = 4\n  evaluate_windows = all\n")
    (tmp_path / "own.txt").write_text("some words " * 160)  # 176 bytes are held out: 10 windows of 16
    (tmp_path / "own.nl").write_text(text.replace('"sotu"', '"own.txt"').replace("manifest", "tail"))
    nldsl.load(tmp_path / "own.nl").compile(tmp_path / "build")
    told: list[dict[str, Any]] = []
    c.work([json.dumps({"folder": str(tmp_path / "build"), "seconds": 60})], told.append)
    assert [one["batches"] for one in told if "batches" in one] == [5]


def test_a_checkpoint_is_kept_as_often_as_is_asked() -> None:
    settings = SimpleNamespace(
        steps=100, evaluate_every=30, checkpoint_every=20, data=SimpleNamespace(batch=5)
    )
    assert c._often(settings, 64) == {"evaluations": 5, "batches": 13, "checkpoints": 5}


def test_the_first_step_counts_only_where_there_is_no_other() -> None:
    facts = {"import": 1.0, "start": 0.5, "evaluations": 3, "batches": 6, "checkpoints": 2}
    facts |= {"evaluation": 0.25, "checkpoint": 0.125}
    times = [c._times({**facts, "steps": steps}) for steps in ([9.0, 1.0, 2.0], [9.0])]
    assert [one.step for one in times if one is not None] == [1.5, 9.0]


def test_an_evaluation_that_was_not_reached_takes_a_third_of_a_step_a_batch() -> None:
    facts = {"import": 1.0, "start": 0.5, "evaluations": 3, "batches": 6, "checkpoints": 2}
    assert c._times({**facts, "steps": [3.0]}) == Times(3.0, 1.0 + 0.5 + 4 * 6 * 1.0, 1)


def test_variants_share_the_time_and_one_takes_no_more_than_its_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[float] = []

    class Even:
        left, gone, problem = 8.0, False, ""

        def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            asked.append(request["seconds"])
            self.left -= 3.0
            return {"steps": []}

    c._facts(plan_of(only=["store"]), tmp_path, cast("c._Runner", Even()))
    assert asked == [4.0, 5.0]


def test_no_more_steps_are_run_when_the_part_is_used_up(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    spec_of().compile(tmp_path / "build")
    c.work([json.dumps({"folder": str(tmp_path / "build"), "seconds": 0.0})], told.append)
    assert len([one for one in told if "step" in one]) == c.FEWEST


def test_a_study_takes_no_less_than_its_longest_trial() -> None:
    plan = plan_of(only=["store"])
    base, store = (replace(row, steps=10) for row in plan.rows)
    plan = replace(plan, rows=(base, store))
    found = Estimate({"base": Times(1.0, 5.0, 3), store.name: Times(0.1, 1.0, 3)}, 4.0)
    assert found.total(plan) == pytest.approx(2 * (15 + 2))
    assert found.wall(plan, 2) == pytest.approx(17)
    assert found.wall(plan, 8) == pytest.approx(15)
