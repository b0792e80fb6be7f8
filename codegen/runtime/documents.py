"""What held-out text costs document by document, so that runs can be compared over texts as well as seeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data import Corpus, held_out_starts
from measures import Answers
from tasks import Course

DOCUMENT, WINDOW, ITEM = "document", "window", "item"


@dataclass(frozen=True)
class Documents:
    """Held-out losses by unit.

    `unit` says what the units are: `document` where a text has several, else `window`; `item` where tasks
    have other things than text.  Each unit has its `name`, how many `tokens` count in it, its mean `loss` in
    nats per token, and its `accuracy`, the share of its tokens guessed right.  The mean of the losses by
    tokens is the held-out loss.
    """

    unit: str
    units: tuple[dict[str, Any], ...]

    @property
    def loss(self) -> float:
        """The held-out loss, in nats per token."""
        return self._mean("loss")

    @property
    def accuracy(self) -> float:
        """The share of all tokens guessed right."""
        return self._mean("accuracy")

    def _mean(self, name: str) -> float:
        return sum(one["tokens"] * one[name] for one in self.units) / sum(one["tokens"] for one in self.units)


def by_document(answers: Answers, course: Course) -> Documents:
    """`answers` to the held-out tokens of `course`, put together by the document in which each target lies.

    A separator belongs to the document that it ends.  Units of which no token counts are left out.
    """
    unit, names, index = units(course)
    index = index[answers.counts]
    tokens = torch.bincount(index, minlength=len(names))
    losses = torch.bincount(index, answers.losses[answers.counts], minlength=len(names))
    right = torch.bincount(index, answers.right[answers.counts].double(), minlength=len(names))
    found = zip(names, tokens.tolist(), losses.tolist(), right.tolist(), strict=True)
    return Documents(
        unit, tuple({"name": n, "tokens": t, "loss": x / t, "accuracy": r / t} for n, t, x, r in found if t)
    )


def units(course: Course) -> tuple[str, list[str], Tensor]:
    """What the units of held-out tokens are, their names, and the unit of every target (`[n, length]`)."""
    length = course.windows.shape[1] - 1
    if not course.tasks:
        unit, names, index = _of_text(course.corpus, length, len(course.windows))
        return unit, _apart(names), index
    parts: list[tuple[str, list[str], Tensor]] = []
    for task, asked in zip(course.tasks, course.questions, strict=True):
        count = len(asked.inputs)
        if task.corpus is None:
            unit, names = ITEM, [f"item {number}" for number in range(1, count + 1)]
            index = torch.arange(count)[:, None].expand(count, length)
        else:
            unit, names, index = _of_text(task.corpus, length, count)
        parts.append((unit, [f"{task.name}: {name}" for name in names], index))
    kinds = {unit for unit, _, _ in parts}
    names: list[str] = []
    indices: list[Tensor] = []
    for _, own, index in parts:
        indices.append(index + len(names))
        names += own
    return kinds.pop() if len(kinds) == 1 else ITEM, _apart(names), torch.cat(indices)


def _of_text(corpus: Corpus, length: int, count: int) -> tuple[str, list[str], Tensor]:
    """The same for `count` windows of a text."""
    starts = held_out_starts(corpus, length, count)
    if not corpus.documents:
        # With its end: a longer window that begins at the same place is another text.
        names = [f"window {start:,} to {start + length:,}" for start in starts.tolist()]
        return WINDOW, names, torch.arange(len(starts))[:, None].expand(len(starts), length)
    targets = starts[:, None] + torch.arange(1, length + 1)
    return (
        DOCUMENT,
        list(corpus.documents),
        torch.searchsorted(torch.tensor(corpus.ends), targets, right=True),
    )


def _apart(names: list[str]) -> list[str]:
    """`names` with a number behind those that were there before.

    >>> _apart(["a", "b", "a"])
    ['a', 'b', 'a (2)']
    """
    seen: Counter[str] = Counter()
    found: list[str] = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
