"""One trial and its process: what is noted, in which order, and how ends are counted; nothing is trained."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.ablate import local, trial
from nldsl.ablate.attempt import Attempt, was_killed
from nldsl.ablate.ledger import KILLS, TRIES, Claim
from nldsl.ablate.study import Study
from nldsl.ablate.trial import INTERRUPTED, TAKEN, UNWRITABLE, Taken
from nldsl.diagnostics.model import Diagnostic
from nldsl.run.folder import RunError

from .studies import STEPS, make

Work = Callable[[Study, Claim, Any, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that nobody changes."""
    return make(tmp_path_factory.mktemp("fresh") / "study", seeds=1)


@pytest.fixture
def study(fresh: Study, tmp_path: Path) -> Study:
    """A copy of it."""
    shutil.copytree(fresh.folder, tmp_path / "study")
    return Study(tmp_path / "study", fresh.asked)


def result(study: Study) -> dict[str, Any]:
    """What a trial of the base would find."""
    found = {"format": 1, "digest": study.row("base").digest, "seed": 0, "state": "done", "problem": ""}
    return found | {"steps": STEPS, "seconds": 2.5}


def state(study: Study) -> str:
    return study.trials()[0].state


def does(monkeypatch: pytest.MonkeyPatch, body: Work) -> None:
    """Let `body` stand for the training."""
    monkeypatch.setattr(trial, "_attempt", body)


def raises(error: BaseException) -> Work:
    def body(*_: object) -> dict[str, Any]:
        raise error

    return body


# ---------------------------------------------------------------------- the work


def test_a_result_is_written_before_its_end_is_noted(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    write, seen = trial._write_result, []

    def looked(one: Study, claim: Claim, found: dict[str, Any]) -> None:
        seen.append(state(study))
        write(one, claim, found)

    monkeypatch.setattr(trial, "_write_result", looked)
    (study.folder / "runs" / "base" / "seed-0").mkdir(parents=True)
    does(monkeypatch, lambda *_: result(study))
    trial.work(study.folder, "base", 0)
    assert (seen, state(study)) == (["running"], "done")


def test_who_has_lost_the_claim_writes_no_result(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken_over(one: Study, claim: Claim, *_: object) -> dict[str, Any]:
        one.ledger.release(claim.token)
        assert one.ledger.claim("base", 0) is not None
        return result(study)

    does(monkeypatch, taken_over)
    with pytest.raises(Taken):
        trial.work(study.folder, "base", 0)
    assert study.result_of(study.trials()[0]) is None
    assert state(study) == "running"


def test_signs_of_life_come_by_themselves(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "BEAT", 0.01)

    def slow(_study: Study, _claim: Claim, heart: Any, _listen: object) -> dict[str, Any]:
        heart.step = 3
        end = time.monotonic() + 30
        while study.trials()[0].step != 3:
            assert time.monotonic() < end, "nothing is told"
            time.sleep(0.01)
        raise KeyboardInterrupt

    does(monkeypatch, slow)
    with pytest.raises(KeyboardInterrupt):
        trial.work(study.folder, "base", 0)
    assert state(study) == "waiting"


def test_what_earlier_attempts_took_is_counted(study: Study) -> None:
    first = study.ledger.claim("base", 0)
    assert first is not None
    study.ledger.beat(first.token, seconds=100.0, cpu_seconds=50.0)
    study.ledger.release(first.token)
    again = study.ledger.claim("base", 0)
    assert again is not None
    heart = trial._Heart(study.ledger, again)
    assert 100 <= heart.seconds < 160
    assert 50 <= heart.cpu_seconds < 110


def test_the_database_knows_of_the_last_checkpoint(done: Study) -> None:
    with sqlite3.connect(done.ledger.path) as db:
        assert {kept for (kept,) in db.execute("SELECT kept FROM trials")} == {STEPS}


@pytest.mark.parametrize(
    "error", [MemoryError(), RunError(Diagnostic("NL0807", "out of memory")), ValueError("no")], ids=repr
)
def test_attempts_that_fail_are_counted(
    study: Study, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    does(monkeypatch, raises(error))
    for _ in range(TRIES):
        with pytest.raises((RunError, ValueError)):
            trial.work(study.folder, "base", 0)
    assert state(study) == "failed"
    assert study.trials()[0].problem


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RunError(Diagnostic("NL0806", "cannot write")),
        trial.Interrupted(),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_ends_that_are_nobodys_fault_are_not(
    study: Study, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    does(monkeypatch, raises(error))
    for _ in range(TRIES + 1):
        with pytest.raises((RunError, trial.Interrupted, KeyboardInterrupt)):
            trial.work(study.folder, "base", 0)
    assert state(study) == "waiting"
    assert study.ledger.owners() == {}


def test_a_claim_is_of_one_trial(study: Study) -> None:
    other = study.trials()[1]
    claim = study.ledger.claim(other.variant, other.seed)
    assert claim is not None
    with pytest.raises(Taken):
        trial.work(study.folder, "base", 0, token=claim.token)
    assert state(study) == "waiting"


def test_trials_have_one_thread(study: Study) -> None:
    place = study.folder_of(study.trials()[0])
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(result(study)))
    torch.set_num_threads(2)
    try:
        assert trial.main([str(study.folder), "base", "0"]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


# ---------------------------------------------------------------------- its process


class Ended:
    """A process that is over."""

    pid = 0

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, _number: int, /) -> None:
        raise ProcessLookupError

    def wait(self, timeout: float | None = None) -> int:
        return self.code


def settled(study: Study, code: int) -> str:
    """How the trial of the base stands after a process of it that ended with `code`."""
    claim = study.ledger.claim("base", 0)
    assert claim is not None
    return Attempt(study, claim, lambda *_: Ended(code)).settle(code).state


@pytest.mark.parametrize(
    ("code", "most"),
    [(-signal.SIGKILL, KILLS), (-signal.SIGTERM, KILLS), (-signal.SIGSEGV, TRIES), (1, TRIES), (2, TRIES)],
)
def test_kills_say_less_than_crashes(study: Study, code: int, most: int) -> None:
    assert was_killed(code) == (most == KILLS)
    assert [settled(study, code) for _ in range(most)] == ["waiting"] * (most - 1) + ["failed"]


@pytest.mark.parametrize("code", [INTERRUPTED, UNWRITABLE])
def test_interruptions_and_full_disks_are_no_failures(study: Study, code: int) -> None:
    assert [settled(study, code) for _ in range(TRIES + 1)] == ["waiting"] * (TRIES + 1)


def test_a_process_that_found_somebody_else_at_work_leaves_the_trial_to_them(study: Study) -> None:
    claim = study.ledger.claim("base", 0)
    assert claim is not None
    attempt = Attempt(study, claim, lambda *_: Ended(TAKEN))
    study.ledger.release(claim.token)
    assert study.ledger.claim("base", 0) is not None
    assert attempt.settle(TAKEN).state == "running"


def test_no_more_is_done_at_once_than_was_asked_for(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SHOW", 0.0)
    stop, begun = threading.Event(), []

    class Endless(Ended):
        def poll(self) -> int | None:
            return INTERRUPTED if stop.is_set() else None

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "begin":
            begun.append(event["trial"].name)
        elif event["event"] == "state" and len(begun) >= 2:
            stop.set()

    assert local.run(study, jobs=2, stop=stop, tell=hear, start=lambda *_: Endless(0)) == INTERRUPTED
    assert len(begun) == 2 < len(study.trials())
    assert {one.state for one in study.trials()} == {"waiting"}


def test_a_process_that_cannot_begin_leaves_its_trial_waiting(study: Study) -> None:
    claim = study.ledger.claim("base", 0)
    assert claim is not None

    def full(*_: object) -> Ended:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError) as caught:
        Attempt(study, claim, full)
    assert caught.value.diagnostic.code == "NL0903"
    assert (state(study), study.ledger.owners()) == ("waiting", {})
