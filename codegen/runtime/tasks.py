"""Tasks one after the other: what each is made from, when it is read, and what a run keeps of the others.

A task gives sequences of one length.  In a text every token is asked for; in items the tokens that answer
may be all that counts (`Data.counts`).

The matrix of a run: R[i][j] is what task j gets after i tasks have been learned, R[0][j] before any.  What
is made from it is defined where it is computed, after Lopez-Paz & Ranzato, Gradient Episodic Memory for
Continual Learning (NeurIPS 2017), and Chaudhry et al., Riemannian Walk for Incremental Learning (ECCV 2018).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import data as texts
import items
from data import Sampler
from items import IGNORED, Items
from schedule import Data, Task, UserError

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Made:
    """A task, made: `sampler(batch, seed)` gives its training sequences, `held_out` is what it is asked.

    `singles` and `pairs` are counts of its training tokens, for `data.counted`; `largest` is the largest.
    """

    name: str
    sampler: Callable[[int, int], Sampler | ItemSampler]
    held_out: Items
    singles: Tensor
    pairs: Tensor
    largest: int
    warnings: tuple[str, ...] = ()
    corpus: texts.Corpus | None = None  # of a task that is a text


class ItemSampler:
    """Items in an order fixed by a seed; every item once an epoch."""

    def __init__(self, items: Items, batch: int, seed: int) -> None:
        self.items, self.batch, self.seed = items, batch, seed
        self.position = 0  # items given so far
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next inputs and targets, `[batch, length]` of int64 each."""
        chosen = torch.tensor([self._index(self.position + i) for i in range(self.batch)])
        self.position += self.batch
        return self.items.inputs[chosen], self.items.targets[chosen]

    def _index(self, position: int) -> int:
        epoch, index = divmod(position, len(self.items.inputs))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            self._order = torch.randperm(len(self.items.inputs), generator=generator)
            self._epoch = epoch
        return int(self._order[index])

    def state_dict(self) -> dict[str, int]:
        """Where the sampler stands, and what its order depends on."""
        return {"position": self.position, "seed": self.seed, "items": len(self.items.inputs)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another sampler stood; `UserError` if its items were others."""
        _same(state, self.state_dict(), free=("position",))
        self.position = state["position"]


class TaskSampler:
    """Batches of one task for `each` steps, then of the next; with the order `joint`, of all from the start.

    After the last task's steps its batches go on.  In a joint batch the tasks take turns.
    """

    def __init__(self, tasks: Sequence[Made], data: Data) -> None:
        self.data = data
        self.joint = data.order == "joint"
        batch = 1 if self.joint else data.batch
        self.samplers = [task.sampler(batch, data.seed) for task in tasks]
        self.step = 0

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next inputs and targets, `[batch, length]` of int64 each."""
        self.step += 1
        if not self.joint:
            return self.samplers[task_at(self.data, self.step - 1)].draw()
        first = (self.step - 1) * self.data.batch
        parts = [self.samplers[(first + i) % len(self.samplers)].draw() for i in range(self.data.batch)]
        return torch.cat([inputs for inputs, _ in parts]), torch.cat([targets for _, targets in parts])

    def state_dict(self) -> dict[str, Any]:
        """Where every task stands."""
        return {
            "step": self.step,
            "order": self.data.order,
            "each": self.data.each,
            "tasks": [sampler.state_dict() for sampler in self.samplers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another sampler stood; `UserError` if its tasks were others."""
        if "tasks" not in state or len(state["tasks"]) != len(self.samplers):
            raise _other_data("other tasks")
        _same(state, self.state_dict(), free=("step", "tasks"))
        for sampler, one in zip(self.samplers, state["tasks"], strict=True):
            sampler.load_state_dict(one)
        self.step = state["step"]


class Course:
    """What a run reads: one text, or tasks.

    `windows` are held-out tokens, `[n, length + 1]`; where `targets` is not None it says which of them are
    asked for.  With tasks they hold each task's, one after the other.
    """

    def __init__(self, data: Data, vocabulary: int, count: int, folder: Path = HERE) -> None:
        """Read what `data` names; `count` windows are held out for a text, or for each task.

        Raises `UserError` for what is missing, too short, or has tokens that the model has not.
        """
        self.data = data
        self.targets: Tensor | None = None
        self.bytes_per_token = 1.0  # of the text that is asked
        if not data.tasks:
            self.tasks: tuple[Made, ...] = ()
            self.corpus = texts.load(data, folder)
            texts.check_vocabulary(self.corpus, vocabulary)
            self.sampler: Sampler | TaskSampler = Sampler(
                self.corpus.train, data.length, data.batch, data.seed
            )
            self.windows = texts.held_out_windows(self.corpus, data.length, count)
            self.warnings = self.corpus.warnings
            self.bytes_per_token = self.corpus.bytes_per_token
            return
        if data.each < 1:
            raise UserError(f"`data.each` is {data.each}", help="a task takes 1 step or more")
        self.tasks = tuple(make(task, data, folder) for task in data.tasks)
        for task in self.tasks:
            _check_vocabulary(task, vocabulary)
        self.sampler = TaskSampler(self.tasks, data)
        self.questions = [task.held_out.spread(count) for task in self.tasks]
        self.windows, self.targets = self.asked(range(len(self.tasks)))
        self.warnings = tuple(dict.fromkeys(w for task in self.tasks for w in task.warnings))

    @property
    def writes_text(self) -> bool:
        """Whether what the model learns to write is text."""
        return all(task.kind == "text" for task in self.data.tasks)

    @property
    def questions_asked(self) -> int:
        """How many held-out tokens count."""
        return self.windows[:, 1:].numel() if self.targets is None else int((self.targets != IGNORED).sum())

    def fewer_than(self, count: int) -> list[str]:
        """What is worth a line before a run that asks for `count` windows of held-out text, or of each task:
        where there are fewer.
        """
        length = self.data.length
        if self.tasks:
            has = [(f"task `{t.name}`", t.corpus is None, len(t.held_out.inputs)) for t in self.tasks]
        else:
            has = [("the held-out text", False, texts.held_out_count(self.corpus, length))]
        said = []
        for name, of_items, found in has:
            if found < count:
                what = f"{'held-out item' if of_items else 'window'}{'' if found == 1 else 's'}"
                unit = "" if of_items else f" of {length} tokens"
                said.append(
                    f"`evaluate_windows` is {count:,}, and {name} has {found:,} {what}{unit}; "
                    "no more are measured"
                )
        return said

    def asked(self, tasks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What is asked of these tasks: windows `[n, length + 1]` and targets `[n, length]`."""
        inputs = torch.cat([self.questions[task].inputs for task in tasks])
        targets = torch.cat([self.questions[task].targets for task in tasks])
        last = targets[:, -1:].clamp_min(0)  # no input; `targets` says whether it counts
        return torch.cat([inputs, last], 1), targets

    def baselines(self) -> dict[str, float]:
        """What counting gives where the model is asked, in nats per token: see `data.counted`.

        With tasks the counts are those of all of them at once, which a run that forgets can fall behind.
        """
        if not self.tasks:
            return texts.baselines(self.corpus, self.windows)
        assert self.targets is not None
        size = max(len(task.pairs) for task in self.tasks)
        singles, seen = torch.zeros(size).double(), torch.zeros(size, size).double()
        for task in self.tasks:
            singles[: len(task.singles)] += task.singles
            seen[: len(task.pairs), : len(task.pairs)] += task.pairs
        return texts.counted(singles, seen, Items(self.windows[:, :-1], self.targets).pairs(size))


def share(targets: Tensor, begin: int, end: int) -> float:
    """Which share of the targets that count (`[batch, length]`) stands from `begin` to `end`; 0 if none does.

    >>> share(torch.tensor([[IGNORED, IGNORED, 5, 6]]), 0, 3)
    0.5
    """
    counts = targets != IGNORED
    whole = counts.sum().item()
    return counts[:, begin:end].sum().item() / whole if whole else 0.0


def task_at(data: Data, step: int) -> int:
    """The task that `step` (from 0) reads.

    >>> data = Data("", 8, 1, tasks=(Task("a", "a"), Task("b", "b")), each=3)
    >>> [task_at(data, step) for step in range(8)]
    [0, 0, 0, 1, 1, 1, 1, 1]
    """
    return min(step // data.each, len(data.tasks) - 1)


def tasks_done(data: Data, step: int) -> int | None:
    """How many tasks have been learned after `step` steps, if a task ends just there (or none has begun).

    >>> data = Data("", 8, 1, tasks=(Task("a", "a"), Task("b", "b")), each=3)
    >>> [tasks_done(data, step) for step in (0, 1, 3, 6, 9)]
    [0, None, 1, 2, None]
    """
    if not data.tasks or step % data.each or step > data.each * len(data.tasks):
        return None
    return step // data.each


# --------------------------------------------------------------------------- making tasks


def make(task: Task, data: Data, folder: Path = HERE) -> Made:
    """The sequences of a task; raises `UserError`."""
    if task.kind == "text":
        return _text(task, data, folder)
    made = items.make(task, data, folder)
    train = made.train
    return Made(
        task.name,
        lambda batch, seed: ItemSampler(train, batch, seed),
        made.held_out,
        torch.bincount(train.targets[train.targets != IGNORED], minlength=made.tokens).double(),
        train.pairs(made.tokens),
        max(made.tokens - 1 if task.kind == "classes" else 0, int(train.inputs.max())),
        made.warnings,
    )


def _text(task: Task, data: Data, folder: Path) -> Made:
    """Every byte of a text, or of a corpus' documents of some years."""
    corpus = texts.corpus(task.source, data, folder, task.years)
    windows = texts.held_out_windows(corpus, data.length, len(corpus.held_out))
    return Made(
        task.name,
        lambda batch, seed: Sampler(corpus.train, data.length, batch, seed),
        Items(windows[:, :-1], windows[:, 1:]),
        torch.bincount(corpus.train.int(), minlength=texts.VOCABULARY).double(),
        texts.stream_pairs(corpus.train),
        int(max(corpus.train.max(), corpus.held_out.max())),
        corpus.warnings,
        corpus,
    )


def _check_vocabulary(task: Made, vocabulary: int) -> None:
    if task.largest >= vocabulary:
        raise UserError(
            f"the model has {vocabulary} tokens, and task `{task.name}` has token {task.largest}",
            help=f"this task needs a vocabulary of {task.largest + 1} or more",
            kind="data",
        )


def _same(state: dict[str, Any], now: dict[str, Any], free: tuple[str, ...]) -> None:
    """Raise `UserError` where a checkpoint read other data; what is `free` may differ."""
    for name, value in now.items():
        if name not in free and state.get(name) != value:
            raise _other_data(f"{name} {state.get(name)}, and this run has {value}")


def _other_data(what: str) -> UserError:
    return UserError(
        f"the checkpoint read its data with {what}",
        help="resume with the same data, or start a new run in another folder",
        kind="checkpoint",
    )


# --------------------------------------------------------------------------- what is kept of a task


class Record:
    """`results.json`: what every task gets after each, and what that says about remembering."""

    NAME = "results.json"

    def __init__(self, folder: Path, data: Data, step: int) -> None:
        """Go on with the record of `folder`; rows from after `step` happen again."""
        self.path = folder / self.NAME
        self.data = data
        self.rows: list[dict[str, Any]] = []
        if data.tasks and step and self.path.is_file():
            try:
                rows = json.loads(self.path.read_text(encoding="utf-8"))["rows"]
                self.rows = [row for row in rows if row["step"] <= step]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{self.path} is damaged: {error}",
                    help="start a new run in another folder",
                    kind="checkpoint",
                ) from error

    def wants(self, step: int) -> bool:
        """Whether a row is due after `step` steps."""
        return tasks_done(self.data, step) is not None and all(row["step"] != step for row in self.rows)

    def add(self, step: int, found: Sequence[dict[str, float]]) -> dict[str, Any]:
        """Keep what each task got (`loss`, `accuracy`) after `step` steps; returns the row."""
        row = {
            "step": step,
            "tasks_done": tasks_done(self.data, step),
            "loss": [one["loss"] for one in found],
            "accuracy": [one["accuracy"] for one in found],
        }
        self.rows.append(row)
        content = {"tasks": [task.name for task in self.data.tasks], "order": self.data.order}
        content |= {"rows": self.rows, "summary": self.summary()}
        try:
            part = self.path.with_name(self.path.name + ".part")
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            part.replace(self.path)  # whole or not at all
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}",
                help="choose a folder that can be written with --out",
                code=2,
                kind="output",
            ) from error
        return row

    def summary(self) -> dict[str, dict[str, float]]:
        """See `summarise`; empty until all tasks have been learned."""
        if len(self.rows) != len(self.data.tasks) + 1:
            return {}
        return {
            "accuracy": summarise([row["accuracy"] for row in self.rows]),
            "loss": summarise([row["loss"] for row in self.rows], lower_is_better=True),
        }


def summarise(matrix: Sequence[Sequence[float]], *, lower_is_better: bool = False) -> dict[str, float]:
    """What R (`[tasks + 1][tasks]`, row 0 before any task) says, T being the number of tasks.

    `average`: the mean of R[T][j] over all j.
    `learned`: the mean of R[j][j], each task just after it.
    `forgetting` (Chaudhry et al. 2018): the mean over j < T of the best of R[1][j] ... R[T-1][j], less
    R[T][j].  `backward` transfer (Lopez-Paz & Ranzato 2017): the mean over j < T of R[T][j] - R[j][j].
    `forward` transfer (the same): the mean over j > 1 of R[j-1][j] - R[0][j].
    Where lower is better the signs are turned: forgetting is bad and transfer is good, always.

    >>> found = summarise([[0.0, 0.0], [1.0, 0.25], [0.5, 1.0]])
    >>> found["average"], found["learned"], found["forgetting"], found["backward"], found["forward"]
    (0.75, 1.0, 0.5, -0.5, 0.25)
    """
    sign = -1.0 if lower_is_better else 1.0
    rows = [[sign * value for value in row] for row in matrix]
    tasks = len(rows[0])
    last, others = rows[tasks], range(tasks - 1)
    best = [max(rows[i][j] for i in range(1, tasks)) for j in others]
    return {
        "average": sign * _mean(last),
        "learned": sign * _mean([rows[j + 1][j] for j in range(tasks)]),
        "forgetting": _mean([best[j] - last[j] for j in others]),
        "backward": _mean([last[j] - rows[j + 1][j] for j in others]),
        "forward": _mean([rows[j][j] - rows[0][j] for j in range(1, tasks)]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
