"""Generate text, a token at a time, from carried state: `python generate.py --prompt "The "`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from checkpoint import newest, restore
from finite import all_finite, not_finite
from plastic import plastic
from schedule import Settings, UserError
from settings import SETTINGS
from streams import Stream, average
from tokens import Bytes, tokenizer

HERE = Path(__file__).resolve().parent


def generate(
    model: nn.Module,
    prompt: Tensor,
    tokens: int,
    *,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
    stream: Stream | None = None,
    learn: bool = False,
    learn_own: bool = False,
) -> Iterator[int]:
    """Yield `tokens` tokens after `prompt` (`[tokens]`, int64).

    The prompt is read once; after it every token is one call of the model with the state of the
    last.  `temperature = 0` takes the likeliest token.  Raises `UserError` for an empty prompt and
    for numbers that make no sense, and, while it runs, for logits that are not finite.

    With a `stream`, the text goes on from where that stands, and the prompt may be empty if it has read
    something; in the end it has read every token.  It learns from the prompt with `learn`, and from
    its own tokens with `learn_own`.

    Steps under `torch.no_grad` only while it computes: the caller's gradient mode is not touched.
    """
    if len(prompt) == 0 and (stream is None or stream.logits is None):
        raise UserError("the prompt is empty", help="give at least one character to start from")
    if not temperature >= 0:  # NaN too
        raise UserError(f"the temperature is {temperature}", help="give 0 (the likeliest token) or more")
    if top_k is not None and top_k < 1:
        raise UserError(f"top-k is {top_k}", help="give 1 or more")
    known = next((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), None)
    if known is not None and len(prompt) and int(prompt.max()) >= known:
        raise UserError(
            f"the prompt has the token {int(prompt.max())}, and the model has {known} tokens",
            help="leave out the characters that its text did not have",
        )
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    draw = functools.partial(choose, temperature=temperature, top_k=top_k, generator=generator)
    if stream is not None:
        return _with_stream(stream, prompt, tokens, draw, learn or learn_own, learn_own)
    return _without_learning(model, prompt.to(device)[None], tokens, draw)


def _without_learning(
    model: nn.Module,
    given: Tensor,
    tokens: int,
    draw: Callable[[Tensor], int],
) -> Iterator[int]:
    state = None
    for count in range(tokens):
        with torch.no_grad():
            before = state
            logits, state = model(given, before)
            if not all_finite(logits[0, -1]):
                raise not_finite(f"token {count + 1} has logits that are not finite", model, given, before)
            token = draw(logits[0, -1].float().cpu())
            given = torch.tensor([[token]], device=given.device)
        yield token


def _with_stream(
    stream: Stream, prompt: Tensor, tokens: int, draw: Callable[[Tensor], int], learn: bool, learn_own: bool
) -> Iterator[int]:
    if len(prompt):
        for _ in stream.read(prompt, learn=learn):
            pass
    for _ in range(tokens):
        assert stream.logits is not None
        token = draw(stream.logits[0].float().cpu())
        stream.feed(torch.tensor([token]), learn=learn_own)
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
    """Bytes as text: see `tokens.Bytes`."""
    return Bytes().decode(tokens)


def printable(text: str) -> str:
    """`text` without control characters, which could drive a terminal: U+FFFD stands for each.

    >>> printable("one\\ttwo\\n\\x1b[2J")
    'one\\ttwo\\n\ufffd[2J'
    """
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)


def open_stream(
    model: nn.Module,
    settings: Settings,
    trained: dict[str, Any],
    *,
    learn: bool,
    states: Sequence[Path] = (),
    new_sequence: bool = False,
    rates: Mapping[str, float] | None = None,
) -> Stream:
    """A stream to generate with: from nothing, from a saved state, or from the average of several.

    `new_sequence` keeps only what they have learned.  Raises `UserError`, also where nothing would `learn`.
    """
    if learn and not plastic(settings):
        raise UserError(
            "no level of this run goes on learning at test time",
            help="write `plastic = yes` on a level of a chain, and compile again",
        )
    streams = [Stream(model, settings, trained, rates=rates) for _ in range(max(1, len(states)))]
    for stream, path in zip(streams, states, strict=False):
        stream.load(path)
    if new_sequence:
        streams = [stream.new_sequence() for stream in streams]
    return average(streams) if len(streams) > 1 else streams[0]


def read_rate(text: str) -> tuple[str, float]:
    """A level and its rate.

    >>> read_rate("slow=1e-3")
    ('slow', 0.001)
    """
    name, _, number = text.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        raise UserError(f"`--rate {text}` is no rate", help="write `--rate LEVEL=1e-3`", code=2) from None


def main(arguments: list[str] | None = None) -> int:
    """Print the prompt and what follows it.  0 when done, 1 or 2 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", default="The ", help="text to go on from")
    parser.add_argument("--tokens", type=int, default=400, help="how many tokens to generate")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token")
    parser.add_argument("--top-k", type=int, default=None, help="draw from the k likeliest tokens only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, default=None, help="default: the newest under runs/")
    parser.add_argument("--learn", action="store_true", help="let plastic levels learn from the prompt")
    parser.add_argument("--learn-own", action="store_true", help="and from what is generated")
    parser.add_argument("--rate", action="append", default=[], help="LEVEL=X: the rate of a plastic level")
    parser.add_argument("--save-state", type=Path, help="write the stream there when the text ends")
    parser.add_argument(
        "--load-state",
        type=Path,
        action="append",
        default=[],
        help="go on from there; several are averaged",
    )
    parser.add_argument(
        "--new-sequence", action="store_true", help="of a loaded state keep only what was learned"
    )
    options = parser.parse_args(arguments)
    try:
        model, trained = restore(options.checkpoint or newest(HERE))
        learn, stream = options.learn or options.learn_own, None
        if learn or options.rate or options.save_state or options.load_state or options.new_sequence:
            stream = open_stream(
                model,
                dataclasses.replace(SETTINGS, model=trained["sizes"]),
                trained,
                learn=learn,
                states=options.load_state,
                new_sequence=options.new_sequence,
                rates=dict(read_rate(one) for one in options.rate),
            )
        words = tokenizer(SETTINGS.data.tokenizer)
        made = generate(
            model,
            words.encode(options.prompt),
            options.tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            seed=options.seed,
            stream=stream,
            learn=options.learn,
            learn_own=options.learn_own,
        )
        print(options.prompt, end="")
        for piece in words.decode(made):
            print(printable(piece) if sys.stdout.isatty() else piece, end="", flush=True)
        print()
        if stream is not None and options.save_state is not None:
            stream.save(options.save_state)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print()
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
