"""Studies on a local Ray cluster and through submitit, parts of which are killed: `make cluster`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nldsl.ablate import local
from nldsl.ablate.ledger import ENDED
from nldsl.ablate.study import Study

from .studies import SPEC, findings, fork, make, output_of, over, progress_of, warm

pytestmark = pytest.mark.cluster

STEPS, EVERY = 400, 20
LONGER = SPEC.replace("steps = 40", f"steps = {STEPS}").replace("every 8", f"every {EVERY}")
PATIENCE = 300.0
DRIVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from nldsl.ablate import running
from nldsl.ablate.study import Study
options = dict(word.split("=") for word in sys.argv[3:])
sys.exit(running.run(Study.open(sys.argv[1]), sys.argv[2], jobs=2, options=options))
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study on this machine, without Ray or submitit."""
    study = make(tmp_path_factory.mktemp("undisturbed") / "study", spec=LONGER)
    warm()
    assert local.run(study, jobs=2, start=fork) == 0
    return study


@contextlib.contextmanager
def driver(study: Study, on: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A runner in a process of its own."""
    root = str(Path(__file__).resolve().parents[2])
    with (study.folder.parent / "driver.txt").open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(study.folder), on, *options],
            stdout=said,
            stderr=said,
            env=os.environ | {"PYTHONPATH": root},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def until(found: Callable[[], Any], process: subprocess.Popen[bytes] | None = None) -> Any:
    """What `found` gives once it gives something."""
    end = time.monotonic() + PATIENCE
    while not (answer := found()):
        assert time.monotonic() < end, "it does not come"
        assert process is None or process.poll() is None, "the runner has ended"
        time.sleep(0.1)
    return answer


def at_work(study: Study) -> dict[str, int]:
    """The process of each trial that is between its first checkpoint and its last steps."""
    found = {}
    for name, owner in study.ledger.owners().items():
        command = Path(f"/proc/{owner.pid}/cmdline")
        with contextlib.suppress(OSError):
            if b"nldsl.ablate.trial" in command.read_bytes() and 0 < progress_of(study, name)[1] < STEPS // 2:
                found[name] = owner.pid
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def beginnings(study: Study, name: str) -> list[int]:
    """From which step each attempt of a trial went on."""
    return [int(step) for step in re.findall(r"^from step (\d+)", output_of(study, name), flags=re.MULTILINE)]


def same(study: Study, undisturbed: Study) -> None:
    assert {one.state for one in study.trials()} == {"done"}
    assert findings(study) == findings(undisturbed)
    for one in study.trials():
        assert output_of(study, one.name).count(f"step {STEPS}: done") == 1, f"{one.name} was done twice"


def resident() -> float:
    """Megabytes of the processes of Ray, its workers included; trials are not counted."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes()
            if (b"ray::" in words or b"/ray/" in words) and b"nldsl.ablate.trial" not in words:
                pages = int((place / "statm").read_text().split()[1])
                total += pages * os.sysconf("SC_PAGE_SIZE")
    return total / 2**20


def test_ray_with_a_killed_worker_a_killed_trial_and_a_killed_driver(
    tmp_path: Path, undisturbed: Study
) -> None:
    study = make(tmp_path / "study", spec=LONGER)
    begun = time.monotonic()
    with driver(study, "ray") as first:
        name, pid = next(iter(until(lambda: at_work(study), first).items()))
        seconds, memory = time.monotonic() - begun, resident()
        kept = progress_of(study, name)[1]
        os.kill(parent(pid), signal.SIGKILL)  # the worker of Ray
        until(lambda: len(beginnings(study, name)) > 1, first)
        assert beginnings(study, name)[1] >= kept
        name, pid = next(iter(until(lambda: at_work(study), first).items()))
        kept, before = progress_of(study, name)[1], len(beginnings(study, name))
        os.kill(pid, signal.SIGKILL)  # the trial beside it
        until(lambda: len(beginnings(study, name)) > before, first)
        assert beginnings(study, name)[before] >= kept
        until(lambda: at_work(study), first)
        first.kill()
    assert not over(study)
    with driver(study, "ray") as second:
        assert second.wait(PATIENCE) == 0
    print(f"\nRay: first checkpoint after {seconds:.1f} s, {memory:.0f} MB resident", end="")
    same(study, undisturbed)


def test_ray_is_interrupted_and_this_machine_goes_on(tmp_path: Path, undisturbed: Study) -> None:
    study = make(tmp_path / "study", spec=LONGER)
    with driver(study, "ray") as process:
        working = until(lambda: at_work(study), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert {one.state for one in study.trials()} <= {"waiting", "done"}
    stopped = [n for n in working if progress_of(study, n)[0] < STEPS]
    for name in stopped:
        last, kept = progress_of(study, name)
        assert last == kept, "it did not write a last checkpoint"
    assert local.run(study, jobs=2, start=fork) == 0
    same(study, undisturbed)


def test_ray_and_this_machine_share_a_study(tmp_path: Path, undisturbed: Study) -> None:
    study = make(tmp_path / "study", spec=LONGER)
    with driver(study, "ray") as process:
        until(lambda: at_work(study), process)
        assert local.run(study, jobs=1, start=fork) == 0
        assert process.wait(PATIENCE) == 0
    same(study, undisturbed)


def test_asha_stops_what_falls_behind_and_never_the_baseline(tmp_path: Path) -> None:
    from nldsl.ablate import on_ray

    spec = LONGER.replace(
        "vary DeltaNet.rate = [0.5]",
        "vary all.rule = [adamw(rate = 1e-6), adamw(rate = 1e-2), sgd(rate = 1e-9)]",
    )
    study = make(tmp_path / "study", spec=spec)
    heard: list[dict[str, Any]] = []
    assert on_ray.run(study, tell=heard.append, jobs=2, stop_early=True) == 0
    states = {one.name: one.state for one in study.trials()}
    assert set(states.values()) == {"done", "stopped"}
    assert all(state == "done" for name, state in states.items() if name.startswith("base/"))
    warned = [event["diagnostic"].code for event in heard if event["event"] == "warning"]
    assert "NL0933" in warned
    ends = [event["trial"].name for event in heard if event["event"] == "end"]
    assert sorted(ends) == sorted(states)
    for one in study.trials():
        found = study.result_of(one)
        assert found is not None and found["measures"]["loss"] > 0
        assert (found["steps"] == STEPS) == (one.state == "done")


def test_a_node_that_does_not_see_the_study(tmp_path: Path) -> None:
    from nldsl.ablate import on_ray
    from nldsl.run.folder import RunError

    study = make(tmp_path / "study", seeds=1)
    with pytest.raises(RunError) as caught:
        on_ray._compare("far", {"sees": False, "file": "x"}, tmp_path, study)
    assert caught.value.diagnostic.code == "NL0932"
    with pytest.raises(RunError) as caught:
        on_ray.run(study, jobs=1, options={"gpus": 64})
    assert caught.value.diagnostic.code == "NL0932"
    with pytest.raises(RunError) as caught:
        on_ray.run(study, options={"address": "127.0.0.1:1"})
    assert caught.value.diagnostic.code == "NL0934"
    assert {one.state for one in study.trials()} == {"waiting"}


def test_submitit_with_a_killed_job_a_preempted_job_and_a_killed_driver(
    tmp_path: Path, undisturbed: Study
) -> None:
    study = make(tmp_path / "study", spec=LONGER)
    with driver(study, "slurm", "cluster=local") as first:
        name, pid = next(iter(until(lambda: at_work(study), first).items()))
        os.kill(parent(pid), signal.SIGUSR2)  # as Slurm warns a job
        until(lambda: len(beginnings(study, name)) > 1, first)
        assert beginnings(study, name)[1] >= EVERY
        name, pid = next(iter(until(lambda: at_work(study), first).items()))
        kept, before = progress_of(study, name)[1], len(beginnings(study, name))
        os.kill(parent(pid), signal.SIGKILL)  # the job
        first.kill()
    until(lambda: [n for n in study.ledger.owners() if n != name] or over(study))
    with driver(study, "slurm", "cluster=local") as second:
        assert second.wait(PATIENCE) == 0
    assert beginnings(study, name)[before] >= kept
    same(study, undisturbed)


def test_jobs_go_on_without_their_driver(tmp_path: Path, undisturbed: Study) -> None:
    study = make(tmp_path / "study", spec=LONGER)
    with driver(study, "slurm", "cluster=local") as process:
        until(lambda: at_work(study), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    before = {one.name: one.attempts for one in study.trials()}
    shared = threading.Thread(target=lambda: local.run(study, jobs=1, start=fork))
    shared.start()  # a runner here takes nothing that a job holds
    until(lambda: over(study))
    shared.join(PATIENCE)
    assert {one.name: one.attempts for one in study.trials()} == before
    assert all(one.state in ENDED for one in study.trials())
    same(study, undisturbed)
