"""Items: sequences that belong together, made from digits, labelled texts or pairs of texts.

An item is a row of tokens and what is asked in it.  One with a class ends with its label, a token of its
own behind those of its source: after the pixels of a digit, after the bytes of a text.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import data as texts
from schedule import Data, Task, UserError

IGNORED = -100  # a target that does not count: torch's cross entropy leaves it out
HELD_OUT_EVERY = 5  # of the items of a class, and of the pairs of a file
PIXELS = 17  # a digit's are 0 to 16
DIGITS = "digits"
PRESIDENTS = "presidents"
BETWEEN = b"\x1f"  # a pair's source and target
END = b"\n"


@dataclass(frozen=True)
class Items:
    """Sequences, and what is asked in them: `inputs` and `targets`, `[items, length]` of int64 each."""

    inputs: Tensor
    targets: Tensor

    def spread(self, count: int) -> Items:
        """Up to `count` of them, in order and spread evenly."""
        chosen = torch.linspace(0, len(self.inputs) - 1, min(count, len(self.inputs)), dtype=torch.float64)
        return Items(self.inputs[chosen.long()], self.targets[chosen.long()])

    def pairs(self, size: int) -> Tensor:
        """How often each token that counts stood after each other one: `[size, size]`, float64."""
        counts = self.targets != IGNORED
        return texts.pairs(self.inputs[counts], self.targets[counts], size)


@dataclass(frozen=True)
class Made:
    """Items to learn and held-out ones; `tokens` is how many there can be."""

    train: Items
    held_out: Items
    tokens: int
    warnings: tuple[str, ...] = ()


def make(task: Task, data: Data, folder: Path) -> Made:
    """The items of a task of classes or pairs; raises `UserError`."""
    made = _classes(task, data, folder) if task.kind == "classes" else _pairs(task, data, folder)
    if not len(made.train.inputs) or not len(made.held_out.inputs):
        found = f"{len(made.train.inputs)} items to learn and {len(made.held_out.inputs)} held out"
        raise UserError(
            f"task `{task.name}` has {found}",
            help=f"it needs {HELD_OUT_EVERY} items or more that fit into {data.length} tokens",
            kind="data",
        )
    return made


def _classes(task: Task, data: Data, folder: Path) -> Made:
    """Items of the task's classes, each with its label as the last token."""
    base, items = _labelled(task.source, folder, data.length)
    labels = labels_of(data, task.source)
    train: list[Tensor] = []
    held_out: list[Tensor] = []
    for label in task.labels:
        members = [tokens for name, tokens in items if name == label]
        if not members:
            known = ", ".join(dict.fromkeys(name for name, _ in items))
            raise UserError(
                f"`{task.source}` has no class `{label}`", help=f"it has {known}"[:300], kind="data"
            )
        for index, tokens in enumerate(members):
            if len(tokens) > data.length:
                raise UserError(
                    f"an item of `{task.source}` has {len(tokens)} tokens, and a sequence {data.length}",
                    help=f"use `length = {len(tokens)}`",
                    kind="data",
                )
            row = torch.zeros(data.length + 1, dtype=torch.int64)  # what is short begins with zeros
            row[data.length - len(tokens) : data.length] = tokens
            row[data.length] = base + labels.index(label)
            (held_out if index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else train).append(row)
    answers = torch.zeros(data.length, dtype=torch.bool)
    answers[-1] = True
    return Made(_items(train, answers, data), _items(held_out, answers, data), base + len(labels))


def _pairs(task: Task, data: Data, folder: Path) -> Made:
    """Pairs of a file: the source, a byte 0x1f, the target and a line end; zeros after that do not count."""
    path, _ = texts.find(task.source, folder)
    rows: list[Tensor] = []
    asked: list[Tensor] = []
    long = 0
    for number, line in enumerate(texts.read(path).splitlines(), start=1):
        source, tab, target = line.partition(b"\t")
        if not tab:
            raise UserError(
                f"line {number} of {path.name} has no tab between source and target",
                help="write one pair a line",
                kind="data",
            )
        pair = source + BETWEEN + target + END
        if len(pair) > data.length + 1:
            long += 1
            continue
        row = torch.zeros(data.length + 1, dtype=torch.int64)
        row[: len(pair)] = torch.tensor(list(pair))
        counts = torch.zeros(data.length, dtype=torch.bool)
        counts[len(source) if data.counts == "answer" else 0 : len(pair) - 1] = True
        rows.append(row)
        asked.append(counts)
    train = [i for i in range(len(rows)) if i % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
    held_out = [i for i in range(len(rows)) if i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1]
    fits = f"{long} pairs of {path.name} are longer than {data.length} tokens and left out"
    return Made(
        _chosen(rows, asked, train, data),
        _chosen(rows, asked, held_out, data),
        texts.VOCABULARY,
        (fits,) if long else (),
    )


def labels_of(data: Data, source: str) -> list[str]:
    """The classes of all tasks from one source, in order; the place of a class is that of its token.

    >>> data = Data("", 8, 1, tasks=(Task("a", "s", labels=("x", "y")), Task("b", "s", labels=("z",))))
    >>> labels_of(data, "s")
    ['x', 'y', 'z']
    """
    return list(dict.fromkeys(x for task in data.tasks if task.source == source for x in task.labels))


def _labelled(source: str, folder: Path, length: int) -> tuple[int, list[tuple[str, Tensor]]]:
    """All items of a source with their classes, and the first token that is no item's."""
    if source == DIGITS:
        return PIXELS, _digits(folder)
    if source == PRESIDENTS:
        return texts.VOCABULARY, _presidents(folder, length)
    path, _ = texts.find(source, folder)
    items: list[tuple[str, Tensor]] = []
    for number, line in enumerate(texts.read(path).splitlines(), start=1):
        label, tab, text = line.partition(b"\t")
        if not tab or not text:
            raise UserError(
                f"line {number} of {path.name} has no tab between label and text",
                help="write one item a line: its class, a tab, its text",
                kind="data",
            )
        items.append((label.decode("utf-8", "replace"), torch.tensor(list(text[:length]))))
    return texts.VOCABULARY, items


def _digits(folder: Path) -> list[tuple[str, Tensor]]:
    """Images of 8 by 8 pixels, row by row, each pixel a token from 0 to 16."""
    path = folder / f"{DIGITS}.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            rows = [[int(float(cell)) for cell in row] for row in csv.reader(file)]
    except (OSError, EOFError, ValueError) as error:
        raise UserError(
            f"cannot read {path}: {error}", help="write the folder again from its spec", code=2, kind="data"
        ) from error
    return [(str(row[-1]), torch.tensor(row[:-1])) for row in rows]


def _presidents(folder: Path, length: int) -> list[tuple[str, Tensor]]:
    """The first `length` bytes of every paragraph that has as many, by author."""
    path, manifest_path = texts.find("sotu", folder)
    if manifest_path is None:
        raise UserError(
            f"{path.name} has no manifest", help="write the folder again from its spec", code=2, kind="data"
        )
    text = texts.read(path)
    items: list[tuple[str, Tensor]] = []
    for document in texts.manifest(manifest_path)[2]:
        paragraphs = text[document.offset : document.offset + document.size].split(b"\n\n")
        long = (paragraph[:length] for paragraph in paragraphs if len(paragraph) >= length)
        items += [(document.author, torch.tensor(list(paragraph))) for paragraph in long]
    return items


def _items(rows: list[Tensor], counts: Tensor, data: Data) -> Items:
    return _chosen(rows, [counts] * len(rows), list(range(len(rows))), data)


def _chosen(rows: list[Tensor], asked: list[Tensor], chosen: list[int], data: Data) -> Items:
    """Items from rows of `length + 1` tokens; what does not count is `IGNORED` as a target."""
    if not chosen:
        empty = torch.zeros(0, data.length, dtype=torch.int64)
        return Items(empty, empty)
    tokens = torch.stack([rows[i] for i in chosen])
    targets = tokens[:, 1:].clone()
    answers_only = data.counts == "answer" or data.tasks[0].kind == "pairs"
    if answers_only:
        targets[~torch.stack([asked[i] for i in chosen])] = IGNORED
    return Items(tokens[:, :-1].contiguous(), targets)
