"""The process of a trial: begun for a claim, watched, interrupted, and its end noted in the ledger."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import nldsl
from nldsl.ablate.ledger import Claim, unwritable
from nldsl.ablate.owner import began
from nldsl.ablate.rows import Trial
from nldsl.ablate.study import Study
from nldsl.ablate.trial import INTERRUPTED, TAKEN, UNWRITABLE
from nldsl.run.files import reason

Event = dict[str, Any]

GRACE = 60.0
"""Seconds that a trial has for a last checkpoint; a step is not interrupted."""
OUTPUT = "output.txt"
_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
_OF_QUEUES = {signal.SIGUSR1, signal.SIGUSR2}


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


class Attempt:
    """The process of a claimed trial.  It stops, with a checkpoint, when this process is gone."""

    def __init__(self, study: Study, claim: Claim, start: Start = spawn) -> None:
        """Begin it; raises `RunError` (NL0903) where that is impossible, and the trial waits again."""
        self.study, self.claim = study, claim
        self.folder = study.folder_of(claim.trial)
        self.output = self.folder / OUTPUT
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.output.open("ab") as output, _signals_of_queues_held():
                self.process = start(study, claim, output)
        except OSError as error:
            study.ledger.release(claim.token)
            raise unwritable(self.output, reason(error)) from error
        self._told = 0
        self._log = 0  # the file, and how much of it was read
        self._read = 0

    def code(self) -> int | None:
        """The exit status as `nldsl.ablate.trial` has it, negative for a signal; None while it works."""
        return self.process.poll()

    def evaluations(self) -> list[Event]:
        """Evaluations between the first and the last step that were not given yet; earlier attempts' too."""
        try:
            with (self.folder / "log.jsonl").open("rb") as file:
                log = os.fstat(file.fileno()).st_ino
                if log != self._log:  # the process goes on from a checkpoint, with a log of its own
                    self._log, self._read = log, 0
                file.seek(self._read)
                lines = file.read().rpartition(b"\n")[0]
        except OSError:  # it is not there yet
            return []
        self._read += len(lines) + bool(lines)
        found: list[Event] = []
        for line in lines.splitlines():
            if b'"evaluate"' not in line:
                continue
            with contextlib.suppress(ValueError):  # one that a kill has cut
                event = json.loads(line)
                if event["event"] == "evaluate" and self._told < event["step"] < self.claim.trial.steps:
                    found.append(event)
                    self._told = event["step"]
        return found

    def interrupt(self, grace: float = GRACE) -> bool:
        """Let it write a checkpoint and end; False where it had to be killed after `grace` seconds.

        It may be called from handlers of signals, and so takes no lock of the process object.
        """
        pid = self.process.pid
        start = began(pid)
        if start is None:
            return True
        end = time.monotonic() + grace
        os.kill(pid, signal.SIGTERM)
        while began(pid) == start:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                return False
            time.sleep(0.05)
        return True

    def settle(self, code: int) -> Trial:
        """Note in the ledger what the process that ended with `code` could not; how the trial stands now.

        It is `running` where somebody else works on it.
        """
        ledger, token = self.study.ledger, self.claim.token
        if code == INTERRUPTED:
            ledger.release(token)
        elif code == UNWRITABLE:
            ledger.release(token, self.last_words())
        elif code not in (0, TAKEN):
            ledger.fail(token, fate(code, self.output), killed=was_killed(code))
        name = self.claim.trial.name
        return next((t for t in self.study.trials() if t.name == name), self.claim.trial)

    def last_words(self) -> str:
        """Why nothing more can be written, as the process said it."""
        said = last_line(self.output)
        return said.removeprefix("error: ") if said.startswith("error: ") else "nothing more can be written"


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
def _signals_of_queues_held() -> Iterator[None]:
    """Start processes that user signals do not reach.

    Slurm sends them to all processes of a job as a warning, and they end one that does not expect them.
    Those that come meanwhile reach this process afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_QUEUES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
