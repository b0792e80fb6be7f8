"""What a text is cut into: its bytes, or the tokens of a `tokenizer.json`."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schedule import UserError

HERE = Path(__file__).resolve().parent
BYTES = "bytes"
ITEMS = "items"  # with labels: see `items`
SEPARATOR = b"\f"  # between documents; a model that writes it has ended one


class Bytes:
    """A text as its UTF-8 bytes."""

    unit = "byte"
    size = 256

    def stream(self, text: bytes) -> Tensor:
        """A whole text, `[bytes]` of uint8."""
        return torch.frombuffer(bytearray(text), dtype=torch.uint8)

    def cut(self, text: bytes) -> tuple[Tensor, list[int]]:
        """A whole text and, for each of its documents, the place after its last byte and its separator.

        >>> Bytes().cut(b"ab" + SEPARATOR + b"c")[1]
        [3, 4]
        """
        ends = list(itertools.accumulate(len(one) + len(SEPARATOR) for one in text.split(SEPARATOR)))
        return self.stream(text), [*ends[:-1], len(text)]

    def encode(self, text: str) -> Tensor:
        """A short text, `[tokens]` of int64.

        >>> Bytes().encode("Hé").tolist()
        [72, 195, 169]
        """
        return torch.tensor(list(text.encode("utf-8")), dtype=torch.int64)

    def decode(self, tokens: Iterable[int]) -> Iterator[str]:
        """Tokens as text: a character appears with its last byte, and what is none becomes U+FFFD.

        >>> list(Bytes().decode([72, 195, 169, 200]))
        ['H', 'é', '\\ufffd']
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        pieces = (decoder.decode(bytes([token]) if token < 256 else b"?") for token in tokens)
        # The decoder is asked for its rest only after the last token.
        for piece in itertools.chain(pieces, (decoder.decode(b"", final=True) for _ in range(1))):
            if piece:
                yield piece


class Subwords:
    """A text as the tokens of a file that the package `tokenizers` reads."""

    unit = "token"

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise UserError(
                f"reading {path} takes the package `tokenizers`",
                help="install it: `pip install tokenizers`",
                code=2,
                kind="data",
            ) from error
        try:
            self.reader: Any = Tokenizer.from_buffer(path.read_bytes())
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror}", help="check the file", code=2, kind="data"
            ) from error
        except ValueError as error:
            raise UserError(
                f"{path} is no tokenizer: {error}", help="give a `tokenizer.json`", code=2, kind="data"
            ) from error
        self.size = int(self.reader.get_vocab_size())

    def stream(self, text: bytes) -> Tensor:
        """A whole text, `[tokens]` of int32, document by document."""
        return self.cut(text)[0]

    def cut(self, text: bytes) -> tuple[Tensor, list[int]]:
        """The same and, for each of its documents, the place after its last token and its separator."""
        documents = text.split(SEPARATOR)
        found = self.reader.encode_batch([one.decode("utf-8", errors="replace") for one in documents])
        between = self.reader.encode(SEPARATOR.decode()).ids
        parts = [torch.tensor(one.ids + between, dtype=torch.int32) for one in found]
        stream = torch.cat(parts)[: -len(between) or None]
        ends = list(itertools.accumulate(map(len, parts)))
        return stream, [*ends[:-1], len(stream)]

    def encode(self, text: str) -> Tensor:
        """A short text, `[tokens]` of int64."""
        return torch.tensor(self.reader.encode(text).ids, dtype=torch.int64)

    def decode(self, tokens: Iterable[int]) -> Iterator[str]:
        """Tokens as text: a piece appears as soon as no later token can change it."""
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        for token in tokens:
            piece = stream.step(self.reader, token)
            if piece:
                yield piece


def tokenizer(name: str, folder: Path = HERE) -> Bytes | Subwords:
    """The tokenizer called `bytes`, or that of a file in `folder` or where the program runs; `UserError`."""
    if name == BYTES:
        return Bytes()
    for path in (folder / name, Path(name)):
        if path.is_file():
            return Subwords(path)
    if name == ITEMS:
        raise UserError(
            "the model reads items with labels, and no text",
            help="generate with a model of text",
            kind="data",
        )
    raise UserError(
        f"there is no tokenizer `{name}`",
        help=f"put the file into {folder}, or use `bytes`; looked there and in {Path.cwd()}",
        code=2,
        kind="data",
    )
