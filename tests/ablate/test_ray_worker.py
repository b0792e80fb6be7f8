"""What the worker of a Ray node does for a trial; Ray itself and real processes are not needed for it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nldsl.ablate.attempt import Attempt
from nldsl.ablate.ray_worker import Work, stop_early
from nldsl.ablate.rows import Trial
from nldsl.ablate.study import Study
from nldsl.ablate.trial import UNWRITABLE

from .studies import STEPS, make


@dataclass
class Told:
    """A process that ended with `status`, or works while that is None; nobody has its number."""

    status: int | None = None
    pid: int = 2**30

    def poll(self) -> int | None:
        return self.status

    def send_signal(self, sig: int, /) -> None: ...

    def wait(self, timeout: float | None = None) -> int:
        return self.status or 0


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make(tmp_path / "study", seeds=1)


def trial_of(study: Study) -> Trial:
    return next(one for one in study.trials() if one.variant == "base")


def begin(study: Study, status: int | None, *, evaluations: bool = False) -> Work:
    """The worker of the baseline, whose process ended with `status`."""
    work = Work(
        study.folder, "base", 0, study.folder / "halt", study.folder / "early", lambda *_: Told(status)
    )
    if evaluations:
        lines = [{"event": "evaluate", "step": step, "loss": loss} for step, loss in ((8, 3.0), (16, 2.0))]
        log = study.folder_of(trial_of(study)) / "log.jsonl"
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return work


def test_every_evaluation_is_reported_before_the_end_is(study: Study) -> None:
    work = begin(study, 0, evaluations=True)
    assert [work.step() for _ in range(3)] == [
        {"loss": 3.0, "share": 20.0, "done": False},  # percent of the steps
        {"loss": 2.0, "share": 40.0, "done": False},
        {"done": True},
    ]


def test_a_killed_process_is_told_as_an_error_unless_all_is_to_stop(study: Study) -> None:
    with pytest.raises(RuntimeError, match="SIGKILL"):
        begin(study, -9).step()
    assert trial_of(study).state == "waiting"
    work = begin(study, -9)
    (study.folder / "halt").touch()
    assert work.step() == {"done": True}


def test_a_worker_that_begins_when_all_is_to_stop_takes_nothing(study: Study) -> None:
    (study.folder / "halt").touch()
    assert begin(study, None).step() == {"done": True}
    assert trial_of(study).state == "waiting"


def test_what_is_to_stop_is_interrupted(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Told()

    def end(_attempt: Attempt, grace: float = 0.0) -> bool:
        process.status = 130
        return True

    monkeypatch.setattr(Attempt, "interrupt", end)
    work = Work(study.folder, "base", 0, study.folder / "halt", study.folder / "early", lambda *_: process)
    (study.folder / "halt").touch()
    assert work.step() == {"done": True}
    assert trial_of(study).state == "waiting"


def test_a_full_disk_is_told_with_its_reason(study: Study) -> None:
    work = begin(study, UNWRITABLE)
    (study.folder_of(trial_of(study)) / "output.txt").write_text("error: cannot write `x`: full\n")
    assert work.step() == {"done": True, "full": "cannot write `x`: full"}


def test_nobody_waits_for_a_trial_that_has_ended(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    work = begin(study, 0)
    assert work.attempt is not None
    study.ledger.finish(work.attempt.claim.token, "done", step=STEPS)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    assert begin(study, None).attempt is None


def test_a_worker_that_ends_lets_its_trial_wait(study: Study) -> None:
    begin(study, None).end()
    assert trial_of(study).state == "waiting"


@pytest.mark.parametrize("comes", ["never", "before", "meanwhile"])
def test_a_true_result_counts_more_than_an_early_stop(
    study: Study, comes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = begin(study, None, evaluations=True)
    attempt, trial = work.attempt, trial_of(study)
    assert attempt is not None
    path = study.folder_of(trial) / "result.json"
    true: dict[str, Any] = {
        "format": 1,
        "variant": "base",
        "digest": study.row("base").digest,
        "seed": 0,
        "state": "done",
        "problem": "",
        "steps": STEPS,
        "measures": {"loss": 1.0},
        "documents": [],
        "unit": "document",
        "tasks": None,
        "parameters": 1,
        "seconds": 2.0,
        "cpu_seconds": 2.0,
        "tokens_per_second": 1.0,
        "torch": "",
        "nldsl": "",
    }
    seen: list[bool] = []

    def interrupt(grace: float = 0.0) -> bool:
        seen.append(study.result_of(trial) is not None)
        if comes == "meanwhile":
            path.write_text(json.dumps(true))
        return True

    monkeypatch.setattr(attempt, "interrupt", interrupt)
    if comes == "before":
        path.write_text(json.dumps(true))
    stop_early(study, attempt)
    assert seen == [True]  # a result is there from the moment on in which the end is noted
    now, found = trial_of(study), study.result_of(trial)
    assert found is not None
    if comes == "never":
        why = f"stopped early at step 16 of {STEPS}"
        assert (now.state, now.step, now.problem) == ("stopped", 16, why)
        assert (found["state"], found["steps"], found["problem"]) == ("stopped", 16, why)
        assert found["measures"] == {"loss": 2.0}
    else:
        assert (now.state, now.step, now.problem) == ("done", STEPS, "")
        assert found == true


def test_a_trial_that_has_ended_by_itself_is_not_stopped(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = begin(study, None, evaluations=True).attempt
    assert attempt is not None
    study.ledger.finish(attempt.claim.token, "done", step=STEPS)
    monkeypatch.setattr(attempt, "interrupt", lambda: pytest.fail("it is stopped"))
    stop_early(study, attempt)
    assert (trial_of(study).state, study.result_of(trial_of(study))) == ("done", None)
