"""Levels at work: parameters, a rule, and what has been gathered since the last update."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from assign import assign, groups
from growth import Growth
from rules import make
from schedule import Settings, UserError, parents_first
from starts import Start, Weights


class Learner:
    """A level at work: what it learns, its rule, and what it has gathered since its last update.

    It learns its weights, and the starts of other levels (`taught`).  `start` is where its own begin.
    """

    def __init__(self, start: Start, taught: Weights, settings: Settings) -> None:
        self.level = level = start.level
        self.start = start
        self.parameters = parameters = start.weights | taught
        self.gathered = 0  # tokens of one stream whose gradients are waiting
        self.changed = 0  # the step of the last update
        try:
            self.rule = make(
                level.rule, groups(parameters, level, settings), level.rate.base, **level.options
            )
        except (ValueError, TypeError) as error:
            raise UserError(
                f"level `{level.name}` cannot learn by `{level.rule}`: {error}", help="change its rule"
            ) from error
        self.fresh = copy.deepcopy(self.rule.state_dict()) if level.reset else {}
        self.growth = Growth(level.name, level.rate.base, list(parameters.values()))

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients that are there."""
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def reduce(self, length: int) -> None:
        """Turn what was gathered into one gradient; a sequence of `length` tokens counts 1 in a sum."""
        sequences = self.gathered / length
        mean = self.level.reduce != "sum"
        self.rule.settle(1.0 if mean else sequences, 1 / sequences if mean else 1.0)
        if mean and self.gathered != length and self.gradients:
            scale(self.gradients, length / self.gathered)

    def begin_step(self) -> None:
        """Forget what earlier steps gave, where only the last one counts."""
        if self.level.reduce == "last":
            self.forget()

    def listen(self, due: bool) -> None:
        """Ask for gradients, unless they would be thrown away: of a `last` level before it is `due`.

        A start gathers the gradients of all steps, so that weights with one that is learned always listen.
        """
        if self.level.reduce == "last" and not self.level.teacher:
            for weight in self.start.weights.values():
                weight.requires_grad_(due)

    def forget(self) -> None:
        """Throw away what has been gathered."""
        self.rule.zero_grad(set_to_none=True)
        self.gathered = 0

    def return_to_start(self) -> None:
        """Begin anew: weights, the rule's memories and the period.  Starts that it teaches stay."""
        self.start.restore()
        self.rule.load_state_dict(copy.deepcopy(self.fresh))
        self.forget()

    def update(self, step: int, steps: int) -> float:
        """Change the weights and forget the gradients; returns the rate."""
        rate = self.level.rate.at(step, steps)
        for group in self.rule.param_groups:
            group["lr"] = rate
        try:
            self.rule.step()
        except (ArithmeticError, ValueError) as error:  # a division by 0, a root of a number below 0
            name = self.level.name
            raise UserError(
                f"the rule `{self.level.rule}` of level `{name}` has no value at step {step + 1}: {error}",
                help=f"the rate was {rate:g}; look at what the rule divides by, and at `levels.{name}`",
            ) from error
        self.forget()
        self.changed = step + 1
        return rate

    def state_dict(self) -> dict[str, Any]:
        """The rule's state and the open period."""
        gradients = {n: p.grad for n, p in self.parameters.items() if p.grad is not None}
        return {
            "rule": self.level.rule,
            "names": list(self.parameters),
            "state": self.rule.state_dict(),
            "gradients": gradients,
            "gathered": self.gathered,
            "changed": self.changed,
            "start": self.start.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another learner stood.  Options come from the settings, not from the checkpoint."""
        if state["rule"] != self.level.rule or state["names"] != list(self.parameters):
            what = (
                f"learned by `{state['rule']}`" if state["rule"] != self.level.rule else "held other weights"
            )
            raise UserError(
                f"level `{self.level.name}` {what} in the checkpoint",
                help="resume with the same levels and rules, or start a new run",
                kind="checkpoint",
            )
        self.start.load_state_dict(state.get("start", {}))
        options = [{k: v for k, v in group.items() if k != "params"} for group in self.rule.param_groups]
        self.rule.load_state_dict(state["state"])
        for group, kept in zip(self.rule.param_groups, options, strict=True):
            group.update(kept)
        for name, gradient in state["gradients"].items():
            parameter = self.parameters[name]
            parameter.grad = gradient.to(parameter.device)
        self.gathered, self.changed = state["gathered"], state["changed"]


def scale(tensors: list[Tensor], factor: float) -> None:
    """Multiply all `tensors` in place, in one go where the device can."""
    torch._foreach_mul_(tensors, factor)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def put_to_work(model: nn.Module, settings: Settings) -> list[Learner]:
    """A learner for each level, its weights and those of its start at their beginning.

    Raises `UserError` for weights that two levels or none would learn, and for starts that cannot be.
    """
    owners = assign(model, settings)
    starts: dict[str, Start] = {}
    taught: dict[str, Weights] = {level.name: {} for level in settings.levels}
    for level in parents_first(settings.levels):
        start = Start(level, owners[level.name], owners.get(level.original, {}))
        starts[level.name] = start
        if level.teacher:
            taught[level.teacher] |= start.taught
    learners = [Learner(starts[level.name], taught[level.name], settings) for level in settings.levels]
    for learner in learners:
        learner.rule.watch(model)
    return learners
