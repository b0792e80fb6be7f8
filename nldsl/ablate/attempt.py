"""The process of a trial, for runners on other machines: its evaluations, its end, and its claim."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from nldsl.ablate.ledger import Claim
from nldsl.ablate.local import OUTPUT, fate, last_line, spawn, was_killed
from nldsl.ablate.owner import began
from nldsl.ablate.rows import State
from nldsl.ablate.study import Study
from nldsl.ablate.trial import INTERRUPTED, TAKEN, UNWRITABLE

Event = dict[str, Any]

GRACE = 60.0
"""Seconds that a trial has for a last checkpoint; a step is not interrupted."""
_OF_QUEUES = {signal.SIGUSR1, signal.SIGUSR2}


class Attempt:
    """The process of a claimed trial.  It stops, with a checkpoint, when this process is gone."""

    def __init__(self, study: Study, claim: Claim) -> None:
        self.study, self.claim = study, claim
        self.folder = study.folder_of(claim.trial)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / OUTPUT).open("ab") as output, _signals_of_queues_held():
            self.process = spawn(study, claim, output)
        self._told = 0
        self._size = -1

    def code(self) -> int | None:
        """The exit status as `nldsl.ablate.trial` has it, negative for a signal; None while it works."""
        return self.process.poll()

    def evaluations(self) -> list[Event]:
        """Evaluations between the first and the last step that were not given yet; earlier attempts' too."""
        path = self.folder / "log.jsonl"
        try:
            size = path.stat().st_size
            lines = path.read_text(encoding="utf-8").splitlines() if size != self._size else []
        except OSError:  # it is not there yet
            return []
        self._size = size
        found: list[Event] = []
        for line in lines:
            if '"evaluate"' not in line:
                continue
            with contextlib.suppress(ValueError):  # a line that is being written
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

    def settle(self, code: int) -> tuple[State, str]:
        """Note in the ledger what the process that ended with `code` could not: the trial's state, and why.

        The state is `running` where somebody else works on it.
        """
        ledger, token = self.study.ledger, self.claim.token
        why = ""
        if code == INTERRUPTED:
            ledger.release(token)
        elif code == UNWRITABLE:
            why = last_line(self.folder / OUTPUT).removeprefix("error: ")
            ledger.release(token, why)
        elif code not in (0, TAKEN):
            why = fate(code, self.folder / OUTPUT)
            ledger.fail(token, why, killed=was_killed(code))
        name = self.claim.trial.name
        now = next((t for t in self.study.trials() if t.name == name), self.claim.trial)
        return now.state, why or now.problem


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
