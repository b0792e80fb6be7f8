"""The clocked loop once more, slowly: token by token, with lists in place of buffers.

It shares no line with the loop that builds have.  Gradients come from `torch.autograd.grad` of the
cross-entropy summed over the tokens of a stretch; everything a level gathers is kept in a list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Tensors = dict[str, Tensor]


@dataclass(eq=False)
class Naive:
    """One level: what it learns by name, its memories, and what it has gathered."""

    level: Any
    own: list[str]
    learned: list[str]
    memories: dict[str, dict[str, Any]] = field(default_factory=dict)
    gathered: list[tuple[int, int, Tensors]] = field(default_factory=list)  # step, tokens, gradients
    updates: int = 0


def is_due(clock: Any, step: int, t: int, length: int, ends: bool) -> bool:
    """Whether a clock is due after token `t` (from 1) of the sequence of `step` (from 0)."""
    if clock.unit == "step":
        if t < length:
            return False
        count = step + 1
    else:
        count = step * length + t if clock.partial == "carry" else t
    due, moment = False, clock.offset or clock.period
    while moment <= count:
        due = moment == count
        moment += clock.period
    flushes = clock.partial == "flush" and t == length and (clock.unit == "token" or ends)
    return due or flushes


def one_gradient(level: Any, gathered: list[tuple[int, int, Tensors]], step: int, length: int) -> Tensors:
    """What a level gathered, reduced; each entry counts by its share of a sequence."""
    counted = [g for g in gathered if level.reduce != "last" or g[0] == step]
    tokens = sum(n for _, n, _ in counted)
    factor = 1.0 if level.reduce == "sum" else length / tokens
    names = counted[0][2]
    return {name: factor * sum(g[name] for _, _, g in counted) for name in names}  # type: ignore[misc]


def change(one: Naive, weights: Tensors, gradients: Tensors, rate: float) -> None:
    """One update by `gd`, `momentum` or `adamw`, from its equation."""
    options = one.level.options
    for name, g in gradients.items():
        memory = one.memories.setdefault(name, {"t": 0, "m": torch.zeros_like(g), "v": torch.zeros_like(g)})
        memory["t"] += 1
        if one.level.rule == "gd":
            weights[name] = weights[name] - rate * g
        elif one.level.rule == "momentum":
            memory["m"] = options.get("beta", 0.9) * memory["m"] + g
            weights[name] = weights[name] - rate * memory["m"]
        else:
            memory["m"] = 0.9 * memory["m"] + 0.1 * g
            memory["v"] = 0.999 * memory["v"] + 0.001 * g * g
            m, v = memory["m"] / (1 - 0.9 ** memory["t"]), memory["v"] / (1 - 0.999 ** memory["t"])
            weights[name] = weights[name] - rate * m / (v.sqrt() + 1e-8)


def twin(name: str, level: Any) -> str:
    """The weight of the toy model that stands in `level` where `name` does in its own."""
    return f"{level}.{name.split('.')[1]}"


class Simulation:
    """A run of the toy model by `settings`; `owned` says which weights each level has, by name.

    Levels `fast` and `slow` learn the layers of these names, so that copies have a place.  `weights` holds
    what the levels learn; the start of a weight that is learned stands beside it as `start of NAME`.
    """

    def __init__(self, settings: Any, model: nn.Module, owned: dict[str, list[str]]) -> None:
        self.settings, self.model = settings, model
        self.length = settings.data.length
        self.weights: Tensors = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.plain = list(self.weights)
        self.levels = {
            one.name: Naive(one, owned[one.name], list(owned[one.name])) for one in settings.levels
        }
        self.first: Tensors = {}
        self.ordered = [self.levels[name] for name in self._order()]
        for one in self.ordered:
            for weight in one.own:
                if one.level.original:
                    self.weights[weight] = self.weights[twin(weight, one.level.original)]
                if one.level.teacher:
                    self.weights[f"start of {weight}"] = self.weights[weight]
                    self.levels[one.level.teacher].learned.append(f"start of {weight}")
                self.first[weight] = self.weights[weight]

    def _order(self) -> list[str]:
        found: list[str] = []
        while len(found) < len(self.levels):
            for name, one in self.levels.items():
                needs = {one.level.teacher, one.level.original, one.level.parent} - {""}
                if name not in found and needs <= set(found):
                    found.append(name)
        return found

    def run(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """All steps."""
        for step, (inputs, targets) in enumerate(batches):
            state, begin = None, 0
            for t in range(1, self.length + 1):
                due, back = self._happens(step, t)
                if due or back or t == self.length:
                    state = self._stretch(step, inputs[:, begin:t], targets, (begin, t), state)
                    self._change(due, step)
                    self._return(due, back, t)
                    begin = t
        assert all(math.isfinite(float(w.abs().max())) for w in self.weights.values())

    def _happens(self, step: int, t: int) -> tuple[list[Naive], list[Naive]]:
        """Who changes after token `t` of `step`, and who returns to its start by its own clock."""
        ends, every = step + 1 == self.settings.steps, self.levels.values()
        due = [one for one in every if is_due(one.level.clock, step, t, self.length, ends)]
        clocked = [one for one in every if one.level.resets is not None]
        return due, [one for one in clocked if is_due(one.level.resets, step, t, self.length, False)]

    def _stretch(
        self, step: int, inputs: Tensor, targets: Tensor, span: tuple[int, int], state: Any
    ) -> Tensors:
        """Gradients of one stretch for everybody; returns the state as values."""
        begin, end = span
        leaves = {name: self.weights[name].clone().requires_grad_() for name in self.plain}
        logits, state = torch.func.functional_call(self.model, leaves, (inputs, state))
        loss = cross_entropy(logits.flatten(0, 1), targets[:, begin:end].flatten(), reduction="sum")
        found = torch.autograd.grad(loss / targets.numel(), list(leaves.values()))
        g = dict(zip(leaves, found, strict=True))
        for one in self.levels.values():
            mine = {name: g[name.removeprefix("start of ")] for name in one.learned}
            one.gathered.append((step, end - begin, mine))
        return {name: value.detach() for name, value in state.items()}

    def _change(self, due: list[Naive], step: int) -> None:
        gradients = [one_gradient(one.level, one.gathered, step, self.length) for one in due]
        for one, gradient in zip(due, gradients, strict=True):
            change(one, self.weights, gradient, one.level.rate.at(step, self.settings.steps))
            one.gathered = []
            one.updates += 1

    def _return(self, due: list[Naive], back: list[Naive], t: int) -> None:
        changed = {one.level.name for one in due}
        for one in self.ordered:
            clock = one.level.clock
            if one in back or one.level.parent in changed:
                for weight in one.own:
                    self.weights[weight] = self._start(one, weight)
                one.memories, one.gathered = {}, []
                changed.add(one.level.name)
            elif clock.partial == "drop" and clock.unit == "token" and t == self.length:
                one.gathered = []

    def _start(self, one: Naive, weight: str) -> Tensor:
        if one.level.teacher:
            return self.weights[f"start of {weight}"]
        return self.weights[twin(weight, one.level.original)] if one.level.original else self.first[weight]
