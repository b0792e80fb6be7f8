"""What a model is asked on held-out text.

Every measure is a function `(model, windows, **options) -> {name: number}`; `windows` are held-out text,
`[n, length + 1]` of int64 on the CPU.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from data import batches, bits, encode
from finite import all_finite, not_finite
from items import IGNORED
from schedule import Measure, UserError

NEEDLE = " The number of the vault is {}. "
QUESTION = " The number of the vault is "
DIGITS = 4


@dataclass(frozen=True)
class Answers:
    """What a model made of held-out tokens, `[n, length]` each.

    `losses` are in nats, float64; `right` says where its likeliest token was the right one, and `counts`
    which tokens were asked for at all.
    """

    losses: Tensor
    right: Tensor
    counts: Tensor

    def means(self) -> tuple[float, float]:
        """The mean loss in nats, and the share of tokens guessed right, of those that count."""
        tokens = int(self.counts.sum())
        return float(self.losses[self.counts].sum()) / tokens, int(self.right[self.counts].sum()) / tokens


def evaluate(
    model: nn.Module,
    windows: Tensor,
    measures: Sequence[Measure],
    *,
    batch: int,
    context: Callable[[], AbstractContextManager[Any]],
    targets: Tensor | None = None,
    bytes_per_token: float = 1.0,
    keep: Callable[[Answers], None] | None = None,
) -> dict[str, float]:
    """The held-out loss in nats per token, and what `measures` ask; every forward runs inside `context()`.

    `targets` (`[n, length]`) says what is asked for where that is not just the next token: see `items`.
    `keep` receives what the measures were made from.
    """
    trained = model.training
    model.eval()
    try:
        with torch.no_grad():
            asked = windows[:, 1:] if targets is None else targets
            answers = answer(model, windows[:, :-1], asked, batch=batch, context=context)
            if keep is not None:
                keep(answers)
            loss, right = answers.means()
            found = {"loss": loss}
            for measure in measures:
                match measure.name:
                    case "perplexity":
                        found["perplexity"] = math.exp(min(loss, 700.0))
                    case "loss":
                        pass  # always there
                    case "bits_per_byte":
                        found["bits_per_byte"] = bits(loss) / bytes_per_token
                    case "accuracy":
                        found["accuracy"] = right
                    case _:
                        found |= needle(model, windows, context=context, batch=batch, **measure.options)
    finally:
        model.train(trained)
    return found


def check(measures: Sequence[Measure], tokenizer: str = "bytes") -> None:
    """Raise `UserError` for a measure or option that does not exist, or that the tokenizer cannot serve."""
    if tokenizer != "bytes" and any(measure.name == "needle" for measure in measures):
        raise UserError(
            f"`needle` asks for digits byte by byte, and the text is read by {tokenizer}",
            help="leave `needle` out, or use `tokenizer = bytes`",
        )
    plain = ("loss", "perplexity", "bits_per_byte", "accuracy")
    known: dict[str, set[str]] = {name: set() for name in plain}
    known["needle"] = set(inspect.signature(needle).parameters) - {"model", "windows", "context", "batch"}
    for measure in measures:
        if measure.name not in known:
            near = difflib.get_close_matches(measure.name, known, n=1, cutoff=0.4) or list(known)
            raise UserError(f"there is no measure `{measure.name}`", help=f"there is `{'`, `'.join(near)}`")
        for option in measure.options:
            if option not in known[measure.name]:
                raise UserError(
                    f"measure `{measure.name}` has no option `{option}`",
                    help=f"it has {', '.join(sorted(known[measure.name])) or 'none'}",
                )


def needle(
    model: nn.Module,
    windows: Tensor,
    *,
    batch: int,
    context: Callable[[], AbstractContextManager[Any]],
    length: int = 512,
    count: int = 16,
    seed: int = 0,
) -> dict[str, float]:
    """A number said once in `length` tokens of held-out text, and asked for at the end.

    `needle`: the share of its digits that are the model's likeliest token when the digits before
    are given; 0.1 is what guessing among digits gives.  The needles are spread evenly over the text.
    """
    generator = torch.Generator().manual_seed(seed)
    hay = windows[:, :-1].flatten()
    room = length - len(encode(NEEDLE.format("0" * DIGITS))) - len(encode(QUESTION)) - DIGITS
    if room < 1:
        raise UserError(
            f"a needle does not fit into {length} tokens", help=f"ask for {length - room + 1} or more"
        )
    if len(hay) < room:
        hay = hay.repeat(math.ceil(room / len(hay)))
    texts: list[Tensor] = []
    for index in range(count):
        number = "".join(str(int(d)) for d in torch.randint(10, (DIGITS,), generator=generator))
        begin = int(torch.randint(len(hay) - room + 1, (1,), generator=generator))
        place = int((index + 0.5) / count * room)
        around = hay[begin : begin + room]
        parts = (
            around[:place],
            encode(NEEDLE.format(number)),
            around[place:],
            encode(QUESTION),
            encode(number),
        )
        texts.append(torch.cat(parts))
    right = 0
    device = next(model.parameters()).device
    for texts_batch in batches(torch.stack(texts), batch):
        asked = texts_batch[:, :-1].to(device)
        with context():
            logits, _ = model(asked, None)
            if not all_finite(logits[:, -DIGITS:]):
                raise not_finite("a needle has logits that are not finite", model, asked)
        guessed = logits[:, -DIGITS:].argmax(-1).cpu()
        right += int((guessed == texts_batch[:, -DIGITS:]).sum())
    return {"needle": right / (count * DIGITS)}


def answer(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    batch: int,
    context: Callable[[], AbstractContextManager[Any]],
) -> Answers:
    """What `model` makes of every one of `targets`; `inputs` and `targets` are `[n, length]` of int64.

    Raises `UserError` (kind `diverged`) for a loss that is not finite.
    """
    device = next(model.parameters()).device
    losses: list[Tensor] = []
    right: list[Tensor] = []
    for part, wanted in zip(batches(inputs, batch), batches(targets, batch), strict=True):
        here, there = part.to(device), wanted.to(device)
        with context():
            logits, _ = model(here, None)
        flat = logits.flatten(0, 1).float()
        found = cross_entropy(flat, there.flatten(), reduction="none").double()
        added = float(found.sum())
        if not math.isfinite(added):
            with context():
                raise not_finite(f"the held-out loss is {added}", model, here)
        losses.append(found.view(there.shape).cpu())
        right.append((flat.argmax(-1) == there.flatten()).view(there.shape).cpu())
    return Answers(torch.cat(losses), torch.cat(right), targets != IGNORED)
