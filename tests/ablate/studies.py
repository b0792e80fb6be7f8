"""What tests of running studies share: a study of tiny models, and processes that need not load torch."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

import nldsl
from nldsl.ablate import local, trial
from nldsl.ablate.ledger import ENDED, Claim
from nldsl.ablate.plan import plan
from nldsl.ablate.study import Study
from nldsl.run import look

SPEC = """edition 2026
import [DeltaNet] from std

block Layer(dim) { mixer: x = x + (x |> DeltaNet(dim)) }

model Small(dim = 8, vocab = 256) { tokens |> embed(vocab, dim) |> Layer(dim) |> unembed(tied) }

train Run {
  model = Small
  data  = text("own.txt", length = 16, batch = 2)
  steps = 40
  level all { learns = rest, rule = adamw(rate = 1e-3) }
  eval every 8 steps { perplexity }
}

ablate Parts of Run {
  vary DeltaNet.rate = [0.5]
  vary model.dim = [16]
  seeds = 2
}
"""
STEPS, EVERY = 40, 8


def make(folder: Path, *, spec: str = SPEC, seeds: int | None = None) -> Study:
    """The study of `spec` in `folder`, with this many seeds; its spec and text lie beside it."""
    place = folder.parent
    place.mkdir(parents=True, exist_ok=True)
    (place / "own.txt").write_text("A text of my own, and of others. " * 60)
    text = spec if seeds is None else re.sub(r"seeds = \d+", f"seeds = {seeds}", spec)
    (place / "tiny.nl").write_text(text)
    return brief(Study.make(folder, plan(nldsl.load(place / "tiny.nl"))))


def brief(study: Study) -> Study:
    """The same; its runs end with 8 tokens of text: 200 take a third of their time."""
    for row in study.runnable:
        path = study.build_of(row.name) / "schedule.py"
        code = path.read_text()
        assert "tokens: int = " in code
        path.write_text(code.replace("    tokens: int = 200\n", "    tokens: int = 8\n"))
    return study


def warm() -> None:
    """Load what processes that are forked from here then need not load."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # as runs do: it imports much
    torch.use_deterministic_algorithms(False)
    look.svg(lambda figure: figure.add_subplot().plot([0.0, 1.0]))


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Forked:
    """A process that begins as a copy of this one, for which `Popen` would load torch again."""

    def __init__(self, body: Callable[[], int], output: int | None = None) -> None:
        read, self._write = os.pipe()
        os.set_inheritable(self._write, False)
        sys.stdout.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # none may meet the handlers of the parent
        self.pid = os.fork()
        if self.pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(read)
            self._code: int | None = None
            return
        os.setsid()
        os.dup2(read, 0)
        target = output if output is not None else os.open(os.devnull, os.O_WRONLY)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.closerange(3, 256)
        sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115 - until the process ends
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        code = 70
        try:
            code = body()
            sys.stdout.flush()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
                os.close(self._write)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 60.0)
        while self.poll() is None:
            assert time.monotonic() < end, "the process does not end"
            time.sleep(0.02)
        assert self._code is not None
        return self._code

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


def fork(study: Study, claim: Claim, output: IO[bytes]) -> Forked:
    """The process of a trial, for `local.run(start=fork)`."""
    one = claim.trial
    words = [str(study.folder), one.variant, str(one.seed), "--claim", claim.token, "--leave-with-parent"]
    return Forked(lambda: trial.main(words), output.fileno())


def runner(folder: Path, jobs: int = 2) -> Forked:
    """A runner in a process of its own."""
    return Forked(lambda: local.run(Study.open(folder), jobs=jobs, start=fork))


def findings(study: Study) -> dict[str, dict[str, Any]]:
    """What each trial found, without what differs from run to run."""
    timed = {"seconds", "cpu_seconds", "tokens_per_second"}
    found: dict[str, dict[str, Any]] = {}
    for one in study.trials():
        text = (study.folder_of(one) / "result.json").read_text()
        found[one.name] = {name: value for name, value in json.loads(text).items() if name not in timed}
    return found


def attempts(study: Study) -> dict[str, list[tuple[int, bool]]]:
    """Of each trial the attempts that came to train: where each went on from, and whether it said `done`."""
    found: dict[str, list[tuple[int, bool]]] = {}
    for one in study.trials():
        parts = re.split(r"^from step (\d+) to \d+$", output_of(study, one.name), flags=re.MULTILINE)
        begun = zip(parts[1::2], parts[2::2], strict=True)
        found[one.name] = [(int(step), f"step {STEPS}: done" in said) for step, said in begun]
    return found


def output_of(study: Study, name: str) -> str:
    """What the attempts of a trial said."""
    path = study.folder / "runs" / name / "output.txt"
    return path.read_text() if path.exists() else ""


def progress_of(study: Study, name: str) -> tuple[int, int]:
    """The last step in a trial's log, and the last checkpoint there."""
    path = study.folder / "runs" / name / "log.jsonl"
    steps, kept = 0, 0
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        steps = max(steps, event["step"])
        kept = max(kept, event["step"] if event["event"] == "checkpoint" else 0)
    return steps, kept


def over(study: Study) -> bool:
    """Whether every trial has ended."""
    return all(one.state in ENDED for one in study.trials())
