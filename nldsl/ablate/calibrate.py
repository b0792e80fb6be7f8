"""How long the trials of a plan will take, from a few steps of each variant in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any, Self

import nldsl
from nldsl.ablate.plan import Plan
from nldsl.ablate.rows import Row

SECONDS = 20.0
"""What a calibration takes at most, unless more is asked for."""

FEWEST, STEPS = 3, 12
"""Steps of a variant: at least, if there is time, and at most; the first holds one-off costs."""

FORWARD = 3
"""A step has three times the work of its forward pass; used where no evaluation was reached."""

Facts = dict[str, Any]
_MODULE = "nldsl.ablate.calibrate"


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of the parts of a trial of one variant.

    `step` is one optimizer step; `around` is everything else: the start, evaluations, checkpoints and the
    final measurement.  `measured` is false where both were scaled from the base by FLOPs, and `steps` says
    how many steps were looked at.
    """

    step: float
    around: float
    steps: int
    measured: bool = True

    def trial(self, row: Row) -> float:
        """Seconds of one trial of `row`."""
        return row.steps * self.step + self.around


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a calibration found.

    Attributes:
        times: by the name of a row.
        seconds: what the calibration took.
        problem: why nothing or not everything was measured; "" where all was.
    """

    times: Mapping[str, Times]
    seconds: float
    problem: str = ""

    def total(self, plan: Plan) -> float:
        """Seconds that all trials of `plan` take one after the other; 0 where nothing is known."""
        return sum(self.times[r.name].trial(r) for r in plan.runnable if r.name in self.times) * len(
            plan.seeds
        )

    def wall(self, plan: Plan, jobs: int) -> float:
        """Seconds that the study takes with `jobs` trials at a time, each no slower for the others."""
        longest = max((t.trial(r) for r in plan.runnable if (t := self.times.get(r.name))), default=0.0)
        return max(self.total(plan) / max(jobs, 1), longest)

    @property
    def per_step(self) -> dict[str, float]:
        """Measured seconds of a step by the name of a row, as `keep time` needs them."""
        return {name: times.step for name, times in self.times.items() if times.measured}


def calibrate(plan: Plan, seconds: float = SECONDS) -> Estimate:
    """Compile the runnable variants of `plan` into a temporary folder and run some steps of each.

    The work is done by another process with one thread, as a trial's is, and takes no longer than `seconds`;
    variants that it does not come to are scaled from the base by their FLOPs.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nldsl-calibrate-") as place, _Runner(begun + seconds) as runner:
        found = {row.name: facts for row, facts in _facts(plan, Path(place), runner) if facts}
        problem = runner.problem
    times = {row.name: t for row in plan.runnable if (t := _times(found.get(row.name))) is not None}
    base = plan.rows[0]
    if base.name in times:
        for row in plan.runnable:
            if row.name not in times:
                times[row.name] = _scaled(times[base.name], base, row)
    return Estimate(times, time.monotonic() - begun, problem)


def _facts(plan: Plan, place: Path, runner: _Runner) -> list[tuple[Row, Facts]]:
    """What the runner found of each row that it came to."""
    found: list[tuple[Row, Facts]] = []
    rows = plan.runnable
    for index, row in enumerate(rows):
        if runner.left <= 0 or runner.gone:
            break
        folder = place / f"{index}"
        plan.spec_of(row).compile(folder)
        share = runner.left / (len(rows) - index)
        found.append((row, runner.ask({"folder": str(folder), "seconds": share})))
    return found


def _times(facts: Facts | None) -> Times | None:
    """The times of a row; None where not even one step was seen."""
    if facts is None or not facts.get("steps"):
        return None
    seen: list[float] = facts["steps"]
    step = median(seen[1:] or seen)
    once = facts.get("evaluation", facts["batches"] * step / FORWARD)
    around = facts["import"] + facts["start"] + facts.get("checkpoint", 0.0) * facts["checkpoints"]
    around += once * (facts["evaluations"] + 1)  # one more for the documents
    return Times(step, around, len(seen))


def _scaled(base: Times, of: Row, row: Row) -> Times:
    factor = row.flops_per_token / of.flops_per_token if of.flops_per_token else 1.0
    return Times(base.step * factor, base.around * factor, 0, measured=False)


# --------------------------------------------------------------------------- the other process


class _Runner:
    """The process that runs steps, and what it has said; it is ended at `deadline` (of `time.monotonic`)."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.problem = ""
        self.gone = False
        self._answers: queue.Queue[Facts | None] = queue.Queue()

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile("w+")
        package = str(Path(nldsl.__file__).resolve().parents[1])
        path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH", "")) if p)
        self._process = subprocess.Popen(  # noqa: S603 - this program itself
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # it ended before it had read all
                    pipe.close()
        self._said.close()

    def ask(self, request: Facts) -> Facts:
        """What the process finds out about one folder until the deadline; steps may be fewer than wished."""
        assert self._process.stdin is not None
        facts: Facts = {"steps": []}
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:  # it ended before; what it said tells why
            self._ended()
            return facts
        while True:
            try:
                line = self._answers.get(timeout=max(self.left, 0.0))
            except queue.Empty:
                self.problem = "the time was up"
                return facts
            if line is None:
                self._ended()
                return facts
            if "step" in line:
                facts["steps"].append(line["step"])
                continue
            facts |= {k: v for k, v in line.items() if k != "end"}
            if "problem" in line:
                self.problem = line["problem"]
            if "end" in line:
                return facts

    def _ended(self) -> None:
        self.gone = True
        self._process.wait()
        self._said.seek(0)
        last = [line for line in self._said.read().splitlines() if line.strip()][-1:]
        self.problem = f"the process ended with {self._process.returncode}{''.join(f': {w}' for w in last)}"

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._answers.put(json.loads(line))
        self._answers.put(None)


# --------------------------------------------------------------------------- inside of it


def work(requests: Sequence[str] | IO[str], tell: Callable[[Facts], None]) -> None:
    """Run some steps of each folder asked for, and tell what each took; every request is a line of JSON."""
    begun = time.perf_counter()
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # as runs do; it imports what each trial's process has to
    torch.use_deterministic_algorithms(False)
    imported = time.perf_counter() - begun
    for line in requests:
        request = json.loads(line)
        tell({"import": imported})
        try:
            _look_at(Path(request["folder"]), request["seconds"], tell)
        except Exception as error:  # noqa: BLE001 - told; a variant that cannot be trained ends no calibration
            tell({"problem": f"{type(error).__name__}: {error}"})
        tell({"end": True})


def _look_at(folder: Path, seconds: float, tell: Callable[[Facts], None]) -> None:
    """Tell what a trial of `folder` is made of: its start, steps, one evaluation and one checkpoint."""
    from nldsl.run.folder import load

    begun = time.perf_counter()
    build = load(folder)
    settings = build.settings
    with build.session.surroundings(settings):
        trainer = build.loop.Trainer(settings, build.session.pick_device("auto"))
        trainer.course.baselines()
        tell({"start": time.perf_counter() - begun, **_often(settings, len(trainer.course.windows))})
        for number in range(min(STEPS, max(settings.steps, 1))):
            if number >= FEWEST and time.perf_counter() - begun > seconds * 2 / 3:
                break
            moment = time.perf_counter()
            trainer.train_step()
            tell({"step": time.perf_counter() - moment})
        moment = time.perf_counter()
        trainer.evaluate()
        tell({"evaluation": time.perf_counter() - moment})
        moment = time.perf_counter()
        build.checkpoint.save(folder / "calibrate.pt", trainer.state_dict())
        tell({"checkpoint": time.perf_counter() - moment})


def _often(settings: Any, windows: int) -> Facts:
    """How many evaluations, each of how many batches, and checkpoints a training by `settings` has, whose
    evaluations measure `windows`.
    """
    every = settings.evaluate_every
    kept = settings.checkpoint_every or every
    return {
        "evaluations": 1 - (-settings.steps // every),
        "batches": -(-windows // settings.data.batch),
        "checkpoints": -(-settings.steps // kept),
    }


def main() -> int:
    """Answer requests on standard input until it ends; answers have a pipe of their own."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a build prints must not stand between answers

    def tell(facts: Facts) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    work(sys.stdin, tell)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
