"""Run a study on this machine: a pool of processes, one for each trial, one thread each.

Several runners may work on one study at once, here or on other machines that share its folder: each takes
trials by claims.  A runner stays until every trial has ended, so that it takes over what others leave.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

import nldsl
from nldsl.ablate import memory
from nldsl.ablate.ledger import ENDED, Claim, unwritable
from nldsl.ablate.study import Study
from nldsl.ablate.trial import INTERRUPTED, TAKEN, UNWRITABLE
from nldsl.run.files import reason
from nldsl.run.folder import RunError

Event = dict[str, Any]
Tell = Callable[[Event], None]

LOOK = 0.1
"""Seconds between looks at the processes."""
SHOW = 1.0
"""Seconds between looks at the ledger, for progress and for what other runners do."""
OUTPUT = "output.txt"
_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})


class Process(Protocol):
    """What the pool wants of a process; `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def send_signal(self, sig: int, /) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Start(Protocol):
    """Starts the process of a claimed trial; what it says goes to `output`."""

    def __call__(self, study: Study, claim: Claim, output: IO[bytes], /) -> Process: ...


def run(
    study: Study,
    *,
    jobs: int | None = None,
    stop: threading.Event | None = None,
    tell: Tell | None = None,
    start: Start | None = None,
) -> int:
    """Do the trials of `study` that wait, `jobs` at once (default: one for each core this process may use).

    `stop` ends it as a signal does: every trial writes a checkpoint and waits again.  `tell` hears events,
    dicts with `event`: `warning` (`diagnostic`), `jobs` (`jobs`), `begin` and `end` (`trial`), `state`
    (`trials`), `stopping`, `stopped` and `over` (`trials`).  `start` makes the processes.

    Returns 0 when every trial has ended, 1 when some have failed, 130 when it was stopped before.

    Raises:
        RunError: nothing can be written (NL0903), or the database cannot be used (NL0906, NL0907); what was
            running has stopped with its checkpoints.
    """
    stop = stop or threading.Event()
    say = tell or _silent
    study.mend()
    study.ledger.retry()
    jobs = jobs or cores()
    jobs, short = memory.fitting(study, jobs)
    for finding in (*study.warnings, *([short] if short is not None else [])):
        say({"event": "warning", "diagnostic": finding})
    say({"event": "jobs", "jobs": jobs})
    pool = _Pool(study, jobs, say, start or spawn)
    with _signals(stop, pool):
        try:
            pool.work(stop)
        finally:
            pool.end()
    trials = study.trials()
    say({"event": "state", "trials": trials})
    waiting = [t for t in trials if t.state not in ENDED]
    if waiting:
        say({"event": "stopped", "trials": trials})
        return INTERRUPTED
    say({"event": "over", "trials": trials})
    return 1 if any(t.state == "failed" for t in trials) else 0


def cores() -> int:
    """Processors that this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1


def spawn(study: Study, claim: Claim, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """The process of a trial: a session of its own, so that Ctrl-C reaches it through its runner alone."""
    package = str(Path(nldsl.__file__).resolve().parents[1])
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH", "")) if p)
    trial = claim.trial
    words = [sys.executable, "-m", "nldsl.ablate.trial", str(study.folder), trial.variant, str(trial.seed)]
    return subprocess.Popen(  # noqa: S603 - this program itself
        [*words, "--claim", claim.token, "--leave-with-parent"],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path},
    )


@dataclass
class _Working:
    claim: Claim
    process: Process
    output: Path


class _Pool:
    """The processes of a runner."""

    def __init__(self, study: Study, jobs: int, say: Tell, start: Start) -> None:
        self.study, self.jobs, self.say, self.start = study, jobs, say, start
        self.working: list[_Working] = []
        self.hurry = False
        self._shown = -SHOW
        self._nothing = -SHOW  # when there was nothing to take

    def work(self, stop: threading.Event) -> None:
        """Until every trial has ended or `stop` is set; raises `RunError` where nothing can be written."""
        while not stop.is_set():
            if self.reap() or time.monotonic() - self._nothing >= SHOW:
                self.fill()
            if self.show() and not self.working:
                return
            stop.wait(LOOK)
        self.say({"event": "stopping", "trials": self.study.trials()})

    def fill(self) -> None:
        """Begin what can be begun."""
        while len(self.working) < self.jobs:
            claim = self.study.ledger.claim()
            if claim is None:
                self._nothing = time.monotonic()
                return
            folder = self.study.folder_of(claim.trial)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / OUTPUT).open("ab") as output:
                    process = self.start(self.study, claim, output)
            except OSError as error:
                self.study.ledger.release(claim.token)
                raise unwritable(folder / OUTPUT, reason(error)) from error
            self.working.append(_Working(claim, process, folder / OUTPUT))
            self.say({"event": "begin", "trial": claim.trial})

    def reap(self) -> bool:
        """See which processes have ended, and how; whether any has."""
        ended = [(one, code) for one in self.working if (code := one.process.poll()) is not None]
        for one, code in ended:
            self.working.remove(one)
            self._shown = -SHOW
            self._ended(one, code)
        return bool(ended)

    def show(self) -> bool:
        """Tell how the study stands, now and then; whether every trial has ended."""
        if time.monotonic() - self._shown < SHOW:
            return False
        self._shown = time.monotonic()
        trials = self.study.trials()
        self.say({"event": "state", "trials": trials})
        return all(trial.state in ENDED for trial in trials)

    def end(self) -> None:
        """Let every process write a checkpoint and stop; their trials wait again."""
        for one in self.working:
            with contextlib.suppress(ProcessLookupError):
                one.process.send_signal(signal.SIGTERM)
        for one in self.working:
            while one.process.poll() is None and not self.hurry:
                time.sleep(LOOK)
            if self.hurry:
                with contextlib.suppress(ProcessLookupError):
                    one.process.send_signal(signal.SIGKILL)
                one.process.wait()
        working, self.working = self.working, []
        for one in working:
            with contextlib.suppress(RunError):  # a full disk: the claim ends with the process
                self.study.ledger.release(one.claim.token)

    def _ended(self, one: _Working, code: int) -> None:
        """Note in the ledger what its process could not."""
        token, ledger = one.claim.token, self.study.ledger
        if code == UNWRITABLE:
            ledger.release(token)
            said = last_line(one.output)
            why = (
                said.removeprefix("error: ") if said.startswith("error: ") else "nothing more can be written"
            )
            raise unwritable(one.output.parent, why)
        if code == INTERRUPTED:
            ledger.release(token)
        elif code not in (0, TAKEN):
            ledger.fail(token, fate(code, one.output), killed=was_killed(code))
        trial = next((t for t in self.study.trials() if t.name == one.claim.trial.name), one.claim.trial)
        self.say({"event": "end", "trial": trial, "code": code})


def was_killed(code: int) -> bool:
    """Whether a process with this exit status was ended from outside."""
    return -code in _OUTSIDE


def fate(code: int, output: Path) -> str:
    """How a process ended that could not tell, with its last words."""
    if code < 0:
        names = {int(number): number.name for number in signal.Signals}
        how = f"its process was ended by {names.get(-code, f'signal {-code}')}"
    else:
        how = f"its process ended with status {code}"
    last = last_line(output)
    return f"{how}; it said last: {last}" if last else how


def last_line(output: Path) -> str:
    """The last line that a trial said; "" if there is none."""
    try:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextlib.contextmanager
def _signals(stop: threading.Event, pool: _Pool) -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or hang-up sets `stop`; the next one ends the processes at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        pool.hurry = stop.is_set()
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _silent(_event: Event) -> None:
    pass


__all__ = ["cores", "fate", "last_line", "run", "spawn", "was_killed"]
