"""Where weights begin, and return to: tensors that another level learns, its weights, or the first ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from checkpoint import compare
from schedule import Level, UserError

Weights = dict[str, nn.Parameter]


class Start:
    """Where the weights of one level begin.

    `learned in LEVEL` (Nested Learning, Eq. 72, to first order): a tensor of its own for each weight, which
    gathers the gradients of the weight as they come, at whatever values the weight has by then; LEVEL
    changes it by its own rule and clock.  `copy of LEVEL`: LEVEL's weights as they are when it is asked
    for.  Otherwise, for a level that resets: what the weights were before the first step.
    """

    def __init__(self, level: Level, weights: Weights, originals: Weights) -> None:
        self.level = level
        self.weights = weights
        self.tensors: dict[str, Tensor] = {}
        if level.original:
            self.tensors = {
                name: originals[_origin(name, weights[name], level, originals)] for name in weights
            }
            self.restore()
        elif level.teacher:
            self.tensors = {name: nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
            for name, weight in weights.items():
                weight.register_hook(_Gather(self.tensors[name]))
        elif level.reset:
            self.tensors = {name: weight.detach().clone() for name, weight in weights.items()}

    @property
    def taught(self) -> Weights:
        """What the teacher learns, named after the weights that start there."""
        if not self.level.teacher:
            return {}
        return {f"start of {name}": t for name, t in self.tensors.items() if isinstance(t, nn.Parameter)}

    @torch.no_grad()
    def restore(self) -> None:
        """Let the weights return to their start."""
        for name, weight in self.weights.items():
            weight.copy_(self.tensors[name])

    def state_dict(self) -> dict[str, Any]:
        """The tensors that are the start's own."""
        return {} if self.level.original else {name: tensor.detach() for name, tensor in self.tensors.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the tensors of a checkpoint; `UserError` if they are others."""
        differences = compare(state, self.state_dict())
        if differences:
            raise UserError(
                f"level `{self.level.name}` started elsewhere in the checkpoint: {differences[0]}",
                help="resume with the same starts and resets, or start a new run",
                kind="checkpoint",
            )
        for name, tensor in state.items():
            self.tensors[name].copy_(tensor)


class _Gather:
    """A hook of a weight that adds its gradients to those of its start."""

    def __init__(self, start: Tensor) -> None:
        self.start = start

    def __call__(self, gradient: Tensor) -> None:
        with torch.no_grad():
            if self.start.grad is None:
                self.start.grad = gradient.clone()
            else:
                self.start.grad += gradient


def _origin(name: str, weight: Tensor, level: Level, originals: Weights) -> str:
    """The weight of the level `original` that stands where `name` does: one part of the name differs."""
    parts = name.split(".")
    found = [
        other
        for other, tensor in originals.items()
        if tensor.shape == weight.shape
        and len(other.split(".")) == len(parts)
        and sum(a != b for a, b in zip(parts, other.split("."), strict=True)) == 1
    ]
    if len(found) != 1:
        what = f"{len(found)} weights of `{level.original}`" if found else f"no weight of `{level.original}`"
        raise UserError(
            f"level `{level.name}` cannot start as a copy: {what} stand where `{name}` does",
            help="copy a level that has the same layers and nothing else",
        )
    return found[0]
