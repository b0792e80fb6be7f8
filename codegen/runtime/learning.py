"""What learning on at test time brings: held-out documents as streams, with and without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from data import SEPARATOR, Corpus, bits
from plastic import plastic
from schedule import Settings, UserError
from streams import Stream

TOKENS = 65_536


def documents(corpus: Corpus, tokens: int = TOKENS, shortest: int = 2) -> list[Tensor]:
    """Held-out documents that together have about `tokens` tokens, spread evenly: `[tokens]` of int64 each.

    The last is cut where it would be more; a text without separators is one document.
    """
    ends = (corpus.held_out == SEPARATOR[0]).nonzero().flatten().tolist()
    begins = [0, *(end + 1 for end in ends)]
    every = [
        corpus.held_out[begin:end]
        for begin, end in zip(begins, [*ends, len(corpus.held_out)], strict=True)
        if end - begin >= shortest
    ]
    chosen: list[Tensor] = []
    for count in range(1, len(every) + 1):
        places = torch.linspace(0, len(every) - 1, count, dtype=torch.float64).long().tolist()
        chosen = [every[place] for place in places]
        if sum(map(len, chosen)) >= tokens:
            break
    kept: list[Tensor] = []
    for text in chosen:
        left = tokens - sum(map(len, kept))
        if left >= shortest:
            kept.append(text[:left].long())
    return kept


def learning_on(
    model: nn.Module,
    settings: Settings,
    trained: Mapping[str, Any] | None,
    texts: Sequence[Tensor],
    *,
    rates: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The loss of each token given all before it in its document, in nats, as the plastic levels learn on.

    Every text is a stream of its own that begins at the checkpoint.  `frozen` is the loss of the same streams
    while nothing learns, `learned` with learning, `gain` their difference; `changed` says how often each
    level did.  Raises `UserError` where no level is plastic, and for numbers that are no longer finite.
    """
    if not plastic(settings):
        raise UserError(
            "no level of this run goes on learning at test time",
            help="write `plastic = yes` on a level of a chain, and compile again",
        )
    if not texts:
        raise UserError("there is no held-out text to learn from", help="hold out more text", kind="data")
    totals = {"frozen": 0.0, "learned": 0.0}
    changed = dict.fromkeys(plastic(settings), 0)
    for text in texts:
        for name, learn in (("frozen", False), ("learned", True)):
            stream = Stream(model, settings, trained, learn=learn, rates=rates if learn else None)
            totals[name] += loss_of(stream, text)
            for level, count in stream.updates.items():
                changed[level] += count
    tokens = sum(len(text) - 1 for text in texts)
    frozen, learned = totals["frozen"] / tokens, totals["learned"] / tokens
    return {
        "documents": len(texts),
        "tokens": tokens,
        "frozen": frozen,
        "learned": learned,
        "gain": frozen - learned,
        "bits_per_byte": bits(learned),
        "changed": changed,
    }


def loss_of(stream: Stream, text: Tensor) -> float:
    """The sum over the tokens of `text` after the first of what each costs given those before it, in nats."""
    total, begin = 0.0, 0
    for logits in stream.read(text):
        asked = text[begin + 1 : begin + 1 + len(logits)].to(logits.device)
        total += float(cross_entropy(logits[: len(asked)].float(), asked, reduction="sum"))
        begin += len(logits)
    return total
