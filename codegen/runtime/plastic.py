"""Levels that go on learning at test time: one level of one stream, and its clock."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.utils import get_total_norm

from assign import assign
from learners import Learner, put_to_work
from schedule import Clock, Rate, Settings, UserError, strikes


class Plastic:
    """A level of one stream: weights that lie where the model's do until they change, and their learner.

    `trained` is what the checkpoint keeps of the level, whose rule goes on from its memories there.
    """

    def __init__(self, learner: Learner, settings: Settings, trained: Mapping[str, Any] | None) -> None:
        self.learner, self.level, self.name = learner, learner.level, learner.level.name
        self.length = settings.data.length
        self.clock = in_tokens(self.level.clock, self.length)
        self.resets = None if self.level.resets is None else in_tokens(self.level.resets, self.length)
        self.taught = self.level.teacher in plastic(settings)
        self.updates = 0
        self._shared = {name: weight.detach() for name, weight in self.weights.items()}
        self._fresh = copy.deepcopy(learner.rule.state_dict())
        self._alone = False  # whether nobody else has these very tensors
        self._trained = trained
        self._asleep = trained is not None  # until the memories of the rule are needed
        if getattr(learner.rule, "seen", ()):  # what its layers see is among its memories from the start
            self.wake()
            learner.forget()

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The weights as they are now."""
        return self.learner.start.weights

    def moved(self) -> float:
        """How far the weights are from the model's, as a multiple of these; infinite for NaN."""
        pairs = zip(self.weights.values(), self._shared.values(), strict=True)
        change = get_total_norm([now.detach() - then for now, then in pairs]).item()
        size = get_total_norm(list(self._shared.values())).item()
        return math.inf if math.isnan(change) else change / max(size, 1e-30)

    # ------------------------------------------------------------------ learning

    def begin(self, position: int) -> None:
        """A segment begins after `position` tokens; every `length` tokens a step does."""
        if position % self.length == 0:
            self.learner.begin_step()

    def gather(self, tokens: int) -> None:
        """The gradients of a segment have come, `tokens` of which had a label."""
        self.learner.gathered += tokens
        if self.level.teacher and not self.taught:  # nobody learns what this start has gathered
            for tensor in self.learner.start.taught.values():
                tensor.grad = None

    def due(self, position: int) -> bool:
        """Whether the level changes after `position` tokens: its clock is due, and something was gathered."""
        return self.learner.gathered > 0 and position in strikes(self.clock, position - 1, position)

    def resets_at(self, position: int) -> bool:
        """Whether the level returns to its start after `position` tokens, by its own clock."""
        return self.resets is not None and position in strikes(self.resets, position - 1, position)

    def next_due(self, position: int) -> int:
        """The first moment after `position` tokens at which the level may change."""
        clocks = [self.clock] if self.resets is None else [self.clock, self.resets]
        return min(next_due(clock, position) for clock in clocks)

    def change(self) -> None:
        """Change the weights by what was gathered."""
        self._own()
        self.learner.update(0, 1)
        self.updates += 1

    def return_to_start(self) -> None:
        """Let the weights return to their start, and the rule and the period begin anew."""
        self._own()
        self.learner.return_to_start()
        self.updates += 1

    def _own(self) -> None:
        """Before the first change: weights that are this stream's alone."""
        if not self._alone:
            for weight in self.weights.values():
                weight.data = weight.data.clone()
            self._alone = True

    def wake(self) -> None:
        """Give the rule and the start what they held in the checkpoint, as copies; `UserError` if it does not
        fit.
        """
        if self._asleep and self._trained is not None:
            kept = {name: copy.deepcopy(self._trained[name]) for name in ("rule", "names", "state", "start")}
            here = {"gathered": self.learner.gathered, "changed": self.learner.changed, "gradients": {}}
            self.learner.load_state_dict(kept | here)
        self._asleep = False

    # ------------------------------------------------------------------ as a value

    def state_dict(self, *, whole: bool = False) -> dict[str, Any]:
        """What the level has learned and gathered; with `whole` also what it has not changed yet."""
        self._alone = False  # whoever gets the state has the tensors too
        if whole:
            self.wake()
        changed = self.updates > 0 or whole
        parts = self.learner.parameters.items()
        return {
            "weights": {name: weight.detach() for name, weight in self.weights.items()} if changed else {},
            "rule": copy.deepcopy(self.learner.rule.state_dict()) if changed or not self._asleep else None,
            "start": copy.deepcopy(self.learner.start.state_dict()) if not self._asleep else None,
            "gradients": {name: part.grad.clone() for name, part in parts if part.grad is not None},
            "gathered": self.learner.gathered,
            "updates": self.updates,
        }

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Go on where the same level of another stream stood."""
        for name, weight in self.weights.items():
            weight.data = content["weights"].get(name, self._shared[name]).detach().to(weight.device)
        for name, part in self.learner.parameters.items():
            gradient = content["gradients"].get(name)
            part.grad = None if gradient is None else gradient.detach().to(part.device).clone()
        self._alone = False
        self._asleep = content["rule"] is None and self._trained is not None
        self.learner.rule.load_state_dict(copy.deepcopy(content["rule"] or self._fresh))
        if content["start"] is not None:
            self.learner.start.load_state_dict(content["start"])
        self.learner.gathered, self.updates = content["gathered"], content["updates"]


def plastic(settings: Settings) -> list[str]:
    """The names of the levels that go on learning at test time."""
    return [level.name for level in settings.levels if level.plastic]


def shadow(model: nn.Module) -> nn.Module:
    """A model whose parameters are others and lie where those of `model` do: setting `data` parts them."""
    return copy.deepcopy(model, {id(weight): nn.Parameter(weight.detach()) for weight in model.parameters()})


def learning_levels(
    model: nn.Module, settings: Settings, trained: Mapping[str, Any] | None, rates: Mapping[str, float]
) -> list[Plastic]:
    """The plastic levels at work on `model`, a `shadow`, in the order of `settings`; no other weight of it
    wants gradients.

    Each learns at the rate that `rates` gives, or at its base rate.  `trained` is the checkpoint, if any.
    """
    known = plastic(settings)
    levels = tuple(
        dataclasses.replace(one, rate=Rate(rates.get(one.name, one.rate.base))) for one in settings.levels
    )
    settings = dataclasses.replace(settings, levels=levels)
    shared = {name: weight.data for name, weight in model.named_parameters()}
    for name, weights in assign(model, settings).items():
        if settings.level(name).original:  # the start of a copy is written in place
            for weight in weights.values():
                weight.data = weight.data.clone()
    learners = put_to_work(model, settings)
    for name, weight in model.named_parameters():
        weight.data = shared[name]
        weight.requires_grad_(False)
    kept = (trained or {}).get("levels", {})
    made = [Plastic(one, settings, kept.get(one.level.name)) for one in learners if one.level.name in known]
    for one in made:
        for weight in one.weights.values():
            weight.requires_grad_(True)
    return made


# --------------------------------------------------------------------------- clocks and rates at test time


def in_tokens(clock: Clock, length: int) -> Clock:
    """A clock as a stream sees it: a step stands for `length` tokens, and a sequence does not end.

    >>> str(in_tokens(Clock(4, "step", offset=1), 128))
    'every 512 tokens offset 128'
    """
    unit = length if clock.unit == "step" else 1
    return Clock(clock.period * unit, "token", clock.offset * unit)


def next_due(clock: Clock, position: int) -> int:
    """The first moment after `position` tokens at which `clock`, in tokens, is due.

    >>> [next_due(Clock(8, "token", offset=3), position) for position in (0, 3, 10, 11)]
    [3, 11, 11, 19]
    """
    return strikes(clock, position, position + clock.period + clock.offset)[0]


def check_rates(settings: Settings, rates: Mapping[str, float]) -> None:
    """Raise `UserError` for the rate of a level that is not plastic, and for one that makes no sense."""
    known = plastic(settings)
    for name, rate in rates.items():
        if name not in known:
            listed = f"plastic here: `{'`, `'.join(known)}`" if known else "write `plastic = yes` on a level"
            raise UserError(f"no plastic level is called `{name}`", help=listed, code=2)
        if not (math.isfinite(rate) and rate >= 0):
            raise UserError(f"the rate of level `{name}` is {rate}", help="give 0 or more", code=2)
