"""One trial, in a process of its own: train a build folder task after task, and keep what each task gets."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nldsl.run.folder import Build, load

FISHER_BATCHES = 64  # of one sequence each
MEASURES = ("loss", "accuracy", "within")


class Elastic:
    """Elastic weight consolidation (Kirkpatrick et al. 2017): a penalty for leaving what a task needed.

    After task k with the weights w_k, every later loss has `strength / 2 sum_k F_k (w - w_k)^2` added, F_k
    being the mean squared gradient of the log-likelihood of single sequences.  The penalty joins the
    gradient when it has been accumulated, which is once a step where all clocks are one step.
    """

    def __init__(self, model: nn.Module, strength: float) -> None:
        self.model, self.strength = model, strength
        self.sums: dict[Tensor, tuple[Tensor, Tensor]] = {}
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(self._pull)
        self.on = True

    def _pull(self, parameter: Tensor) -> None:
        if self.on and parameter in self.sums and parameter.grad is not None:
            importance, anchor = self.sums[parameter]
            parameter.grad.add_(importance * parameter.detach() - anchor, alpha=self.strength)

    def keep(self, sampler: Any, ignored: int) -> None:
        """Take in the task that has just been learned; its `sampler` is a new one."""
        self.on = False
        squares = {p: torch.zeros_like(p) for p in self.model.parameters()}
        for _ in range(FISHER_BATCHES):
            inputs, targets = sampler.draw()
            logits, _ = self.model(inputs, None)
            loss = cross_entropy(
                logits.flatten(0, 1), targets.flatten(), ignore_index=ignored, reduction="sum"
            )
            loss.backward()
            for parameter, total in squares.items():
                if parameter.grad is not None:
                    total += parameter.grad**2 / FISHER_BATCHES
                parameter.grad = None
        for parameter, square in squares.items():
            importance, anchor = self.sums.get(
                parameter, (torch.zeros_like(square), torch.zeros_like(square))
            )
            self.sums[parameter] = (importance + square, anchor + square * parameter.detach())
        self.on = True


def run(
    build: Build, *, rate: float, seed: int, way: str, strength: float, each: int | None
) -> dict[str, Any]:
    """Train by the folder's settings with another rate and seed; what each task got, and what it took."""
    settings = build.settings
    steps = each or settings.data.each
    order = "joint" if way == "joint" else "sequence"
    data = dataclasses.replace(settings.data, seed=seed, each=steps, order=order)
    levels = tuple(
        dataclasses.replace(level, rate=dataclasses.replace(level.rate, base=rate))
        for level in settings.levels
    )
    settings = dataclasses.replace(
        settings,
        data=data,
        levels=levels,
        seed=seed,
        steps=steps * len(data.tasks),
        evaluate_windows=48,
    )
    begun = time.process_time()
    rows: list[dict[str, Any]] = []
    trainer = build.loop.Trainer(settings, torch.device("cpu"))
    elastic = Elastic(trainer.model, strength) if way == "ewc" else None
    while True:
        done = build.tasks.tasks_done(data, trainer.step)
        if done is not None:
            if elastic is not None and done:
                elastic.keep(trainer.course.tasks[done - 1].sampler(1, seed), build.items.IGNORED)
            found = trainer.evaluate_tasks()
            row = {name: [one[name] for one in found] for name in ("loss", "accuracy")}
            rows.append(row | {"within": [within(trainer, task) for task in range(len(found))]})
        if trainer.step == settings.steps:
            break
        trainer.train_step()
    matrices = {name: [row[name] for row in rows] for name in MEASURES}
    frozen = {name: [matrix[0], *[matrix[1]] * len(data.tasks)] for name, matrix in matrices.items()}
    return {
        "rows": rows,
        "summary": _summaries(build, matrices),
        "frozen": _summaries(build, frozen),  # of a model that learns nothing after the first task
        "tasks": [task.name for task in data.tasks],
        "baselines": trainer.course.baselines(),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "steps": settings.steps,
        "batch": data.batch,
        "length": data.length,
        "seconds": round(time.process_time() - begun, 1),
    }


@torch.no_grad()
def within(trainer: Any, task: int) -> float:
    """Accuracy when the model is told the task: the likeliest of its labels; 0 for a text, which has none.

    This is what van de Ven & Tolias (2019) call task-incremental; without being told it is class-incremental.
    """
    windows, targets = trainer.course.asked([task])
    labels = targets[:, -1].unique()
    if trainer.course.data.tasks[task].kind != "classes":
        return 0.0
    trainer.model.eval()
    logits, _ = trainer.model(windows[:, :-1], None)
    guessed = labels[logits[:, -1, labels].argmax(-1)]
    return (guessed == targets[:, -1]).double().mean().item()


def _summaries(build: Build, matrices: dict[str, list[list[float]]]) -> dict[str, dict[str, float]]:
    return {
        name: build.tasks.summarise(matrix, lower_is_better=name == "loss")
        for name, matrix in matrices.items()
    }


def main() -> None:
    """Run one trial and write its result whole or not at all."""
    parser = argparse.ArgumentParser(prog="python -m bench.continual.trial", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--way", default="plain", choices=("plain", "ewc", "joint"))
    parser.add_argument("--strength", type=float, default=0.0)
    parser.add_argument("--each", type=int, help="steps of a task; default: those of the spec")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found = run(
        load(chosen.folder),
        rate=chosen.rate,
        seed=chosen.seed,
        way=chosen.way,
        strength=chosen.strength,
        each=chosen.each,
    )
    part = chosen.out.with_suffix(".part")
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(chosen.out)


if __name__ == "__main__":
    main()
