"""Train the model of this folder: `python train.py --steps 500 --set data.batch=4`.

Every level gathers gradients until its clock is due, then steps by its own rule and rate.  Token
clocks cut a sequence into segments: state is carried from one to the next, the gradient is not,
because the weights it would flow through may have changed.

Exit status: 0 done, 1 the run or its settings are at fault, 2 usage or files, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from amend import amend
from checkpoint import NAME, construct, load, save
from documents import Documents
from learners import put_to_work
from loop import Trainer
from plan import new_clocks, plan
from pretrained import save_weights
from schedule import Settings, UserError, idle_levels, segment_lengths, validate
from session import (
    Journal,
    Pace,
    Printer,
    compile_regions,
    interruptions,
    pick_device,
    pick_folder,
    surroundings,
)
from settings import SETTINGS
from tasks import Record

Event = dict[str, Any]


@dataclass
class Result:
    """How a run ended.  Losses are in nats per token; `code` is the exit status."""

    folder: Path
    step: int
    code: int = 0
    loss_before: float | None = None
    loss_after: float | None = None
    baselines: dict[str, float] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    documents: Documents | None = None  # of a run that is done
    sample: str = ""
    tokens_per_second: float = 0.0


def train(
    settings: Settings,
    *,
    device: str = "auto",
    out: Path | None = None,
    resume: bool = False,
    listen: Callable[[Event], None] | None = None,
    weights: Path | None = None,
) -> Result:
    """Train by `settings` and return how it ended; every event goes to `listen` (default: plain lines).

    Events are dicts with `event` and `step`: `start`, `warning`, `step`, `evaluate`, `checkpoint`, `sample`,
    `stop`, `failed`.  `runs/NNN` beside this file, or `out`, receives `checkpoint.pt` and `log.jsonl`.  A
    signal ends the run after the current step, with a checkpoint and code 130.  `weights` is a `safetensors`
    file that receives the weights when the run is done.  Raises `UserError`.
    """
    with surroundings(settings):
        place = pick_device(device)
        folder = pick_folder(out, resume)
        trainer = Trainer(settings, place, begun=resume)
        content = load(folder / NAME) if resume else None
        if content is not None:
            trainer.load_state_dict(content, folder / NAME)
        unfit = compile_regions(trainer.model, settings, place)
        journal = Journal(folder, trainer.step, listen or Printer(settings))
        with contextlib.closing(journal):
            result = Result(folder, trainer.step)
            result.baselines = trainer.course.baselines()
            journal.tell("start", trainer.step, **describe(trainer, result))
            warnings = [*idle_levels(settings), *trainer.course.warnings, *([unfit] if unfit else [])]
            if settings.evaluate_windows not in ("all", Settings.evaluate_windows):  # what nobody asked for
                warnings += trainer.course.fewer_than(settings.most_windows)
            if content is not None and "settings" in content:
                warnings += new_clocks(settings, content["settings"])
            for warning in warnings:
                journal.tell("warning", trainer.step, text=warning)
            try:
                with interruptions() as stop:  # before the loop there is nothing to save
                    _loop(trainer, journal, result, stop)
            except UserError as error:
                if error.kind == "diverged" and (folder / NAME).is_file():
                    error.help += f"; the checkpoint of an earlier step, {folder / NAME}, is whole"
                with contextlib.suppress(UserError):  # a full disk may be what failed
                    journal.tell("failed", trainer.step, text=error.message, kind=error.kind)
                raise
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise UserError(
                    f"out of memory at step {trainer.step + 1} on {place}",
                    help="make `data.batch` or `data.length` smaller, and go on with --resume",
                    kind="device",
                ) from error
        if weights is not None and not result.code:
            save_weights(trainer.model, weights)
    return result


def _loop(trainer: Trainer, journal: Journal, result: Result, stop: threading.Event) -> None:
    """Steps until the last or a signal, with evaluations and checkpoints on the way."""
    settings = trainer.settings
    checkpoint_every = settings.checkpoint_every or settings.evaluate_every
    pace = Pace(settings.data.batch * settings.data.length)
    record = Record(result.folder, settings.data, trainer.step)

    def measure() -> dict[str, float]:
        trainer.check_weights()
        found = trainer.evaluate()
        journal.tell("evaluate", trainer.step, **found, baselines=result.baselines)
        return found

    def ask_tasks() -> None:
        if record.wants(trainer.step):
            journal.tell("tasks", **record.add(trainer.step, trainer.evaluate_tasks()))

    def keep() -> None:
        trainer.check_weights()
        save(
            result.folder / NAME,
            trainer.state_dict() | {"settings": json.dumps(asdict(settings), default=str)},
        )
        journal.tell("checkpoint", trainer.step, path=str(result.folder / NAME))

    ask_tasks()
    result.measures = measure()
    result.loss_before = result.measures["loss"]
    while trainer.step < settings.steps and not stop.is_set():
        with pace:
            facts = trainer.train_step()
        for warning in facts.pop("warnings"):
            journal.tell("warning", trainer.step, text=warning)
        left = pace.left(settings.steps - trainer.step)
        journal.tell(
            "step", trainer.step, **facts, tokens_per_second=pace.tokens_per_second, seconds_left=left
        )
        ask_tasks()
        ends = trainer.step == settings.steps
        if trainer.step % settings.evaluate_every == 0 or ends:
            result.measures = measure()
        if trainer.step % checkpoint_every == 0 or ends:
            keep()
    result.step = trainer.step
    result.tokens_per_second = pace.tokens_per_second
    if stop.is_set() and trainer.step < settings.steps:
        if trainer.step % checkpoint_every:
            keep()
        result.code = 130
        journal.tell("stop", trainer.step, text="interrupted", code=130, folder=str(result.folder))
        return
    result.loss_after = result.measures["loss"]
    result.documents = trainer.evaluate_documents()
    result.sample = trainer.sample()
    if result.sample:
        journal.tell("sample", trainer.step, text=result.sample)
    finish = {k: v for k, v in asdict(result).items() if k not in ("sample", "folder", "step", "documents")}
    journal.tell("stop", trainer.step, text="done", folder=str(result.folder), **finish)


def describe(trainer: Trainer, result: Result) -> Event:
    """What a run is, in plain values."""
    settings = trainer.settings
    levels = [
        {
            "name": learner.level.name,
            "rule": learner.level.rule,
            "clock": str(learner.level.clock),
            "reduce": learner.level.reduce,
            "start": learner.level.start,
            "reset": learner.level.reset,
            "rate": asdict(learner.level.rate),
            "options": learner.level.options,
            "tensors": len(learner.parameters),
            "parameters": sum(p.numel() for p in learner.parameters.values()),
        }
        for learner in trainer.learners
    ]
    return {
        "name": settings.name,
        "steps": settings.steps,
        "device": str(trainer.device),
        "precision": trainer.precision,
        "folder": str(result.folder),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "segment": segment_lengths(settings)[1],
        "levels": levels,
        "pretrained": [line for report in trainer.pretrained for line in report.lines()],
        "baselines": result.baselines,
        "settings": json.loads(json.dumps(asdict(settings), default=str)),
        "torch": torch.__version__,
    }


def schedule_of(settings: Settings) -> str:
    """What a run by `settings` would change when, as text; raises `UserError`."""
    validate(settings)
    learners = put_to_work(construct(settings.model), settings)
    return plan(
        settings, {one.level.name: sum(p.numel() for p in one.parameters.values()) for one in learners}
    )


def main(arguments: list[str] | None = None) -> int:
    """Train by the settings of this folder and the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", action="store_true", help="print what would change when, and stop")
    parser.add_argument("--steps", type=int, help="optimizer steps; the same as --set steps=N")
    parser.add_argument("--seed", type=int, help="of the weights and of the order of the text")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint of a run")
    parser.add_argument("--out", type=Path, help="folder of the run; default: the next one under runs/")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change one setting")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=None, help="use torch.compile"
    )
    parser.add_argument("--save-weights", type=Path, metavar="FILE", help="write them, as safetensors")
    options = parser.parse_args(arguments)
    try:
        settings = amend(
            SETTINGS, options.set, steps=options.steps, seed=options.seed, regions=options.compile
        )
        if options.plan:
            print(schedule_of(settings), end="")
            return 0
        return train(
            settings,
            device=options.device,
            out=options.out,
            resume=options.resume,
            weights=options.save_weights,
        ).code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
