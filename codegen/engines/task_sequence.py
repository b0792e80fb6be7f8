"""Reading with levels that learn from the task on the way: segment by segment, by labels that are known.

A segment ends where any level changes.  Its tokens are read at once, since all weights stand still in
it.  Its loss is that of the next tokens, so the label of its last position is the first token after it,
and the update waits for that token: nothing that is computed from a token depends on a later one.

The state keeps the tokens of the open segment, and what the other parts of the model had carried into
it: a segment that came in several calls is read again when it ends, for its errors alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from nldsl.codegen.engines.parts import full_precision
from nldsl.codegen.engines.task_levels import (
    STANDING,
    FastLevel,
    TaskMatrix,
    TaskMLP,
    TaskSwiGLU,
    next_due,
)

Read = Callable[[Tensor, Any], tuple[Tensor, Any]]


def learn_in_sequence(
    model: nn.Module, read: Read, tokens: Tensor, state: dict[str, Any] | None = None
) -> tuple[Tensor, dict[str, Any]]:
    """Logits `[B, T, vocab]` of `tokens` `[B, T]`, and the new state, while the levels of `model` learn.

    `read(tokens, state)` is the model with weights that stand still.
    """
    if torch.is_inference_mode_enabled():  # there no gradient can be taken
        with torch.inference_mode(False), torch.no_grad():
            return learn_in_sequence(model, read, tokens.clone(), state)
    stream = TaskStream(model, read, tokens, state or {})
    logits: list[Tensor] = []
    while stream.rest.shape[1] or not logits:
        if stream.full and stream.rest.shape[1]:
            stream.learn()
        logits.append(stream.take())
    return logits[0] if len(logits) == 1 else torch.cat(logits, dim=1), stream.state()


class TaskStream:
    """One call: the levels with their weights, and how far it has come."""

    def __init__(self, model: nn.Module, read: Read, tokens: Tensor, state: dict[str, Any]) -> None:
        self.read, self.rest = read, tokens
        self.outer = torch.is_grad_enabled()
        levels = {n: m for n, m in model.named_modules() if isinstance(m, TaskMLP | TaskSwiGLU | TaskMatrix)}
        saved = state.get("levels", {})
        self.levels = {
            level: FastLevel(level, tokens.shape[0], saved.get(name), outer=self.outer)
            for name, level in levels.items()
        }
        self.names = list(levels)
        self.clocks = {clock for level in levels.values() for clock in level.learning.clocks()}
        self.through = any(one.through for one in self.levels.values())
        self.position = int(state.get("position", 0))
        self.opened = state.get("open", tokens[:, :0])
        self.entered, self.inner = state.get("entered"), state.get("inner")
        self.logits: Tensor | None = None  # of the open segment, where one call has read it whole

    @property
    def end(self) -> int:
        """Where the open segment ends."""
        return min(next_due(self.position - self.opened.shape[1], *clock) for clock in self.clocks)

    @property
    def full(self) -> bool:
        """Whether the open segment is read, and waits for its last label."""
        return self.opened.shape[1] > 0 and self.position == self.end

    def take(self) -> Tensor:
        """Read on, to the end of the segment or of the call; gives the logits."""
        begins = not self.opened.shape[1]
        count = min(self.end - self.position, self.rest.shape[1])
        piece, self.rest = self.rest[:, :count], self.rest[:, count:]
        if begins:
            self.entered = self.inner
        whole = begins and self.position + count == self.end and self.rest.shape[1] > 0
        with torch.set_grad_enabled(self.outer or whole):
            logits, inner = self._standing(piece, self.inner)
        self.logits = logits if whole else None
        self.inner = inner if self.outer else without_past(inner)
        self.opened = torch.cat((self.opened, piece), dim=1)
        self.position += count
        return logits if self.outer else logits.detach()

    def _standing(self, tokens: Tensor, state: Any, *, reached: bool = True) -> tuple[Tensor, Any]:
        """The model with weights that stand still; attention in a form that can be differentiated twice."""
        reached = reached and self.outer
        token = STANDING.set({level: one.layers(reached=reached) for level, one in self.levels.items()})
        twice = sdpa_kernel(SDPBackend.MATH) if self.outer and self.through else nullcontext()
        try:
            with twice:
                return self.read(tokens, state)
        finally:
            STANDING.reset(token)

    def learn(self) -> None:
        """The end of the open segment, now that its last label is known."""
        labels = torch.cat((self.opened[:, 1:], self.rest[:, :1]), dim=1)
        past = self.outer and self.through
        kept = past or (self.outer and self.logits is not None)
        with torch.enable_grad():
            logits = self.logits
            if logits is None:
                entered = self.entered if past else without_past(self.entered)
                logits, _ = self._standing(self.opened, entered, reached=False)
            loss = F.cross_entropy(full_precision(logits).flatten(0, 1), labels.flatten(), reduction="sum")
            taps = [tap for one in self.levels.values() for tap in one.taps()]
            gradients = torch.autograd.grad(
                loss, taps, retain_graph=kept, create_graph=past, materialize_grads=True
            )
        with torch.set_grad_enabled(past), torch.autocast(labels.device.type, enabled=False):
            begin = 0
            for one in self.levels.values():
                end = begin + len(one.taps())
                own = gradients[begin:end]
                one.gather(own if one.through else [g.detach() for g in own])
                one.change(self.position)
                begin = end
        self.logits, self.opened = None, self.opened[:, :0]

    def state(self) -> dict[str, Any]:
        """What the next call begins with."""
        with torch.set_grad_enabled(self.outer and self.through):
            levels = [one.state(self.clocks) for one in self.levels.values()]
        return {
            "position": torch.tensor(self.position),
            "open": self.opened,
            "entered": self.entered,
            "inner": self.inner,
            "levels": dict(zip(self.names, levels, strict=True)),
        }


def without_past(state: Any) -> Any:
    """Nested state as values that no gradient flows through."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, dict):
        return {name: without_past(one) for name, one in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(without_past(one) for one in state)
    return state
