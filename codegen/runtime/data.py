"""Text as a stream of tokens: what is trained on, what is held out, and windows of both."""

from __future__ import annotations

import json
import lzma
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schedule import Data, UserError
from tokens import SEPARATOR, Bytes, tokenizer

HERE = Path(__file__).resolve().parent
VOCABULARY = 256


@dataclass(frozen=True)
class Corpus:
    """A text in two parts, each one stream of tokens (`[tokens]`; bytes as `uint8`).

    `warnings` are facts worth a line before a run.  A token of the held-out part stands for
    `bytes_per_token` bytes of text.  `documents` are the names of those held out, none where nothing parts
    the text, and `ends` the places in `held_out` after each and the separator that ends it.
    """

    name: str
    train: Tensor
    held_out: Tensor
    warnings: tuple[str, ...] = ()
    bytes_per_token: float = 1.0
    documents: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()


def load(data: Data, folder: Path = HERE) -> Corpus:
    """The corpus that `data` names: `NAME.txt.xz` beside this file, or a file of the user's.

    Raises `UserError` when the text is missing, empty, or too short for one window on either side.
    """
    return corpus(data.source, data, folder)


def corpus(source: str, data: Data, folder: Path = HERE, years: tuple[int, int] | None = None) -> Corpus:
    """The text `source`, or what its manifest dates in `years`, both included; raises `UserError`."""
    path, manifest_path = find(source, folder)
    text = read(path)
    *sides, names = _split(text, data.split, manifest_path, path, years)
    for side, part in zip(("training", "held-out"), sides, strict=True):
        if not part:
            when = f" from {years[0]} to {years[1]}" if years is not None else ""
            raise UserError(
                f"the {side} part of {path.name}{when} is empty",
                help="take more years" if years is not None else "use more text",
                kind="data",
            )
    reader = tokenizer(data.tokenizer, folder)
    train = reader.stream(sides[0])
    held_out, ends = reader.cut(sides[1])
    if len(names) != len(ends):  # a text without a manifest, or one with separators inside its documents
        names = [""] * len(ends) if len(ends) > 1 else []
    names = [name or f"document {number}" for number, name in enumerate(names, start=1)]
    warnings = _warnings(text, path)
    least = data.length + 1
    longest = min(len(train), len(held_out)) - 1
    shorter = f", or `--set data.length={longest}` or less" if longest > 0 else ""
    for side, part in (("training", train), ("held-out", held_out)):
        if len(part) < least:
            raise UserError(
                f"the {side} part of {path.name} has {len(part)} {reader.unit}s, "
                f"and one window takes {least}",
                help=f"use more text{shorter}",
                kind="data",
            )
    rate = len(sides[1]) / len(held_out)
    return Corpus(source, train, held_out, warnings, rate, tuple(names), tuple(ends if names else ()))


def check_vocabulary(corpus: Corpus, vocabulary: int) -> None:
    """Raise `UserError` if the text has a byte or token that the model does not have."""
    largest = int(max(corpus.train.max(), corpus.held_out.max()))
    if largest >= vocabulary:
        plain = corpus.train.dtype == torch.uint8
        raise UserError(
            f"the model has {vocabulary} tokens, and {corpus.name} has a "
            + (f"byte of value {largest}" if plain else f"token numbered {largest}"),
            help=f"a vocabulary of {VOCABULARY} takes any text; this one needs {largest + 1} or more"
            if plain
            else f"this text needs a vocabulary of {largest + 1} or more",
            kind="data",
        )


class Sampler:
    """Windows of a stream in an order fixed by a seed; every window once an epoch.

    An epoch starts at a random byte below `length`, so that epochs cut the text in different places.
    The position is the only state: `state_dict` and `load_state_dict` go on where they left off.
    """

    def __init__(self, stream: Tensor, length: int, batch: int, seed: int) -> None:
        self.stream, self.length, self.batch, self.seed = stream, length, batch, seed
        self.position = 0  # windows given so far
        self._epoch = -1
        self._starts = torch.empty(0, dtype=torch.int64)
        self._per_epoch = max(1, (len(stream) - length) // length)  # the offset takes up to one window

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next inputs and, one place later, their targets: `[batch, length]` of int64 each."""
        windows = self.next()
        return windows[:, :-1], windows[:, 1:]

    def next(self) -> Tensor:
        """The next windows, `[batch, length + 1]` of int64: inputs and, one place later, targets."""
        starts = [self._start(self.position + i) for i in range(self.batch)]
        self.position += self.batch
        return _windows(self.stream, torch.tensor(starts), self.length)

    def _start(self, position: int) -> int:
        epoch, index = divmod(position, self._per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            room = min(self.length, len(self.stream) - self._per_epoch * self.length)
            offset = torch.randint(room, (1,), generator=generator)
            self._starts = offset + self.length * torch.randperm(self._per_epoch, generator=generator)
            self._epoch = epoch
        return int(self._starts[index])

    def state_dict(self) -> dict[str, int]:
        """Where the sampler stands, and what its order depends on."""
        return {
            "position": self.position,
            "seed": self.seed,
            "length": self.length,
            "bytes": len(self.stream),
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another sampler stood; `UserError` if its windows were others."""
        for name, now in self.state_dict().items():
            if name != "position" and state[name] != now:
                raise UserError(
                    f"the checkpoint read its text with {name} {state[name]}, and this run has {now}",
                    help="resume with the same data, or start a new run in another folder",
                    kind="checkpoint",
                )
        self.position = state["position"]


def held_out_windows(corpus: Corpus, length: int, count: int) -> Tensor:
    """Up to `count` windows of the held-out text, in order and spread evenly: `[windows, length + 1]`."""
    return _windows(corpus.held_out, held_out_starts(corpus, length, count), length)


def held_out_starts(corpus: Corpus, length: int, count: int) -> Tensor:
    """Where those windows begin in the held-out text: `[windows]` of int64."""
    available = held_out_count(corpus, length)
    chosen = torch.linspace(0, available - 1, min(count, available), dtype=torch.float64).long()
    return chosen * length


def held_out_count(corpus: Corpus, length: int) -> int:
    """How many windows the held-out text has."""
    return (len(corpus.held_out) - 1) // length


def batches(windows: Tensor, batch: int) -> Iterator[Tensor]:
    """`windows` in order, `batch` at a time."""
    yield from windows.split(batch)


def baselines(corpus: Corpus, windows: Tensor | None = None) -> dict[str, float]:
    """What counting gives on the held-out text, in nats per token; a model that is below has learned more.

    See `counted`.  With `windows` (`[n, length + 1]`) the very tokens that a model is asked for.
    """
    if corpus.train.dtype != torch.uint8:
        asked = corpus.held_out.long().unfold(0, 2, 1) if windows is None else windows.unfold(1, 2, 1)
        return counted_among_many(corpus.train.long(), asked.reshape(-1, 2))
    if windows is None:
        asked = stream_pairs(corpus.held_out)
    else:
        asked = pairs(windows[:, :-1], windows[:, 1:], VOCABULARY)
    singles = torch.bincount(corpus.train.int(), minlength=VOCABULARY).double()
    return counted(singles, stream_pairs(corpus.train), asked)


def counted(singles: Tensor, seen: Tensor, asked: Tensor) -> dict[str, float]:
    """Losses of counting, in nats, from how often token b followed a in training (`seen`) and is asked for
    (`asked`), `[tokens, tokens]` each.

    `unigram`: tokens by their frequency `singles`, one added to each count.
    `bigram`: tokens by the one before, smoothed after Witten and Bell:
    P(b | a) = (count(ab) + kinds(a) P(b)) / (count(a) + kinds(a)), where `kinds(a)` is how many
    different tokens follow a.
    """
    unigram = (singles + 1) / (singles + 1).sum()
    kinds = (seen > 0).sum(1, keepdim=True).double()
    total = seen.sum(1, keepdim=True)
    bigram = torch.where(total > 0, (seen + kinds * unigram) / (total + kinds).clamp_min(1), unigram)
    return {
        "unigram": float(-(asked.sum(0) * unigram.log()).sum() / asked.sum()),
        "bigram": float(-(asked * bigram.log()).sum() / asked.sum()),
    }


def counted_among_many(stream: Tensor, asked: Tensor) -> dict[str, float]:
    """The same for vocabularies whose pairs are too many for a table: `stream` `[tokens]` was trained on, and
    `asked` `[n, 2]` are a token and the one after it.

    >>> stream, asked = torch.randint(9, (99,)), torch.randint(9, (20, 2))
    >>> many = counted_among_many(stream, asked)
    >>> tables = (pairs(stream[:-1], stream[1:], 9), pairs(asked[:, 0], asked[:, 1], 9))
    >>> table = counted(torch.bincount(stream, minlength=9).double(), *tables)
    >>> [abs(many[name] - table[name]) < 1e-9 for name in table]
    [True, True]
    """
    size = int(max(stream.max(), asked.max())) + 1
    first, second = asked.unbind(1)
    singles = torch.bincount(stream, minlength=size).double() + 1
    unigram = (singles / singles.sum())[second]
    seen, counts = (stream[:-1] * size + stream[1:]).unique(return_counts=True)
    kinds = torch.bincount(seen // size, minlength=size).double()[first]
    total = torch.bincount(stream[:-1], minlength=size).double()[first]
    wanted = first * size + second
    place = torch.searchsorted(seen, wanted).clamp_max(len(seen) - 1)
    both = torch.where(seen[place] == wanted, counts[place], 0).double()
    bigram = torch.where(total > 0, (both + kinds * unigram) / (total + kinds).clamp_min(1), unigram)
    return {"unigram": float(-unigram.log().mean()), "bigram": float(-bigram.log().mean())}


def encode(text: str) -> Tensor:
    """The bytes of `text`, `[bytes]` of int64."""
    return Bytes().encode(text)


def bits(nats: float) -> float:
    """Nats as bits."""
    return nats / math.log(2)


# --------------------------------------------------------------------------- reading


def find(source: str, folder: Path) -> tuple[Path, Path | None]:
    """The file of a source and its manifest, if it has one."""
    packed, manifest = folder / f"{source}.txt.xz", folder / f"{source}.json"
    if packed.is_file():
        return packed, manifest if manifest.is_file() else None
    for path in (folder / source, Path(source)):
        if path.is_dir():
            raise UserError(f"{path} is a folder", help="name a text file", code=2, kind="data")
        if path.is_file():
            return path, None
    raise UserError(
        f"there is no text `{source}`",
        help=f"looked for {packed.name} and {source} in {folder}, and for {source} in {Path.cwd()}",
        code=2,
        kind="data",
    )


def read(path: Path) -> bytes:
    """The content of a file, unpacked; `UserError` if it is unreadable, damaged or empty."""
    try:
        raw = path.read_bytes()
        text = lzma.decompress(raw) if path.suffix == ".xz" else raw
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}", help="check the file", code=2, kind="data"
        ) from error
    except lzma.LZMAError as error:
        raise UserError(
            f"{path} is damaged: {error}", help="write the folder again from its spec", code=2, kind="data"
        ) from error
    if not text:
        raise UserError(f"{path} is empty", help="name a file with text in it", kind="data")
    return text


def _split(
    text: bytes, rule: str, manifest_path: Path | None, path: Path, years: tuple[int, int] | None
) -> tuple[bytes, bytes, list[str]]:
    """Training and held-out text by `rule` (see `schedule.Data`), and what a manifest calls its documents."""
    if years is not None and manifest_path is None:
        raise UserError(
            f"{path.name} has no manifest that says when its documents were written",
            help="leave the years out, and give each task a file of its own",
            kind="data",
        )
    if years is not None or rule == "manifest" or (rule == "auto" and manifest_path is not None):
        if manifest_path is None:
            raise UserError(
                f"{path.name} has no manifest that says what is held out",
                help="use `tail`, which holds out the last tenth (`--set data.split=tail`)",
                kind="data",
            )
        return _split_documents(text, manifest_path, years)
    found = re.fullmatch(r"(?:auto|tail)(?:\(([\d.]+)\))?", rule)
    share = float(found[1] or 0.1) if found else 0.0
    if not 0 < share < 1:
        raise UserError(
            f"`{rule}` is no way to hold out text", help="use `manifest`, `tail` or `tail(0.05)`", kind="data"
        )
    cut = len(text) - max(1, round(len(text) * share))
    documents = manifest(manifest_path)[2] if manifest_path is not None else []
    names = [one.name for one in documents if one.offset + one.size + len(SEPARATOR) > cut]
    return text[:cut], text[cut:], names


def _split_documents(
    text: bytes, manifest_path: Path, years: tuple[int, int] | None
) -> tuple[bytes, bytes, list[str]]:
    """Documents of `years` (of all, by default); those of index `remainder` modulo `every` are held out."""
    every, remainder, documents = manifest(manifest_path)
    train: list[bytes] = []
    held_out: list[bytes] = []
    names: list[str] = []
    for index, document in enumerate(documents):
        if years is not None and not years[0] <= document.year <= years[1]:
            continue
        side = held_out if index % every == remainder else train
        side.append(text[document.offset : document.offset + document.size])
        if side is held_out:
            names.append(document.name)
    return SEPARATOR.join(train), SEPARATOR.join(held_out), names


@dataclass(frozen=True)
class Document:
    """A document of a corpus by its manifest; `offset` and `size` are bytes of the text."""

    offset: int
    size: int
    year: int
    author: str
    date: str = ""

    @property
    def name(self) -> str:
        """When it was written, and by whom."""
        return f"{self.date} {self.author}".strip()


def manifest(path: Path) -> tuple[int, int, list[Document]]:
    """What a manifest says: documents whose index is `remainder` modulo `every` are held out."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        documents = [
            Document(e["offset"], e["bytes"], int(date[:4] or 0), e.get("author", ""), date)
            for e in found["documents"]
            for date in [e.get("date", "")]
        ]
        return int(found["split"]["every"]), int(found["split"]["remainder"]), documents
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error!r})", help="write the folder again from its spec", code=2, kind="data"
        ) from error


def _warnings(text: bytes, path: Path) -> tuple[str, ...]:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        return (f"{path.name} is not UTF-8 (byte {error.start}); it is read as bytes all the same",)
    return ()


def _windows(stream: Tensor, starts: Tensor, length: int) -> Tensor:
    return stream[starts[:, None] + torch.arange(length + 1)].long()


def stream_pairs(stream: Tensor) -> Tensor:
    """How often byte b follows byte a: `[256, 256]`, float64."""
    counts = torch.zeros(VOCABULARY, VOCABULARY, dtype=torch.float64)
    for part in range(0, len(stream) - 1, 1 << 20):  # in pieces: bincount wants eight bytes for each
        piece = stream[part : part + (1 << 20) + 1].long()
        counts += pairs(piece[:-1], piece[1:], VOCABULARY)
    return counts


def pairs(inputs: Tensor, targets: Tensor, vocabulary: int) -> Tensor:
    """How often each target stood after each input: `[vocabulary, vocabulary]`, float64."""
    both = inputs.flatten() * vocabulary + targets.flatten()
    return torch.bincount(both, minlength=vocabulary**2).double().view(vocabulary, vocabulary)
