"""Streams at test time: what one has read, and what its plastic levels have learned from it.

All streams of a model share its weights.  A stream gets copies of those that a plastic level changes when
they change for the first time, and nothing that it learns is seen by the model or by another stream.

A stream is one sequence, however long.  A token clock counts its positions, and `length` tokens stand for
one step.  Gradients flow back to the last boundary: a multiple of `length`, or a moment at which a plastic
level is due.  What a position should have predicted is known with the token after it, so that the update
of a boundary happens just before the next token is read.  A segment is computed as a whole at its end, from
the state that it was entered with: how a text was cut into calls makes no difference to what is learned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import checkpoint
from finite import all_finite, not_finite
from learners import scale
from plastic import Plastic, check_rates, learning_levels, plastic, shadow
from schedule import Settings, UserError, parents_first
from values import digest, first_broken, held, mean

State = Any  # nested dicts, lists and tuples of tensors
WHAT = "state of a stream"
WORSE = 4  # a stream that learns is stopped where a token costs so many times what guessing does


class Stream:
    """One stream of tokens, or several that nothing plastic tells apart.

    Args:
        model: shared with other streams; never changed.
        settings: the run's; its `plastic` levels learn by their own rule, clock, `reduce` and `clip`.
        trained: the checkpoint of the model; the rules of plastic levels go on from their memories there.
        learn: whether plastic levels learn at all.
        rates: rates of plastic levels by name; a level's base rate where it is not named.
        count: how many streams are read side by side.  More than one only where nothing learns.

    Raises `UserError` for a rate of a level that is not plastic, and for several streams that learn.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        trained: Mapping[str, Any] | None = None,
        *,
        learn: bool = True,
        rates: Mapping[str, float] | None = None,
        count: int = 1,
    ) -> None:
        self.model, self.settings, self.trained = model, settings, trained
        self.rates, self.count = dict(rates or {}), count
        check_rates(settings, self.rates)
        names = plastic(settings) if learn else []
        if count > 1 and names:
            raise UserError(
                f"{count} streams at once cannot learn: each has weights of its own",
                help="make one `Stream` for each, or give `learn=False`",
            )
        self._own = shadow(model) if names else model
        self.levels = learning_levels(self._own, settings, trained, self.rates) if names else []
        order = [level.name for level in parents_first(settings.levels)]
        self._parents_first = sorted(self.levels, key=lambda one: order.index(one.name))
        device = next(model.parameters()).device
        self.position = 0  # tokens read
        self.logits: Tensor | None = None  # of the token that comes next, [count, vocab]
        self.state: State = None
        self._entered: State = None  # the state at the last boundary
        self._open = torch.empty(0, dtype=torch.int64, device=device)  # tokens since the last boundary
        self._told = torch.empty(0, dtype=torch.bool, device=device)  # which of them may serve as labels
        self._cost = (0.0, 0)  # nats and tokens of the labels that were learned from lately

    @property
    def updates(self) -> dict[str, int]:
        """How often each plastic level has changed."""
        return {one.name: one.updates for one in self.levels}

    # ------------------------------------------------------------------ reading

    def feed(self, tokens: Tensor, *, learn: bool = True) -> Tensor:
        """Read `tokens`, `[tokens]` or `[count, tokens]`, and return the logits after each, `[..., vocab]`.

        With `learn = False` the tokens are read and count for the clocks, but are no labels: plastic levels
        do not learn from having failed to predict them.  Raises `UserError` for tokens that the model does
        not have and, naming the level, for numbers that are no longer finite.
        """
        return torch.cat(list(self.read(tokens, learn=learn)), -2)

    def read(self, tokens: Tensor, *, learn: bool = True) -> Iterator[Tensor]:
        """As `feed`, a piece at a time: for texts whose logits would fill the memory."""
        flat = tokens.ndim == 1
        rest = (tokens[None] if flat else tokens).to(self._open.device)
        self._check(rest)
        while rest.shape[1]:
            if self._room() == 0:
                self._close(rest[:, :1], learn)
            piece, rest = rest[:, : self._room()], rest[:, self._room() :]
            logits = self._read(piece, rest[:, :1], learn)
            self.logits = logits[:, -1]
            yield logits[0] if flat else logits

    def _check(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or len(tokens) != self.count or not tokens.shape[1]:
            wanted = "[tokens]" if self.count == 1 else f"[{self.count}, tokens]"
            raise UserError(
                f"the tokens have the shape {list(tokens.shape)}",
                help=f"give `{wanted}`, one token or more",
            )
        known = next((m.num_embeddings for m in self.model.modules() if isinstance(m, nn.Embedding)), None)
        if known is not None and int(tokens.max()) >= known:
            raise UserError(
                f"the text has the token {int(tokens.max())}, and the model has {known} tokens",
                help="leave out the characters that its text did not have",
            )

    def _room(self) -> int:
        """Tokens that the open segment still takes; 0 where it is full and its last label is awaited."""
        begin, length = self.position - len(self._open), self.settings.data.length
        end = min([begin - begin % length + length, *(one.next_due(begin) for one in self.levels)])
        return end - self.position

    def _read(self, tokens: Tensor, following: Tensor, learn: bool) -> Tensor:
        """The logits of a piece that does not reach over a boundary."""
        whole = not len(self._open) and tokens.shape[1] == self._room() and following.shape[1] > 0
        if self.levels and whole and learn:
            return self._learn(tokens, torch.ones_like(tokens[0], dtype=torch.bool), following)
        with torch.no_grad():
            logits, state = self._own(tokens, self.state)
        if not all_finite(logits):
            raise self._blame("the logits are not finite", tokens, self.state)
        self.state = state
        self.position += tokens.shape[1]
        if self.levels:
            self._open = torch.cat([self._open, tokens[0]])
            self._told = torch.cat([self._told, torch.full_like(tokens[0], learn, dtype=torch.bool)])
        return logits

    # ------------------------------------------------------------------ learning

    def _close(self, following: Tensor, learn: bool) -> None:
        """End the open segment, whose last label has come."""
        told = torch.cat([self._told[1:], torch.full_like(following[0], learn, dtype=torch.bool)])
        if told.any():
            self.position -= len(self._open)
            self._learn(self._open[None], told, following)
        else:
            self._update()
            self._end(self.state)

    def _learn(self, tokens: Tensor, told: Tensor, following: Tensor) -> Tensor:
        """The logits of a whole segment; its gradients are gathered, and the levels that are due change."""
        with torch.enable_grad():
            logits, state = self._own(tokens, self._entered)
            labels = torch.cat([tokens[0, 1:], following[0]])
            losses = cross_entropy(logits[0], labels, reduction="none")
            loss = losses[told].sum() / self.settings.data.length
        if not math.isfinite(loss.item()):
            raise self._blame(f"the loss is {loss.item()}", tokens, self._entered)
        loss.backward()
        for one in self.levels:
            one.gather(int(told.sum()))
        self.position += tokens.shape[1]
        self._watch(losses.detach()[told], logits.shape[-1])
        self._update()
        self._end(held(state))
        return logits.detach()

    def _watch(self, losses: Tensor, vocabulary: int) -> None:
        """Stop a stream that learned until it is far worse than guessing, for as many tokens as a step."""
        nats, tokens = self._cost[0] + float(losses.sum()), self._cost[1] + len(losses)
        self._cost = (nats, tokens) if tokens < self.settings.data.length else (0.0, 0)
        if tokens < self.settings.data.length or nats / tokens < WORSE * math.log(vocabulary):
            return
        if any(self.updates.values()):
            raise self._blame(f"the last {tokens} tokens cost {nats / tokens:.3g} nats each", losses, None)

    def _end(self, state: State) -> None:
        """Begin a segment."""
        for one in self.levels:
            one.begin(self.position)
        self._entered = self.state = state
        self._open, self._told = self._open[:0], self._told[:0]

    def _update(self) -> None:
        """Let the levels that are due change, and those whose reset has come return to their starts.

        As in training: gradients are clipped together by their global norm, and parents come first.
        """
        due = [one for one in self.levels if one.due(self.position)]
        if due or any(one.resets_at(self.position) for one in self.levels):
            for one in self.levels:
                one.wake()
        for one in due:
            one.learner.reduce(self.settings.data.length)
        gradients = [gradient for one in due for gradient in one.learner.gradients]
        if gradients:
            size = torch.nn.utils.get_total_norm(gradients).item()
            if not math.isfinite(size):
                wrong = next((one for one in due if not all_finite(one.learner.gradients)), due[0])
                raise self._diverged(f"the gradient of level `{wrong.name}` is not finite", wrong)
            if self.settings.clip is not None and size > self.settings.clip:
                scale(gradients, self.settings.clip / size)
        for one in due:
            one.change()
            if not all_finite(list(one.learner.parameters.values())):
                raise self._diverged(f"the weights of level `{one.name}` are not finite", one)
        changed = {one.name for one in due}
        for one in self._parents_first:
            if one.level.parent in changed or one.resets_at(self.position):
                one.return_to_start()
                changed.add(one.name)

    # ------------------------------------------------------------------ what goes wrong

    def _blame(self, what: str, tokens: Tensor, state: State) -> UserError:
        """The error of numbers that are not finite: of the level that moved furthest, if one has moved."""
        moved = [one for one in self.levels if one.updates]
        if not moved:
            return not_finite(f"{what} after {self.position} tokens", self.model, tokens, state)
        one = max(moved, key=Plastic.moved)
        times = f"{one.updates} time{'s' if one.updates > 1 else ''}"
        return self._diverged(
            f"{what}: level `{one.name}` has changed {times}, by {one.moved():.2g} times its weights", one
        )

    def _diverged(self, message: str, one: Plastic) -> UserError:
        rate = one.level.rate.base
        return UserError(
            f"{message}, after {self.position} tokens of the stream",
            help=f"lower its rate at test time (`--rate {one.name}={rate / 10:g}`)",
            kind="diverged",
        )

    # ------------------------------------------------------------------ as a value

    def fork(self) -> Stream:
        """A second stream that stands where this one does and goes on by itself.

        What both have learned is held once until one of them changes it.
        """
        other = self._empty()
        other.load_state_dict(self.state_dict())
        return other

    def new_sequence(self) -> Stream:
        """A stream that has learned what this one has and has read nothing: its sequence begins anew.

        What an open period had gathered is dropped.
        """
        other = self._empty()
        learned = self.state_dict()["levels"]
        levels = {name: kept | {"gradients": {}, "gathered": 0} for name, kept in learned.items()}
        other.load_state_dict(other.state_dict() | {"levels": levels})
        return other

    def _empty(self) -> Stream:
        learn = bool(self.levels)
        return Stream(
            self.model, self.settings, self.trained, learn=learn, rates=self.rates, count=self.count
        )

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the stream depends on besides the model and its checkpoint.

        A value: what the stream does later does not change it.
        """
        return {
            "position": self.position,
            "logits": self.logits,
            "state": self.state,
            "entered": self._entered,
            "open": self._open,
            "told": self._told,
            "cost": self._cost,
            "levels": {one.name: one.state_dict() for one in self.levels},
        }

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Go on where another stream of the same model stood."""
        device = self._open.device
        self.position = content["position"]
        self.logits = held(content["logits"], device)
        self.state, self._entered = held(content["state"], device), held(content["entered"], device)
        self._open, self._told = content["open"].to(device), content["told"].to(device)
        self._cost = content["cost"]
        for one in self.levels:
            one.load_state_dict(content["levels"][one.name])

    # ------------------------------------------------------------------ files

    def save(self, path: Path) -> None:
        """Write the stream to `path`, which holds either the old or the new state at any moment.

        Raises `UserError`.
        """
        checkpoint.save(path, {"stream": self.state_dict(), **self.signature()}, what=WHAT)

    def load(self, path: Path) -> None:
        """Go on from a file that `save` wrote.

        Raises `UserError`, and leaves the stream as it was, where the file is missing, damaged or of another
        kind, where the spec, sizes, levels or weights that it was saved with are others, and where it holds
        numbers that are not finite.
        """
        content = checkpoint.load(path, what=WHAT, holds="stream")
        if not self._understands(content):
            raise UserError(
                f"{path} is no {WHAT} of this program",
                help="give one that `--save-state` wrote; the file has been left as it is",
                kind="checkpoint",
            )
        found = differences(content, self.signature())
        if found:
            more = f", and {len(found) - 3} more" if len(found) > 3 else ""
            raise UserError(
                f"{path} does not fit: {'; '.join(found[:3])}{more}",
                help="use the folder and checkpoint that it was saved with; the file has been left as it is",
                kind="checkpoint",
            )
        broken = first_broken(content["stream"])
        if broken is not None:
            raise UserError(
                f"{path} holds numbers that are not finite: `{broken}`",
                help="use a state that was saved earlier; the file has been left as it is",
                kind="checkpoint",
            )
        self.load_state_dict(content["stream"])

    def _understands(self, content: Mapping[str, Any]) -> bool:
        """Whether a file's content has the parts of a saved stream."""
        stream = content["stream"]
        return (
            all(type(content.get(name)) is type(part) for name, part in self.signature().items())
            and isinstance(stream, dict)
            and stream.keys() == self.state_dict().keys()
            and isinstance(stream["levels"], dict)
            and content["learns"].keys() == stream["levels"].keys()
        )

    def signature(self) -> dict[str, Any]:
        """What the stream rests on; two streams with one signature understand each other's states."""
        return {
            "name": self.settings.name,
            "sizes": dict(self.settings.model),
            "length": self.settings.data.length,
            "streams": self.count,
            "learns": {
                one.name: {
                    "rule": one.level.rule,
                    "clock": str(one.clock),
                    "weights": list(one.weights),
                }
                for one in self.levels
            },
            "weights": digest(dict(self.model.named_parameters())),
        }


def average(streams: Sequence[Stream]) -> Stream:
    """A stream whose weights, memories of rules and state are the means of those of `streams`.

    They have to share their model and stand at one position, in the midst of the same tokens where a segment
    is open; the mean of `new_sequence()` of each is that of what they have learned, wherever they stand.
    Raises `UserError`.
    """
    if not streams:
        raise UserError("there is no stream to average", help="give at least one")
    first = streams[0]
    for other in streams[1:]:
        found = differences(other.signature(), first.signature())
        if found:
            raise UserError(
                f"these states cannot be averaged: {'; '.join(found)}",
                help="average states of one folder and checkpoint",
                kind="checkpoint",
            )
        if other.position != first.position:
            raise UserError(
                f"states after {first.position} and {other.position} tokens cannot be averaged",
                help="begin a new sequence in each (`--new-sequence`), and average what they have learned",
                kind="checkpoint",
            )
    made = first.fork()
    whole = [
        one.state_dict() | {"levels": {level.name: level.state_dict(whole=True) for level in one.levels}}
        for one in streams
    ]
    made.load_state_dict(mean(whole))
    return made


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """How the signature of a saved stream differs from the one here, in words."""
    words: list[str] = []
    if found["name"] != wanted["name"]:
        words.append(f"it was saved by `{found['name']}`, and this is `{wanted['name']}`")
    for name in dict.fromkeys([*wanted["sizes"], *found["sizes"]]):
        there, here = found["sizes"].get(name, "missing"), wanted["sizes"].get(name, "missing")
        if there != here:
            words.append(f"the size `{name}` is {there} there and {here} here")
    for name, what in (("length", "tokens of a step"), ("streams", "number of streams")):
        if found[name] != wanted[name]:
            words.append(f"the {what} is {found[name]} there and {wanted[name]} here")
    for name in dict.fromkeys([*wanted["learns"], *found["learns"]]):
        there, here = found["learns"].get(name), wanted["learns"].get(name)
        if there is None or here is None:
            words.append(f"level `{name}` learns only {'here' if there is None else 'there'}")
        elif there != here:
            what = next(key for key in there if there[key] != here[key])
            words.append(f"level `{name}` has another {what[:-1] if what == 'weights' else what}")
    if not words and found["weights"] != wanted["weights"]:
        words.append("the weights of the model are others than those it was saved with")
    return words
