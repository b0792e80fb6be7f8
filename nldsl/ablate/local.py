"""Run a study on this machine: a pool of processes, one for each trial, one thread each.

Several runners may work on one study at once, here or on other machines that share its folder: each takes
trials by claims.  A runner stays until every trial has ended, so that it takes over what others leave.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any

from nldsl.ablate import memory
from nldsl.ablate.attempt import Attempt, Start, spawn
from nldsl.ablate.ledger import ENDED, unwritable
from nldsl.ablate.running import Tell, begin, leave, signals
from nldsl.ablate.study import Study
from nldsl.ablate.trial import UNWRITABLE
from nldsl.run.folder import RunError

Event = dict[str, Any]

LOOK = 0.1
"""Seconds between looks at the processes."""
SHOW = 1.0
"""Seconds between looks at the ledger, for progress and for what other runners do."""


def run(
    study: Study,
    *,
    jobs: int | None = None,
    stop: threading.Event | None = None,
    tell: Tell | None = None,
    start: Start = spawn,
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
    say = tell or (lambda _event: None)
    jobs, short = memory.fitting(study, jobs or cores())
    begin(study, say, [short] if short is not None else [])
    say({"event": "jobs", "jobs": jobs})
    pool = _Pool(study, jobs, say, start)
    with signals(stop, pool.end_at_once):
        try:
            pool.work(stop)
        finally:
            pool.end()
    return leave(study, say)


def cores() -> int:
    """Processors that this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1


class _Pool:
    """The processes of a runner."""

    def __init__(self, study: Study, jobs: int, say: Tell, start: Start) -> None:
        self.study, self.jobs, self.say, self.start = study, jobs, say, start
        self.working: list[Attempt] = []
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
            self.working.append(Attempt(self.study, claim, self.start))
            self.say({"event": "begin", "trial": claim.trial})

    def reap(self) -> bool:
        """See which processes have ended, and how; whether any has."""
        ended = [(one, code) for one in self.working if (code := one.code()) is not None]
        for one, code in ended:
            self.working.remove(one)
            self._shown = -SHOW
            trial = one.settle(code)
            if code == UNWRITABLE:
                raise unwritable(one.folder, one.last_words())
            self.say({"event": "end", "trial": trial, "code": code})
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
            while one.code() is None and not self.hurry:
                time.sleep(LOOK)
            if self.hurry:
                with contextlib.suppress(ProcessLookupError):
                    one.process.send_signal(signal.SIGKILL)
                one.process.wait()
        working, self.working = self.working, []
        for one in working:
            with contextlib.suppress(RunError):  # a full disk: the claim ends with the process
                self.study.ledger.release(one.claim.token)

    def end_at_once(self) -> None:
        """Let nobody wait for checkpoints any more."""
        self.hurry = True
