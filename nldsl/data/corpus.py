"""Read a corpus that comes with nldsl: documents in order, and the split that its manifest fixes.

A corpus is a folder `nldsl/data/NAME/` with `manifest.json` and one `.xz` file.  The
decompressed file is UTF-8; documents follow each other in the manifest's order and are
separated by one form feed (U+000C), which no document contains.  Every document's byte
offset, length and SHA-256 stand in the manifest, so a reader needs no other rule.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Split = Literal["train", "held_out", "all"]

SEPARATOR = "\f"


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Hold out the documents whose position in the manifest is `remainder` modulo `every`."""

    every: int
    remainder: int

    def holds_out(self, index: int) -> bool:
        """Whether the document at `index` (from 0) is held out.

        >>> [index for index in range(30) if HoldOut(every=10, remainder=9).holds_out(index)]
        [9, 19, 29]
        """
        return index % self.every == self.remainder


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus; `offset` and `size` are bytes of the decompressed file."""

    index: int
    id: str
    date: str
    author: str
    party: str
    delivery: str
    offset: int
    size: int
    sha256: str
    held_out: bool


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus by its manifest; the text is read when it is asked for."""

    name: str
    title: str
    licence: str
    citation: str
    file: str
    text_sha256: str
    split: HoldOut
    documents: tuple[Document, ...]

    def select(self, split: Split = "all") -> tuple[Document, ...]:
        """The documents of one side of the manifest's split, in the manifest's order.

        >>> corpus = load("sotu")
        >>> [len(corpus.select(side)) for side in ("train", "held_out", "all")]
        [214, 23, 237]
        """
        if split == "all":
            return self.documents
        return tuple(document for document in self.documents if document.held_out == (split == "held_out"))

    def texts(self, split: Split = "all") -> list[str]:
        """The texts of `select(split)`, in the same order.

        Raises `ValueError` if the stored text is not the one that the manifest names.
        """
        data = _read(self.name, self.file, self.text_sha256)
        return [data[d.offset : d.offset + d.size].decode("utf-8") for d in self.select(split)]


def names() -> tuple[str, ...]:
    """The corpora that come with nldsl.

    >>> names()
    ('sotu',)
    """
    folders = (entry for entry in files("nldsl.data").iterdir() if entry.is_dir())
    return tuple(sorted(entry.name for entry in folders if entry.joinpath("manifest.json").is_file()))


def folder(name: str) -> Traversable:
    """The folder of corpus `name`: `manifest.json`, the `.xz` file, `README.md`.

    Raises `KeyError` if no corpus has that name.
    """
    if name not in names():
        raise KeyError(name)
    return files("nldsl.data").joinpath(name)


@cache
def load(name: str) -> Corpus:
    """The corpus `name`, without its text.

    Raises `KeyError` if no corpus has that name.

    >>> corpus = load("sotu")
    >>> corpus.documents[0].date, corpus.documents[0].author
    ('1790-01-08', 'George Washington')
    """
    manifest = json.loads(folder(name).joinpath("manifest.json").read_text(encoding="utf-8"))
    split = HoldOut(every=manifest["split"]["every"], remainder=manifest["split"]["remainder"])
    documents = tuple(
        Document(
            index=index,
            id=entry["id"],
            date=entry["date"],
            author=entry["author"],
            party=entry["party"],
            delivery=entry["delivery"],
            offset=entry["offset"],
            size=entry["bytes"],
            sha256=entry["sha256"],
            held_out=split.holds_out(index),
        )
        for index, entry in enumerate(manifest["documents"])
    )
    return Corpus(
        name=name,
        title=manifest["title"],
        licence=manifest["licence"]["text"],
        citation=manifest["citation"],
        file=manifest["file"]["name"],
        text_sha256=manifest["text"]["sha256"],
        split=split,
        documents=documents,
    )


@cache
def _read(name: str, file: str, sha256: str) -> bytes:
    """The decompressed file of a corpus, once its hash has been compared."""
    data = lzma.decompress(folder(name).joinpath(file).read_bytes())
    if hashlib.sha256(data).hexdigest() != sha256:
        message = f"{name}/{file} does not hold the text that its manifest names"
        raise ValueError(message)
    return data
