"""The database of trials: claims, and owners that live or do not."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nldsl.ablate import ledger as ledgers
from nldsl.ablate import owner as owners
from nldsl.ablate.ledger import KILLS, TRIES, Entry, Ledger
from nldsl.ablate.owner import Owner, began, me
from nldsl.run.folder import RunError

from .studies import Forked


def entries(count: int) -> list[Entry]:
    return [Entry(f"v{i}", f"digest {i}", 0, 10, i) for i in range(count)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.create(tmp_path / "study.db")
    made.add(entries(3))
    return made


def states(ledger: Ledger) -> list[str]:
    return [one.state for one in ledger.trials()]


def comes(what: Callable[[], bool]) -> bool:
    """Whether something comes about within a time that is long for a busy machine."""
    end = time.monotonic() + 30
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    return what()


def give(ledger: Ledger, token: str, owner: Owner) -> None:
    """Let somebody else be the owner of a claim."""
    assert ledger.entrust(token, owner)


def test_a_trial_goes_from_waiting_to_done(ledger: Ledger) -> None:
    claim = ledger.claim()
    assert claim is not None
    assert (claim.trial.name, claim.trial.state, claim.trial.attempts) == ("v0/seed-0", "running", 1)
    assert ledger.beat(claim.token, step=4, kept=2, seconds=1.5)
    assert (ledger.trials()[0].step, ledger.trials()[0].seconds) == (4, 1.5)
    assert ledger.finish(claim.token, "done", step=10, seconds=3.0)
    assert states(ledger) == ["done", "waiting", "waiting"]
    assert ledger.owners() == {}


def test_one_that_is_named_is_taken_before_its_turn(ledger: Ledger) -> None:
    claim = ledger.claim("v2", 0)
    assert claim is not None
    assert claim.trial.variant == "v2"
    assert ledger.claim("v2", 0) is None
    assert ledger.claim("v9", 0) is None


def test_every_trial_is_taken_once(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study.db")
    ledger.add(entries(60))

    def take() -> int:
        lines = []
        while (claim := ledger.claim()) is not None:
            lines.append(claim.trial.name)
        (tmp_path / f"{os.getpid()}.txt").write_text("\n".join(lines))
        return int(not comes(lambda: len(list(tmp_path.glob("*.txt"))) == 4))  # alive while the others look

    workers = [Forked(take) for _ in range(4)]
    assert [one.wait() for one in workers] == [0] * 4
    taken = [line for path in tmp_path.glob("*.txt") for line in path.read_text().splitlines()]
    assert sorted(taken) == sorted(f"v{i}/seed-0" for i in range(60))


def test_a_claim_that_was_lost_changes_nothing(ledger: Ledger) -> None:
    claim = ledger.claim()
    assert claim is not None
    ledger.release(claim.token)
    assert not ledger.beat(claim.token, step=9)
    again = ledger.claim()
    assert again is not None
    assert again.trial.attempts == 2
    assert not ledger.beat(claim.token, step=9)
    assert not ledger.finish(claim.token, "done", step=10)
    assert not ledger.release(claim.token)
    assert ledger.fail(claim.token, "too late") is None
    assert ledger.adopt(claim.token) is None
    assert ledger.adopt(again.token) is not None
    assert (states(ledger)[0], ledger.trials()[0].step) == ("running", 0)


def test_what_dead_processes_leave_is_taken_over(ledger: Ledger) -> None:
    claim = ledger.claim()
    assert claim is not None
    gone = Forked(lambda: 0)
    owner = Owner(owners.this_host(), gone.pid, began(gone.pid) or "gone before it was looked at")
    give(ledger, claim.token, owner)
    assert gone.wait() == 0
    again = ledger.claim()
    assert again is not None
    assert again.trial.name == claim.trial.name
    assert not ledger.beat(claim.token)


def test_a_process_that_lives_keeps_its_claim(ledger: Ledger) -> None:
    claim = ledger.claim()
    assert claim is not None
    other = ledger.claim()
    assert other is not None
    assert other.trial.name == "v1/seed-0"


def test_a_number_that_was_given_again_is_another_process(ledger: Ledger) -> None:
    claim = ledger.claim()
    assert claim is not None
    give(ledger, claim.token, Owner(owners.this_host(), os.getpid(), "long ago"))
    again = ledger.claim()
    assert again is not None
    assert again.trial.name == claim.trial.name


def test_a_silent_machine_loses_its_trial_after_a_minute(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = ledger.claim()
    assert claim is not None
    give(ledger, claim.token, Owner("elsewhere", 1, "x"))
    now = time.monotonic()

    def taken(seconds: float) -> str:
        monkeypatch.setattr(ledgers.time, "monotonic", lambda: now + seconds)
        found = ledger.claim()
        assert found is not None
        ledger.release(found.token)
        return found.trial.name

    assert taken(0) == "v1/seed-0"
    assert taken(59) == "v1/seed-0"
    assert ledger.beat(claim.token)  # it lives
    assert taken(70) == "v1/seed-0"
    assert taken(129) == "v1/seed-0"
    assert taken(131) == "v0/seed-0"


def test_somebody_who_has_only_begun_to_look_goes_by_the_clock(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = ledger.claim("v0", 0)
    assert claim is not None
    give(ledger, claim.token, Owner("elsewhere", 1, "x"))
    now = time.time()
    monkeypatch.setattr(ledgers.time, "time", lambda: now + 590)
    assert Ledger(ledger.path).claim("v0", 0) is None
    monkeypatch.setattr(ledgers.time, "time", lambda: now + 610)
    assert "v0" in [one.variant for one in Ledger(ledger.path).free()]
    assert ledger.beat(claim.token)  # it lives
    assert Ledger(ledger.path).claim("v0", 0) is None
    monkeypatch.setattr(ledgers.time, "time", lambda: now + 1220)
    monkeypatch.setattr(ledgers, "me", lambda: Owner("elsewhere", 2, "y"))
    assert ledger.adopt(claim.token)
    assert Ledger(ledger.path).claim("v0", 0) is None
    monkeypatch.setattr(ledgers.time, "time", lambda: now + 1830)
    assert Ledger(ledger.path).claim("v0", 0) is not None


@pytest.mark.parametrize(("killed", "most"), [(False, TRIES), (True, KILLS)])
def test_a_trial_that_always_ends_badly_has_failed(ledger: Ledger, killed: bool, most: int) -> None:
    for attempt in range(1, most + 1):
        claim = ledger.claim("v0", 0)
        assert claim is not None
        state = ledger.fail(claim.token, "it broke", killed=killed)
        assert state == ("failed" if attempt == most else "waiting")
    assert ledger.claim("v0", 0) is None
    assert ledger.trials()[0].problem == "it broke"
    assert ledger.retry() == 1
    assert ledger.claim("v0", 0) is not None


def test_kills_and_crashes_count_together(ledger: Ledger) -> None:
    def end(killed: bool) -> str | None:
        claim = ledger.claim("v0", 0)
        assert claim is not None
        return ledger.fail(claim.token, "it broke", killed=killed)

    assert {end(killed=True) for _ in range(TRIES)} == {"waiting"}
    assert {end(killed=False) for _ in range(TRIES - 1)} == {"waiting"}
    assert end(killed=True) == "failed"


def test_a_trial_that_gets_on_may_be_interrupted_often(ledger: Ledger) -> None:
    for kept in range(1, 8):
        claim = ledger.claim("v0", 0)
        assert claim is not None
        assert ledger.beat(claim.token, step=kept, kept=kept)
        assert ledger.fail(claim.token, "it broke") == "waiting"


def test_signs_of_life_are_no_progress(ledger: Ledger) -> None:
    claim = ledger.claim("v0", 0)
    assert claim is not None
    assert ledger.beat(claim.token, step=4, kept=2, seconds=3.0)
    assert ledger.beat(claim.token, step=0, kept=0, seconds=1.0)  # one that goes on has yet to load
    assert (ledger.trials()[0].step, ledger.trials()[0].seconds) == (4, 3.0)
    ledger.release(claim.token)
    found = []
    for _ in range(TRIES):
        claim = ledger.claim("v0", 0)
        assert claim is not None
        assert ledger.beat(claim.token, step=3, kept=2)
        found.append(ledger.fail(claim.token, "it broke"))
    assert found == ["waiting"] * (TRIES - 1) + ["failed"]


def test_a_trial_that_is_done_anew_has_all_its_attempts_and_its_own_checkpoints(ledger: Ledger) -> None:
    claim = ledger.claim("v0", 0)
    assert claim is not None
    assert ledger.beat(claim.token, step=8, kept=8)
    assert ledger.fail(claim.token, "it broke") == "waiting"
    ledger.again("v0", 0, "its result is lost")
    for kept in (0, 0, 1, 1):  # the third comes to a new checkpoint
        claim = ledger.claim("v0", 0)
        assert claim is not None
        assert ledger.beat(claim.token, kept=kept)
        assert ledger.fail(claim.token, "it broke") == "waiting"


def test_processes_that_die_again_and_again_fail_their_trial(ledger: Ledger) -> None:
    for _ in range(KILLS):
        claim = ledger.claim("v0", 0)
        assert claim is not None
        give(ledger, claim.token, Owner(owners.this_host(), os.getpid(), "long ago"))
    assert ledger.claim("v0", 0) is None
    assert (states(ledger)[0], ledger.trials()[0].problem) == ("failed", "its process was killed")


def test_what_is_worked_on_is_not_begun_anew(ledger: Ledger) -> None:
    claim = ledger.claim("v0", 0)
    assert claim is not None
    ledger.again("v0", 0, "its result is lost")
    assert ledger.beat(claim.token)
    assert states(ledger)[0] == "running"


def test_a_failed_trial_that_is_tried_again_has_all_its_attempts(ledger: Ledger) -> None:
    def fails() -> str | None:
        claim = ledger.claim("v0", 0)
        assert claim is not None
        return ledger.fail(claim.token, "it broke")

    assert [fails() for _ in range(TRIES)][-1] == "failed"
    ledger.retry()
    assert [fails() for _ in range(TRIES)] == ["waiting"] * (TRIES - 1) + ["failed"]


def test_turns_are_those_that_were_asked_for_last(ledger: Ledger) -> None:
    ledger.add([Entry(f"v{i}", f"digest {i}", 0, 10, 2 - i) for i in range(3)])
    assert [one.variant for one in ledger.trials()] == ["v2", "v1", "v0"]


def test_trials_are_asked_for_or_not(ledger: Ledger) -> None:
    ledger.add(entries(2))
    assert [one.variant for one in ledger.trials()] == ["v0", "v1"]
    assert len(ledger.trials(everything=True)) == 3
    assert ledger.claim("v2", 0) is None


def test_a_second_creation_keeps_the_first(ledger: Ledger) -> None:
    assert len(Ledger.create(ledger.path).trials()) == 3
    assert [path.name for path in ledger.path.parent.iterdir()] == ["study.db"]
    with sqlite3.connect(ledger.path) as db:  # a write-ahead log needs the memory of one machine
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_locked_database_is_a_finding(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "LOCKED", 0.1)
    with sqlite3.connect(ledger.path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunError) as error:
            ledger.claim()
        other.execute("ROLLBACK")
    assert error.value.diagnostic.code == "NL0907"
    assert ledger.claim() is not None


def test_a_database_that_cannot_be_opened_is_not_damaged(ledger: Ledger) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(RunError) as error:
            ledger.damage()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert error.value.diagnostic.code == "NL0903"
    assert ledger.damage() is None


def test_a_database_that_breaks_meanwhile_is_a_finding(ledger: Ledger) -> None:
    ledger.path.write_bytes(b"nonsense" * 1024)
    with pytest.raises(RunError) as error:
        ledger.trials()
    assert error.value.diagnostic.code == "NL0906"
    ledger.path.unlink()
    with pytest.raises(RunError) as error:
        ledger.claim()
    assert error.value.diagnostic.code == "NL0906"
    assert not ledger.path.exists()


def test_a_writer_that_is_killed_leaves_a_whole_database(ledger: Ledger) -> None:
    script = (
        "import sys; from pathlib import Path; from nldsl.ablate.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "claim = ledger.claim('v0', 0)\n"
        "print(flush=True)\n"
        "step = 0\n"
        "while True:\n"
        "    step += 1\n"
        "    ledger.beat(claim.token, step=step)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(ledger.path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert ledger.damage() is None
    assert ledger.trials()[0].step > 0
    claim = ledger.claim("v0", 0)
    assert claim is not None


def test_others_go_on_while_somebody_asks_who_lives(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "LOCKED", 0.1)
    other = ledger.claim("v1", 0)
    lost = ledger.claim("v0", 0)
    assert other is not None and lost is not None

    def asked(_owner: Owner) -> bool:
        assert ledger.beat(other.token, step=1)
        return False

    monkeypatch.setattr(Owner, "state", asked)
    assert ledger.claim("v0", 0) is not None


@pytest.mark.parametrize(
    "sign",
    [
        lambda ledger, token: ledger.beat(token),
        lambda ledger, token: ledger.adopt(token),
        lambda ledger, token: ledger.entrust(token, Owner("elsewhere", 1, "x")),
    ],
    ids=["beat", "adopt", "entrust"],
)
def test_a_sign_of_life_while_somebody_looks_keeps_a_claim(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, sign: Callable[[Ledger, str], object]
) -> None:
    claim = ledger.claim("v0", 0)
    assert claim is not None

    def late(_owner: Owner) -> bool:
        assert sign(ledger, claim.token)
        return False

    monkeypatch.setattr(Owner, "state", late)
    assert ledger.claim("v0", 0) is None
    assert ledger.beat(claim.token)


# ---------------------------------------------------------------------- owners


def test_processes_live_and_die() -> None:
    assert me().state() is True
    assert Owner("elsewhere", os.getpid(), "x").state() is None
    child = Forked(lambda: 0)
    owner = Owner(owners.this_host(), child.pid, began(child.pid) or "")
    assert comes(lambda: owner.state() is False), "one that has ended is dead before anybody waits"
    child.wait()
    assert owner.state() is False


def test_a_start_is_the_same_whoever_looks() -> None:
    child = Forked(lambda: time.sleep(30) or 0)
    try:
        first = began(child.pid)
        assert first
        time.sleep(0.1)
        assert began(child.pid) == first != began(os.getpid())
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_numbers_of_processes_are_of_one_start_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before, here = began(os.getpid()), owners.this_host.__wrapped__()
    monkeypatch.setattr(owners, "_boot", lambda: "another start of the machine")
    assert began(os.getpid()) != before
    monkeypatch.setattr(owners.os, "readlink", lambda _path: "pid:[1]")  # in a container of it
    assert owners.this_host.__wrapped__() != here


def test_systems_without_proc_ask_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert owners._exists(os.getpid()) == ""
    answers = {"live": "Ss Sun Nov 22 13:00:00 2026\n", "zombie": "Z+ Sun Nov 22 13:00:00 2026\n", "gone": ""}
    found = {}
    for name, answer in answers.items():
        told = subprocess.CompletedProcess([], 0, stdout=answer)
        monkeypatch.setattr(owners.subprocess, "run", lambda *_, told=told, **__: told)
        found[name] = owners._began_by_ps(1)
    assert found == {"live": "Sun Nov 22 13:00:00 2026", "zombie": None, "gone": None}
