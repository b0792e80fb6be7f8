"""Generate text, a token at a time, from carried state: `python generate.py --prompt "The "`."""

from __future__ import annotations

import argparse
import codecs
import itertools
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from checkpoint import newest, restore
from data import encode
from finite import all_finite, not_finite
from schedule import UserError

HERE = Path(__file__).resolve().parent


def generate(
    model: nn.Module,
    prompt: Tensor,
    tokens: int,
    *,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Yield `tokens` tokens after `prompt` (`[tokens]`, int64).

    The prompt is read once; after it every token is one call of the model with the state of the
    last.  `temperature = 0` takes the likeliest token.  Raises `UserError` for an empty prompt and
    for numbers that make no sense, and, while it runs, for logits that are not finite.

    Steps under `torch.no_grad` only while it computes: the caller's gradient mode is not touched.
    """
    if len(prompt) == 0:
        raise UserError("the prompt is empty", help="give at least one character to start from")
    if not temperature >= 0:  # NaN too
        raise UserError(f"the temperature is {temperature}", help="give 0 (the likeliest token) or more")
    if top_k is not None and top_k < 1:
        raise UserError(f"top-k is {top_k}", help="give 1 or more")
    known = next((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), None)
    if known is not None and int(prompt.max()) >= known:
        raise UserError(
            f"the prompt has the token {int(prompt.max())}, and the model has {known} tokens",
            help="leave out the characters that its text did not have",
        )
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    return _stream(model, prompt.to(device)[None], tokens, temperature, top_k, generator)


def _stream(
    model: nn.Module,
    given: Tensor,
    tokens: int,
    temperature: float,
    top_k: int | None,
    generator: torch.Generator,
) -> Iterator[int]:
    state = None
    for count in range(tokens):
        with torch.no_grad():
            before = state
            logits, state = model(given, before)
            if not all_finite(logits[0, -1]):
                raise not_finite(f"token {count + 1} has logits that are not finite", model, given, before)
            token = choose(logits[0, -1].float().cpu(), temperature, top_k, generator)
            given = torch.tensor([[token]], device=given.device)
        yield token


def choose(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    """One token drawn from `logits` (`[vocabulary]`).

    >>> choose(torch.tensor([0.0, 2.0, 1.0]), 0.0, None, torch.Generator())
    1
    """
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        least = logits.topk(top_k).values[-1]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))


def text(tokens: Iterable[int]) -> Iterator[str]:
    """Bytes as text: a character appears with its last byte, and what is none becomes U+FFFD.

    >>> list(text([72, 195, 169, 200]))
    ['H', 'é', '\\ufffd']
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    pieces = (decoder.decode(bytes([token]) if token < 256 else b"?") for token in tokens)
    # The decoder is asked for its rest only after the last token.
    for piece in itertools.chain(pieces, (decoder.decode(b"", final=True) for _ in range(1))):
        if piece:
            yield piece


def printable(text: str) -> str:
    """`text` without control characters, which could drive a terminal: U+FFFD stands for each.

    >>> printable("one\\ttwo\\n\\x1b[2J")
    'one\\ttwo\\n\ufffd[2J'
    """
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)


def main(arguments: list[str] | None = None) -> int:
    """Print the prompt and what follows it.  0 when done, 1 or 2 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", default="The ", help="text to go on from")
    parser.add_argument("--tokens", type=int, default=400, help="how many tokens to generate")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token")
    parser.add_argument("--top-k", type=int, default=None, help="draw from the k likeliest tokens only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, default=None, help="default: the newest under runs/")
    options = parser.parse_args(arguments)
    try:
        model, _ = restore(options.checkpoint or newest(HERE))
        stream = generate(
            model,
            encode(options.prompt),
            options.tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            seed=options.seed,
        )
        print(options.prompt, end="")
        for piece in text(stream):
            print(printable(piece) if sys.stdout.isatty() else piece, end="", flush=True)
        print()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print()
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
