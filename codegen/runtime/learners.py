"""Levels at work: parameters, a rule, and what has been gathered since the last update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from assign import groups
from rules import make
from schedule import Level, Settings, UserError


class Learner:
    """A level at work: its parameters, its rule, and what it has gathered since its last update."""

    def __init__(self, level: Level, parameters: dict[str, nn.Parameter], settings: Settings) -> None:
        self.level = level
        self.parameters = parameters
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

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients that are there."""
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def reduce(self, length: int) -> None:
        """Turn what was gathered into one gradient; a sequence of `length` tokens counts 1 in a sum."""
        if self.level.reduce == "mean" and self.gathered != length and self.gradients:
            scale(self.gradients, length / self.gathered)

    def update(self, step: int, steps: int) -> float:
        """Change the weights and forget the gradients; returns the rate."""
        rate = self.level.rate.at(step, steps)
        for group in self.rule.param_groups:
            group["lr"] = rate
        self.rule.step()
        self.rule.zero_grad(set_to_none=True)
        self.gathered = 0
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
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another learner stood.  Options come from the settings, not from the checkpoint."""
        if state["rule"] != self.level.rule or state["names"] != list(self.parameters):
            what = (
                f"learnt by `{state['rule']}`" if state["rule"] != self.level.rule else "held other weights"
            )
            raise UserError(
                f"level `{self.level.name}` {what} in the checkpoint",
                help="resume with the same levels and rules, or start a new run",
                kind="checkpoint",
            )
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
