"""Running a study on this machine: to its end, interrupted, and against every resistance."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from rich.console import Console

from nldsl.ablate import local, memory, trial
from nldsl.ablate.attempt import Start
from nldsl.ablate.ledger import Claim
from nldsl.ablate.progress import Display, seconds_left
from nldsl.ablate.rows import Trial
from nldsl.ablate.study import Study
from nldsl.run.folder import RunError

from .studies import (
    EVERY,
    SPEC,
    STEPS,
    Forked,
    attempts,
    findings,
    fork,
    make,
    output_of,
    progress_of,
    runner,
)

ALONE = SPEC.replace("  vary DeltaNet.rate = [0.5]\n  vary model.dim = [16]\n", "  vary model.dim = [8]\n")
"""One variant: the base."""


def alone(folder: Path, seeds: int = 1, spec: str = ALONE) -> Study:
    return make(folder / "study", spec=spec, seeds=seeds)


def states(study: Study) -> dict[str, str]:
    return {one.name: one.state for one in study.trials()}


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.02)


def test_what_a_trial_leaves(done: Study) -> None:
    one = done.trials()[0]
    assert (one.state, one.step, one.attempts) == ("done", STEPS, 1)
    assert one.seconds > 0
    names = {path.name for path in done.folder_of(one).iterdir()}
    assert names == {"checkpoint.pt", "log.jsonl", "output.txt", "report.html", "result.json"}
    found = done.result_of(one)
    assert found is not None
    assert (found["variant"], found["seed"], found["steps"]) == ("base", 0, STEPS)
    assert found["parameters"] == done.row("base").parameters
    assert set(found["measures"]) == {"loss", "perplexity"}
    tokens = sum(unit["tokens"] for unit in found["documents"])
    mean = sum(unit["tokens"] * unit["loss"] for unit in found["documents"]) / tokens
    assert mean == pytest.approx(found["measures"]["loss"], abs=1e-12)
    assert found["unit"] == "window"
    assert found["tokens_per_second"] > 0
    assert found["seconds"] >= found["cpu_seconds"] * 0.5 > 0


def test_seeds_change_what_is_found_and_variants_share_them(done: Study) -> None:
    losses = {name: one["measures"]["loss"] for name, one in findings(done).items()}
    assert len(set(losses.values())) == 6


def test_a_study_that_is_done_is_done(done: Study) -> None:
    before = findings(done)
    began: list[str] = []
    assert local.run(done, start=fork, tell=lambda e: began.append(e["event"])) == 0
    assert "begin" not in began
    assert findings(done) == before


def test_more_seeds_run_only_theirs(tmp_path: Path, done: Study) -> None:
    study = alone(tmp_path)
    assert local.run(study, start=fork) == 0
    written = (study.folder_of(study.trials()[0]) / "result.json").stat().st_mtime_ns
    more = alone(tmp_path, seeds=2)
    begun: list[str] = []
    assert (
        local.run(
            more, start=fork, tell=lambda e: begun.append(e["trial"].name) if e["event"] == "begin" else None
        )
        == 0
    )
    assert begun == ["base/seed-1"]
    assert (study.folder_of(study.trials()[0]) / "result.json").stat().st_mtime_ns == written
    mine, same = findings(more), findings(done)
    assert {name: mine[name] for name in mine} == {name: same[name] for name in mine}


def test_a_process_of_its_own_finds_the_same(tmp_path: Path, done: Study) -> None:
    study = alone(tmp_path)
    assert local.run(study) == 0
    assert findings(study)["base/seed-0"] == findings(done)["base/seed-0"]


def test_trials_without_a_runner(tmp_path: Path, done: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study = alone(tmp_path)
    assert trial.main([str(study.folder), "base", "0"]) == 0
    assert findings(study)["base/seed-0"] == findings(done)["base/seed-0"]
    assert trial.main([str(study.folder), "base", "0"]) == 0
    assert capsys.readouterr().out.count("from step") == 1
    assert trial.main([str(study.folder), "base", "7"]) == 2
    assert "no trial of `base` with seed 7" in capsys.readouterr().out
    other = alone(tmp_path, seeds=2)
    assert other.ledger.claim("base", 1) is not None
    assert trial.main([str(study.folder), "base", "1"]) == trial.TAKEN


# ---------------------------------------------------------------------- interrupted


def test_an_interrupted_study_goes_on_from_its_checkpoints(tmp_path: Path, done: Study) -> None:
    study = alone(tmp_path)
    process = runner(study.folder, jobs=1)
    wait_for(lambda: progress_of(study, "base/seed-0")[0] > EVERY)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130
    assert states(study) == {"base/seed-0": "waiting"}
    reached, kept = progress_of(study, "base/seed-0")
    assert reached == kept < STEPS, "the last step before the signal is in the checkpoint"
    assert local.run(study, start=fork) == 0
    assert attempts(study)["base/seed-0"] == [(0, False), (kept, True)]
    assert findings(study)["base/seed-0"] == findings(done)["base/seed-0"]


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    study = alone(tmp_path)
    deaf = tmp_path / "deaf"

    def unhearing(_study: Study, _claim: Claim, output: IO[bytes]) -> Forked:
        def body() -> int:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            deaf.write_text("")
            time.sleep(60)
            return 0

        return Forked(body, output.fileno())

    process = Forked(lambda: local.run(Study.open(study.folder), jobs=1, start=unhearing))
    wait_for(deaf.exists)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30.0) == 130  # not the minute that it sleeps
    assert states(study) == {"base/seed-0": "waiting"}


def test_a_hang_up_that_is_ignored_does_not_stop_a_study(tmp_path: Path) -> None:
    study = alone(tmp_path)

    def under_nohup() -> int:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return local.run(Study.open(study.folder), jobs=1, start=fork)

    process = Forked(under_nohup)
    wait_for(study.ledger.owners)
    process.send_signal(signal.SIGHUP)
    assert process.wait() == 0


def test_an_event_stops_as_a_signal_does(tmp_path: Path) -> None:
    study = alone(tmp_path)
    stop = threading.Event()
    told: list[str] = []

    def hear(event: dict[str, Any]) -> None:
        told.append(event["event"])
        if event["event"] == "begin":
            stop.set()

    assert local.run(study, start=fork, stop=stop, tell=hear) == 130
    assert told[-3:] == ["stopping", "state", "stopped"]
    assert states(study) == {"base/seed-0": "waiting"}


def test_trials_stop_when_their_runner_is_gone(tmp_path: Path) -> None:
    study = alone(tmp_path)
    process = runner(study.folder, jobs=1)
    wait_for(lambda: progress_of(study, "base/seed-0")[0])
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: states(study) == {"base/seed-0": "waiting"})
    reached, kept = progress_of(study, "base/seed-0")
    assert reached == kept


# ---------------------------------------------------------------------- resistance


def test_a_variant_that_diverges_is_a_result(tmp_path: Path) -> None:
    spec = SPEC.replace(
        "  vary DeltaNet.rate = [0.5]\n  vary model.dim = [16]\n", "  vary all.rule = [gd(rate = 1e38)]\n"
    )
    study = alone(tmp_path, spec=spec)
    assert local.run(study, jobs=2, start=fork) == 0
    first, wild = study.trials()
    assert (first.state, wild.state) == ("done", "diverged")
    found = study.result_of(wild)
    assert found is not None
    assert found["problem"] == wild.problem
    assert "step" in wild.problem
    assert (found["state"], found["measures"], found["documents"]) == ("diverged", {}, [])


def crashing(body: Callable[[], int]) -> Start:
    """Processes that do `body` instead of their trial."""
    return lambda _study, _claim, output: Forked(body, output.fileno())


def segfault() -> int:
    print("about to fall", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def memory_is_out() -> int:
    print("out of memory at step 3 on cpu")
    return 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (segfault, "its process was ended by SIGSEGV; it said last: about to fall"),
        (memory_is_out, "its process ended with status 1; it said last: out of memory at step 3 on cpu"),
    ],
)
def test_crashes_are_tried_again_twice(tmp_path: Path, body: Callable[[], int], words: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    study = alone(tmp_path)
    problems: list[str] = []

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "end":
            problems.append(event["trial"].problem)

    assert local.run(study, start=crashing(body), tell=hear) == 1
    assert problems == [words] * 3
    assert (study.trials()[0].state, study.trials()[0].attempts) == ("failed", 3)
    assert study.ledger.free() == []
    assert study.ledger.retry() == 1


def test_an_error_of_the_program_counts_as_a_failure(tmp_path: Path) -> None:
    study = alone(tmp_path)

    def broken(_event: object) -> None:
        raise ValueError("no such luck")

    with pytest.raises(ValueError, match="no such luck"):
        trial.work(study.folder, "base", 0, broken)
    assert (study.trials()[0].state, study.trials()[0].problem) == ("waiting", "ValueError: no such luck")
    assert study.ledger.owners() == {}


def test_what_a_trial_can_tell_is_told(tmp_path: Path) -> None:
    study = alone(tmp_path)
    (study.build_of("base") / "own.txt").unlink()
    assert local.run(study, start=fork) == 1
    assert study.trials()[0].problem == "there is no text `own.txt`"


def test_a_damaged_checkpoint_is_put_aside(tmp_path: Path, done: Study) -> None:
    study = alone(tmp_path)
    folder = study.folder_of(study.trials()[0])
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"half a checkpoint")
    assert local.run(study, start=fork) == 0
    assert (folder / "checkpoint.pt.damaged").read_bytes() == b"half a checkpoint"
    assert "is damaged" in output_of(study, "base/seed-0")
    assert findings(study)["base/seed-0"] == findings(done)["base/seed-0"]


def test_a_result_whose_end_was_not_noted_is_not_made_again(tmp_path: Path) -> None:
    study = alone(tmp_path)
    assert local.run(study, start=fork) == 0
    study.ledger.again("base", 0, "as if it had been killed between its last two writes")
    claim = study.ledger.claim()
    assert claim is not None
    assert trial.work(study.folder, "base", 0, token=claim.token)["steps"] == STEPS
    assert states(study) == {"base/seed-0": "done"}
    assert output_of(study, "base/seed-0").count("from step") == 1


@pytest.mark.parametrize("room", [0, 20_000])
def test_a_full_disk_stops_the_study_which_goes_on_later(tmp_path: Path, done: Study, room: int) -> None:
    study = alone(tmp_path)

    def small(study: Study, claim: Claim, output: IO[bytes]) -> Forked:
        words = [str(study.folder), claim.trial.variant, str(claim.trial.seed), "--claim", claim.token]

        def body() -> int:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            return trial.main(words)

        return Forked(body, output.fileno())

    with pytest.raises(RunError, match="cannot write") as error:
        local.run(study, jobs=1, start=small)
    assert error.value.diagnostic.code == "NL0903"
    assert error.value.exit_code == 2
    assert set(states(study).values()) == {"waiting"}
    assert Study.open(study.folder).ledger.damage() is None
    assert local.run(study, jobs=1, start=fork) == 0
    assert findings(study)["base/seed-0"] == findings(done)["base/seed-0"]


def test_a_runner_whose_disk_is_full_stops(tmp_path: Path) -> None:
    study = alone(tmp_path)

    def body() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        try:
            return local.run(Study.open(study.folder), start=fork)
        except RunError as error:
            return 22 if error.diagnostic.code == "NL0903" else 1

    assert Forked(body).wait() == 22
    assert study.ledger.damage() is None
    assert states(study) == {"base/seed-0": "waiting"}


# ---------------------------------------------------------------------- memory


@pytest.mark.parametrize(("trials", "fits", "said"), [(8.0, 4, False), (2.5, 2, True), (0.1, 1, True)])
def test_as_many_trials_as_memory_has_room_for(
    done: Study, monkeypatch: pytest.MonkeyPatch, trials: float, fits: int, said: bool
) -> None:
    each = memory.PROCESS + max(done.asked.bytes.values())
    monkeypatch.setattr(memory, "available", lambda: int(each * trials))
    jobs, finding = memory.fitting(done, 4)
    assert jobs == fits
    assert (finding is not None) == said
    if finding is not None:
        assert finding.code == "NL0909"


def test_memory_has_to_do_for_the_largest_variant(done: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    each = memory.PROCESS + max(done.asked.bytes.values())
    assert min(done.asked.bytes.values()) < max(done.asked.bytes.values())
    monkeypatch.setattr(memory, "available", lambda: 2 * each - 1)
    assert memory.fitting(done, 2)[0] == 1


def test_memory_is_what_both_the_machine_and_the_container_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine, group, free in ((5, 3, 3), (3, 5, 3), (None, 5, 5), (None, None, None)):
        with monkeypatch.context() as patch:
            patch.setattr(memory, "_machine", lambda machine=machine: machine)
            patch.setattr(memory, "_group", lambda group=group: group)
            assert memory.available() == free
    for name, content in (("max", "1000"), ("current", "900"), ("stat", "anon 300\ninactive_file 600\n")):
        (tmp_path / f"memory.{name}").write_text(content)
    monkeypatch.setattr(memory, "Path", lambda _path: tmp_path)
    assert memory._group() == 700  # what is only cached gives way
    facts = tmp_path / "meminfo"
    facts.write_text("MemTotal:  9000 kB\nMemFree:  1 kB\nMemAvailable:  4000 kB\n")
    monkeypatch.setattr(memory, "Path", lambda _path: facts)
    assert memory._machine() == 4000 * 1024


def test_memory_is_known_here() -> None:
    free = memory.available()
    assert free is not None
    assert 1 << 20 < free < 1 << 50


# ---------------------------------------------------------------------- progress


def a_trial(variant: str, state: Any = "waiting", step: int = 0, seconds: float = 0.0) -> Trial:
    return Trial(variant, 0, state, step=step, steps=100, seconds=seconds)


def test_time_that_is_left() -> None:
    flops = {"a": 1.0, "b": 3.0}
    assert seconds_left([a_trial("a")], flops, 1) is None
    ended = a_trial("a", "done", 100, 50.0)
    assert seconds_left([ended], flops, 1) == 0
    assert seconds_left([ended, a_trial("a")], flops, 1) == pytest.approx(50)
    assert seconds_left([ended, a_trial("a", "running", 60, 30.0)], flops, 1) == pytest.approx(20)
    assert seconds_left([ended, a_trial("b")], flops, 1) == pytest.approx(150)
    slow = [a_trial("a", "done", 100, seconds) for seconds in (60.0, 900.0)]
    assert seconds_left([ended, *slow, a_trial("a")], flops, 1) == pytest.approx(60)
    assert seconds_left([ended, *[a_trial("a")] * 4], flops, 2) == pytest.approx(100)
    assert seconds_left([ended, a_trial("b")], flops, 8) == pytest.approx(150)


@contextlib.contextmanager
def shown(study: Study, terminal: bool) -> Iterator[tuple[Display, io.StringIO]]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, color_system=None)
    with Display(study, console) as display:
        yield display, text


def test_lines_where_there_is_no_terminal(done: Study) -> None:
    first, second, *rest = (replace(one, seconds=STEPS / 10) for one in done.trials())
    running = replace(second, state="running", step=10, seconds=1.0)
    with shown(done, terminal=False) as (display, text):
        display({"event": "jobs", "jobs": 2})
        display({"event": "state", "trials": [replace(first, state="waiting", step=0), running, *rest]})
        display({"event": "end", "trial": first})
        display({"event": "end", "trial": replace(running, state="waiting", problem="it fell")})
        display({"event": "end", "trial": replace(second, state="diverged", problem="the loss is inf")})
        display({"event": "over", "trials": [first, replace(second, state="diverged"), *rest]})
    assert text.getvalue().splitlines() == [
        f"Parts: 2 of 6 trials to do, 2 at once; {done.folder}",
        f"   5 of 6  done {first.name} in 4 s, 3 s left",
        f"      again: {second.name}: it fell",
        f"   6 of 6  diverged {second.name}: the loss is inf",
        f"5 done, 1 diverged; {done.folder}",
    ]


def test_a_bar_where_there_is_one(done: Study) -> None:
    first = done.trials()[0]
    running = Trial("base", 1, "running", step=12, steps=STEPS, seconds=1.0)
    with shown(done, terminal=True) as (display, text):
        display({"event": "jobs", "jobs": 2})
        display({"event": "state", "trials": [first, running]})
        assert display.progress is not None
        display.progress.refresh()
        display({"event": "stopped", "trials": [first, running]})
    said = text.getvalue()
    assert "1 of 2 ended" in said
    assert f"step 12 of {STEPS}" in said
    assert f"stopped after 1 of 2 trials; go on with: nldsl ablate {done.folder} --run" in said


def test_results_hold_what_json_allows(done: Study) -> None:
    text = (done.folder_of(done.trials()[0]) / "result.json").read_text()
    json.loads(text, parse_constant=pytest.fail)
