"""What runs on a node of a Ray cluster: the worker of a trial, and a look at what the node has."""

# Ray is an extra, which need not be there where types are checked.
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nldsl import __version__
from nldsl.ablate.attempt import Attempt, Event, Start, spawn
from nldsl.ablate.ledger import ENDED, Claim, Entry
from nldsl.ablate.study import Study
from nldsl.ablate.trial import INTERRUPTED, UNWRITABLE
from nldsl.run.files import write_text

TICK = 1.0
"""Seconds between two reports of a trial to Tune."""


def look(place: str, word: str, node: str) -> dict[str, Any]:
    """On a node: whether it sees what the driver wrote, and what it would work with; it leaves a file."""
    folder = Path(place)
    try:
        seen = (folder / "driver").read_text(encoding="utf-8") == word
        (folder / node).write_text(word, encoding="utf-8")
    except OSError:
        seen = False
    return {"sees": seen, "file": node, **versions()}


def versions() -> dict[str, str]:
    """What has to be the same everywhere."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = ""
    return {"nldsl": __version__, "torch": torch}


def worker(folder: str, given: Sequence[tuple[str, int]], halt: str) -> type[Any]:
    """The class that Tune places on nodes: each object does one trial."""
    from ray import tune

    class Worker(tune.Trainable):
        """One trial of a study, in a process beside this one."""

        def setup(self, config: dict[str, Any]) -> None:
            index = config["trial"]
            variant, seed = given[index]
            self.work = Work(Path(folder), variant, seed, Path(halt), behind(Path(halt), index))

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.work.end()
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            return self.work.step()

        def cleanup(self) -> None:
            self.work.end()

        def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
            return {}  # the study keeps the checkpoints

        def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
            pass

    return Worker


def behind(halt: Path, index: int) -> Path:
    """The file that says that a trial is stopped early."""
    return halt.with_name(f"{halt.name}-behind-{index}")


class Work:
    """What a worker does for a trial: claim it, start its process, and report its evaluations.

    The file `halt` says that everything is to stop with checkpoints, the file `early` that this trial is
    stopped for good.  A worker that ends without either leaves its trial waiting.
    """

    def __init__(
        self, folder: Path, variant: str, seed: int, halt: Path, early: Path, start: Start = spawn
    ) -> None:
        self.study = Study.open(folder)
        self.halt, self.early = halt, early
        self.attempt: Attempt | None = None
        self.reports: list[Event] = []
        claim = None if halt.exists() else self._claim(variant, seed)
        if claim is not None:
            self.attempt = Attempt(self.study, claim, start)

    def _claim(self, variant: str, seed: int) -> Claim | None:
        """The claim; for a moment the process of a worker that was killed may still write its checkpoint."""
        for _ in range(25):
            claim = self.study.ledger.claim(variant, seed)
            trial = next(t for t in self.study.trials() if (t.variant, t.seed) == (variant, seed))
            if claim is not None or trial.state in ENDED:
                return claim
            time.sleep(0.2)
        return None

    def step(self) -> dict[str, Any]:
        """The next evaluation, or after a second that there is none; `done` when the attempt is over.

        An attempt that failed and may be tried again raises `RuntimeError`, which Tune counts.
        """
        if self.attempt is None:
            return {"done": True}
        end = time.monotonic() + TICK
        while time.monotonic() < end:
            if self.halt.exists():
                self.attempt.interrupt()
            code = self.attempt.code()
            self.reports += self.attempt.evaluations()
            if self.reports:
                return self._report(self.reports.pop(0))
            if code is not None:
                return self._ended(self.attempt, code)
            time.sleep(0.1)
        return {"done": False}

    def _report(self, event: Event) -> dict[str, Any]:
        steps = max(1, self.attempt.claim.trial.steps if self.attempt is not None else 1)
        return {"loss": event["loss"], "share": 100 * event["step"] / steps, "done": False}

    def _ended(self, attempt: Attempt, code: int) -> dict[str, Any]:
        trial = attempt.settle(code)
        if code == UNWRITABLE:
            return {"done": True, "full": attempt.last_words()}
        if trial.state == "waiting" and not self.halt.exists():
            raise RuntimeError(trial.problem or "interrupted")
        return {"done": True}

    def end(self) -> None:
        """Tune is through with this worker: what still works was stopped early, or has to stop for now."""
        attempt, self.attempt = self.attempt, None
        if attempt is None or attempt.code() is not None:
            return
        if self.early.exists():
            stop_early(self.study, attempt)
            self.early.unlink(missing_ok=True)
        else:
            attempt.interrupt()
            attempt.settle(INTERRUPTED)


def stop_early(study: Study, attempt: Attempt) -> None:
    """End a trial for good before its last step; what it has measured so far is its result."""
    trial, token = attempt.claim.trial, attempt.claim.token
    now = next(t for t in study.trials() if t.name == trial.name)
    last = _last_evaluation(attempt.folder / "log.jsonl")
    why = f"stopped early at step {last['step']} of {trial.steps}"
    if not study.ledger.finish(token, "stopped", step=last["step"], seconds=now.seconds, problem=why):
        return  # it has ended by itself
    # The result is written at once: a runner that finds the end without it would let the trial wait again.
    if study.result_of(trial) is None:
        _write_stopped(study, attempt, last, now.seconds, why)
    attempt.interrupt()
    ended = study.result_of(trial)
    if ended is not None and ended["state"] != "stopped":  # it was on the way meanwhile, and counts
        entry = Entry(trial.variant, study.row(trial.variant).digest, trial.seed, trial.steps, 0)
        study.ledger.recover(
            entry, ended["state"], step=ended["steps"], seconds=ended["seconds"], problem=ended["problem"]
        )


def _write_stopped(study: Study, attempt: Attempt, last: Event, seconds: float, why: str) -> None:
    trial, row = attempt.claim.trial, study.row(attempt.claim.trial.variant)
    result = {
        "format": 1,
        "variant": trial.variant,
        "digest": row.digest,
        "seed": trial.seed,
        "state": "stopped",
        "problem": why,
        "steps": last["step"],
        "measures": {k: v for k, v in last.items() if isinstance(v, int | float) and k != "step"},
        "documents": [],
        "unit": "document",
        "tasks": None,
        "parameters": row.parameters,
        "seconds": seconds,
        "cpu_seconds": 0.0,
        "tokens_per_second": 0.0,
        "torch": version("torch"),
        "nldsl": __version__,
    }
    write_text(attempt.folder / "result.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _last_evaluation(log: Path) -> Event:
    found: Event = {"step": 0}
    for line in log.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            found = event if event["event"] == "evaluate" else found
    return found
