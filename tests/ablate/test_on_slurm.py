"""Trials that jobs of a queue hold, and the processes of trials that runners elsewhere start."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from nldsl.ablate import on_slurm, owner
from nldsl.ablate.attempt import Attempt
from nldsl.ablate.elsewhere import read_options
from nldsl.ablate.ledger import Entry, Ledger
from nldsl.ablate.on_slurm import holder
from nldsl.ablate.ray_worker import Work, behind, stop_early
from nldsl.ablate.study import Study
from nldsl.run.folder import RunError

from .studies import SPEC, Forked, fork, make, progress_of, warm

LONG = SPEC.replace("steps = 40", "steps = 4000").replace("every 8", "every 20")


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `squeue` that tells what is in the file that is returned, first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    told = tmp_path / "queue"
    told.write_text("71_0\n71_1\n")
    program = folder / "squeue"
    known = f'case "$*" in *--jobs=71) cat {told};; *) echo "Invalid job id" >&2; exit 1;; esac'
    program.write_text(f"#!/bin/sh\n{known}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    owner._queue.cache_clear()
    return told


def test_a_job_in_the_queue_lives(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic() // 10 * 10
    monkeypatch.setattr(time, "monotonic", lambda: began)
    assert owner.queued("71_1").state() is True
    assert owner.queued("71_7").state() is False
    assert owner.queued("72_0").state() is False
    squeue.write_text("71_0\n")
    assert owner.queued("71_1").state() is True  # it is not asked again at once
    monkeypatch.setattr(time, "monotonic", lambda: began + 10)
    assert owner.queued("71_1").state() is False


def test_a_queue_that_does_not_answer_has_lost_no_job(squeue: Path) -> None:
    program = squeue.with_name("bin") / "squeue"
    program.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    assert owner.queued("71_1").state() is None


def test_without_squeue_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    owner._queue.cache_clear()
    assert owner.queued("71_1").state() is None


def claimed(tmp_path: Path, job: str) -> tuple[Ledger, str]:
    ledger = Ledger.create(tmp_path / "study.db")
    ledger.add([Entry("base", "d", 0, 40, 0)])
    claim = ledger.claim()
    assert claim is not None
    assert ledger.entrust(claim.token, holder("slurm", job))
    return ledger, claim.token


def test_nobody_takes_the_trial_of_a_job_that_waits(tmp_path: Path, squeue: Path) -> None:
    ledger, token = claimed(tmp_path, "71_1")
    assert ledger.claim() is None
    assert ledger.free() == []
    taken = ledger.adopt(token)  # the job begins
    assert taken is not None
    assert not ledger.entrust("another", holder("slurm", "71_1"))


def test_the_trial_of_a_job_that_was_cancelled_is_free(tmp_path: Path, squeue: Path) -> None:
    ledger, token = claimed(tmp_path, "71_1")
    squeue.write_text("71_0\n")
    owner._queue.cache_clear()
    assert [one.name for one in ledger.free()] == ["base/seed-0"]
    assert ledger.claim() is not None
    assert ledger.adopt(token) is None  # its job, should it come after all


def test_where_the_queue_cannot_be_asked_its_jobs_keep_their_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    owner._queue.cache_clear()
    ledger, _ = claimed(tmp_path, "71_1")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 6 * 86400)
    assert ledger.claim() is None
    monkeypatch.setattr(time, "time", lambda: now + 8 * 86400)
    assert ledger.claim() is not None


def test_a_claim_that_a_job_adopted_is_not_handed_to_the_queue(tmp_path: Path, squeue: Path) -> None:
    ledger, token = claimed(tmp_path, "71_1")
    assert not ledger.entrust(token, holder("slurm", "71_0"))


def test_without_slurm_there_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path / "study", seeds=1)
    monkeypatch.setattr(on_slurm, "need", lambda *_: None)  # whether or not submitit is here
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError) as caught:
        on_slurm.run(study)
    assert caught.value.diagnostic.code == "NL0934"
    with pytest.raises(RunError) as caught:
        on_slurm.run(study, options={"time": "soon"})
    assert caught.value.diagnostic.code == "NL0931"


def test_a_trial_is_submitted_again_as_long_as_it_comes_further(tmp_path: Path) -> None:
    study = make(tmp_path / "study", seeds=1)
    times: dict[tuple[str, int], int] = {}

    def submitted(step: int) -> None:
        claim = study.ledger.claim("base", 0)
        assert claim is not None
        on_slurm._count(study, [claim], times)
        study.ledger.beat(claim.token, step=step)
        study.ledger.release(claim.token, "the node went down")

    for step in range(2 * on_slurm.SUBMISSIONS):
        submitted(step)
    for _ in range(on_slurm.SUBMISSIONS):
        submitted(0)
    with pytest.raises(RunError, match="the node went down") as caught:
        submitted(0)
    assert caught.value.diagnostic.code == "NL0935"
    assert study.ledger.owners() == {}


def test_jobs_are_asked_for_as_the_options_say(tmp_path: Path) -> None:
    study = make(tmp_path / "study", seeds=1)
    given = {"partition": "long", "time": "2:00:00", "cpus": 4, "gpus": 1, "memory": 1.5}
    wanted = on_slurm.DEFAULTS | read_options("slurm", given, on_slurm.OPTIONS)
    assert on_slurm._parameters(study, wanted, 3) == {
        "name": "nldsl-Parts",
        "timeout_min": 120,
        "cpus_per_task": 4,
        "gpus_per_node": 1,
        "mem_gb": 1.5,
        "slurm_partition": "long",
        "slurm_signal_delay_s": 90,
        "slurm_additional_parameters": {"requeue": True},
        "slurm_array_parallelism": 3,
    }
    short = on_slurm._parameters(study, on_slurm.DEFAULTS | {"time": 2}, None)
    assert short["slurm_signal_delay_s"] == 60  # a job has half of its time at least
    assert not {"gpus_per_node", "mem_gb", "slurm_array_parallelism", "slurm_partition"} & short.keys()
    assert holder("local", str(os.getpid())) == owner.me()


def test_the_end_of_a_trial_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path / "study", seeds=1)
    claims = on_slurm._claims(study)
    told: list[str] = []

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "end":
            told.append(event["trial"].name)
        elif event["event"] == "state" and claims:
            study.ledger.finish(claims.pop().token, "done", step=40)

    monkeypatch.setitem(on_slurm.LOOK, "local", 0.0)
    names = [one.trial.name for one in reversed(claims)]
    on_slurm._watch(study, threading.Event(), hear, on_slurm.DEFAULTS | {"cluster": "local"}, None)
    assert told == names


def test_evaluations_are_told_once(tmp_path: Path) -> None:
    study = make(tmp_path / "study", seeds=1)
    claim = study.ledger.claim("base", 0)
    assert claim is not None
    attempt = Attempt(study, claim, lambda *_: Forked(lambda: 0))
    log = attempt.folder / "log.jsonl"

    def line(step: int, event: str = "evaluate") -> str:
        return json.dumps({"event": event, "step": step, "loss": 1.0}) + "\n"

    def told() -> list[int]:
        return [event["step"] for event in attempt.evaluations()]

    assert told() == []
    log.write_text(line(0) + line(1, "step") + line(8) + line(16)[:9])
    assert told() == [8]  # the loss before training is none
    with log.open("a") as file:
        file.write(line(16)[9:] + line(24))
    assert told() == [16, 24]
    assert told() == []
    part = log.with_name("log.part")  # the process went on from step 16
    part.write_text(line(8) + line(16) + line(24) + line(32) + line(40))
    part.replace(log)
    assert told() == [32]
    assert attempt.process.wait() == 0


def begin(study: Study, variant: str, early: Path) -> Work:
    """The worker of a trial that has come to a checkpoint."""
    work = Work(study.folder, variant, 0, study.folder / "ray" / "halt", early, fork)
    assert work.attempt is not None
    end = time.monotonic() + 90
    while progress_of(study, work.attempt.claim.trial.name)[1] < 20:
        assert work.attempt.code() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return work


def test_workers_that_end_leave_their_trials_waiting_unless_they_are_stopped_early(tmp_path: Path) -> None:
    study = make(tmp_path / "study", spec=LONG, seeds=1)
    warm()
    (study.folder / "ray").mkdir()
    early = behind(study.folder / "ray" / "halt", 1)
    first, second = begin(study, "base", behind(early, 0)), begin(study, "model.dim=16", early)
    attempt, ended = first.attempt, second.attempt
    assert attempt is not None and ended is not None
    steps = [event["step"] for event in attempt.evaluations()]
    assert steps[0] == 20 and steps == sorted(set(steps))
    assert not any(event["step"] in steps for event in attempt.evaluations())

    first.end()  # as when the driver is interrupted twice, or fails
    name = attempt.claim.trial.name
    now = next(one for one in study.trials() if one.name == name)
    assert (now.state, now.problem) == ("waiting", "")
    last, kept = progress_of(study, name)
    assert last == kept  # it wrote a checkpoint of the step in which it was stopped
    assert attempt.interrupt()  # nobody is there

    early.touch()
    second.end()
    name = ended.claim.trial.name
    now = next(one for one in study.trials() if one.name == name)
    found = json.loads((study.folder / "runs" / name / "result.json").read_text())
    assert (now.state, found["state"]) == ("stopped", "stopped")
    assert 20 <= found["steps"] < 4000
    assert found["measures"]["loss"] > 0
    assert study.result_of(now) == found
    assert not early.exists()
    assert ended.process.wait(30) is not None
    stop_early(study, ended)  # it has ended: nothing changes
    assert study.result_of(now) == found
