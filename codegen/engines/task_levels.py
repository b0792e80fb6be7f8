"""Levels of the task with weights of each sequence: maps that change while a sequence is read.

The weights of a level begin at the learned start W_0, one for all; then each sequence b has its own.
Between two boundaries of any level lies a *segment*, in which all weights stand still.  Its own
next-token loss, summed over its tokens and taken for each sequence alone, has the gradient

    g_b = sum_i e_i x_i^T    over the tokens i of b: x_i what a layer was given, e_i the error there,

the derivative of the loss by what the layer answered.  What flows into the segment from before it is held
constant, which takes no doing: errors are taken at layers of this segment only.  At a level's own boundary
the g of its segments are added up (`mean`: and divided by their tokens), and

    S <- momentum S - rate g        W_b <- retain W_b + S

(Nested Learning, Eq. 71 with gradient descent; REF d.2).  Under `first_order` and `stop` g is a constant
for the outer loss.  Then W_b = r W_0 + constant, r all retains since the start multiplied, and the outer
gradient of W_0 is the sum of r_i e'_i x_i^T over all tokens of all sequences, e' the outer errors: one
product `[out, B T] x [B T, in]`, where gradients of single sequences would be B T / C products.  Under
`through` the inner gradient is differentiated as well.

A declared rule takes the place of the last line: W_b is what it makes of r W_b and of g (of its mean over
tokens, with `mean`), and what it adds to r W_b is the constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nldsl.codegen.engines.inner_rule import KeptAxes, held_by_rule, inner_rule, rule_state
from nldsl.codegen.engines.parts import MLP, SwiGLU, activate, full_precision

StandingLayer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Learning:
    """How a level learns inside the sequence: every `period` tokens, first after `offset` (0: `period`).

    `resets` are periods and offsets, in tokens, by which its weights return to their start; `origin` says how
    that start learns within the sequence, where a slower level teaches it.  `rule` is a declared rule, with
    what it keeps: see `inner_rule`.
    """

    period: int
    rate: float
    offset: int = 0
    retain: float = 1.0
    momentum: float = 0.0
    reduce: str = "sum"
    gradient: str = "first_order"
    resets: tuple[tuple[int, int], ...] = ()
    origin: Learning | None = None
    rule: Callable[..., tuple[Tensor, dict[str, Tensor]]] | None = None
    memories: KeptAxes = field(default_factory=dict)

    def clocks(self) -> set[tuple[int, int]]:
        """Period and offset of all that happens to the level."""
        own = {(self.period, self.offset), *self.resets}
        return own | (self.origin.clocks() if self.origin else set())

    def since(self, position: int) -> int:
        """Tokens whose gradients are in an update after `position` tokens."""
        own = (self.period, self.offset)
        return position - max(due_before(position, *clock) for clock in (own, *self.resets))


def last_due(position: int, period: int, offset: int) -> int:
    """The last time that a clock was due up to `position` tokens; 0 where it never was."""
    first = offset or period
    return 0 if position < first else first + (position - first) // period * period


def due_before(position: int, period: int, offset: int) -> int:
    """The last time before `position` tokens."""
    return last_due(position - 1, period, offset)


def next_due(position: int, period: int, offset: int) -> int:
    """The first time after `position` tokens."""
    return last_due(position, period, offset) + period if position >= (offset or period) else offset or period


def is_due(position: int, period: int, offset: int) -> bool:
    """Whether a clock is due after `position` tokens."""
    return position > 0 and last_due(position, period, offset) == position


# --------------------------------------------------------------------------- the maps

# For each level the layers that answer in the running segment; a context variable, so that threads which read
# different streams with one model do not meet.
STANDING: ContextVar[dict[nn.Module, Sequence[StandingLayer]] | None] = ContextVar("STANDING", default=None)


def standing_layers(level: nn.Module, starts: Sequence[StandingLayer]) -> Sequence[StandingLayer]:
    """The layers of `level` with the weights of the sequences that are read; its `starts` outside."""
    return (STANDING.get() or {}).get(level, starts)


class TaskMLP(MLP):
    """`MLP`, whose linear maps are the starts of weights of each sequence; a norm's gain stands still."""

    def __init__(
        self, width: int, hidden: int, depth: int = 2, *, learning: Learning, **options: Any
    ) -> None:
        super().__init__(width, hidden, depth, **options)
        self.learning = learning

    def starts(self) -> list[nn.Linear]:
        """The linear maps, in the order in which they are applied."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """`x` `[B, T, width]` to the same shape."""
        y = x if self.norm is None else self.norm(x)
        for index, layer in enumerate(standing_layers(self, self.starts())):
            y = layer(y) if index == 0 else layer(activate(self.activation, y))
        return x + y if self.residual else y


class TaskSwiGLU(SwiGLU):
    """`SwiGLU`, whose linear maps are the starts of weights of each sequence."""

    def __init__(self, width: int, hidden: int, *, learning: Learning) -> None:
        super().__init__(width, hidden)
        self.learning = learning

    def starts(self) -> list[nn.Linear]:
        """The linear maps: gate, up, down."""
        return [self.gate, self.up, self.down]

    def forward(self, x: Tensor) -> Tensor:
        """`x` `[B, T, width]` to the same shape."""
        gate, up, down = standing_layers(self, self.starts())
        return down(F.silu(gate(x)) * up(x))


class TaskMatrix(nn.Linear):
    """A linear map that is the start of a matrix of each sequence."""

    def __init__(self, width: int, *, learning: Learning) -> None:
        super().__init__(width, width, bias=False)
        self.learning = learning

    def starts(self) -> list[nn.Linear]:
        """The one map."""
        return [self]

    def forward(self, input: Tensor) -> Tensor:
        """`[B, T, width]` to the same shape."""
        (layer,) = standing_layers(self, [super().forward])
        return layer(input)


TaskLevel = TaskMLP | TaskSwiGLU | TaskMatrix


# --------------------------------------------------------------------------- reads, and what comes back


class StartAnchor(torch.autograd.Function):
    """Zero, and the node that every read of a start hangs on: its backward runs when all theirs have run."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, came_back: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.came_back, ctx.dtype = came_back, start.dtype
        return start.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, None]:
        """The product over all tokens of all sequences."""
        if not ctx.came_back:
            return None, None
        inputs = torch.cat([x.flatten(0, 1) for x, _ in ctx.came_back])
        errors = torch.cat([e.flatten(0, 1) for _, e in ctx.came_back])
        ctx.came_back.clear()
        return (errors.mT.to(inputs.dtype) @ inputs).to(ctx.dtype), None


class ReadTap(torch.autograd.Function):
    """Zeros `[B, T, out]` that are added to what a layer answers: their gradient is the layer's error."""

    @staticmethod
    def forward(
        ctx: Any, _anchor: Tensor, x: Tensor, kept: float, out: int, came_back: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kept, ctx.came_back = kept, came_back
        return x.new_zeros(1).expand(*x.shape[:-1], out)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The error waits, with the input that it belongs to, for the others."""
        (x,), (error,) = ctx.saved_tensors, errors
        ctx.came_back.append((x if ctx.kept == 1 else x * ctx.kept, error))
        return error.new_zeros(()), None, None, None, None


Pairs = list[tuple[Tensor, Tensor]]


class Track:
    """Weights `[B, out, in]` of one level, one tensor for each layer, that learn by one rule and clock.

    What has come since the last update waits as `pairs` of inputs and errors, which one product turns into a
    gradient when it is due; `gathered` holds a gradient that is there already.  `kept` is what retention has
    left of the start.
    """

    def __init__(
        self,
        learning: Learning,
        starts: list[Tensor],
        batch: int,
        saved: dict[str, Any] | None,
        past: bool,
    ) -> None:
        self.learning = learning
        self.starts = [full_precision(one if past else one.detach()) for one in starts]
        self.batch = batch
        self.begin()
        if saved is not None:
            self.weights = list(saved["weights"])
            self.moments = list(saved.get("momentum", self.moments))
            self.gathered = list(saved.get("gathered", self.gathered))
            self.kept = float(saved["kept"])
            self.held = self._held(saved.get("rule", {}))
            self.number = int(saved.get("rule", {}).get("step", 0))

    def begin(self, weights: list[Tensor] | None = None, kept: float = 1.0) -> None:
        """Return to the start, or to `weights` which learn what the start is."""
        self.weights = weights or [one.expand(self.batch, -1, -1) for one in self.starts]
        self.moments = [torch.zeros_like(one) for one in self.weights] if self.learning.momentum else []
        self.gathered: list[Tensor] = []
        self.pairs: list[Pairs] = [[] for _ in self.weights]
        self.kept = kept
        self.held, self.number = self._held({}), 0

    def _held(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a declared rule keeps for each layer, as `inner_rule` names it."""
        return held_by_rule(_by_layer(self.weights), self.learning.memories, state)

    def gather(self, pairs: list[Pairs], gradients: list[Tensor]) -> None:
        """Take in a segment: inputs and errors of each layer, or gradients `[B, out, in]` with a past."""
        for mine, more in zip(self.pairs, pairs, strict=True):
            mine += more
        if gradients:
            known = self.gathered or [torch.zeros_like(one) for one in gradients]
            self.gathered = [a + b for a, b in zip(known, gradients, strict=True)]

    def update(self, tokens: int) -> None:
        """One step of the rule, for a period of `tokens` tokens."""
        own = self.learning
        if own.rule is not None:
            self._ruled(own.rule, tokens)
            return
        rate = own.rate / tokens if own.reduce == "mean" else own.rate
        for n, weight in enumerate(self.weights):
            if own.momentum:
                self.moments[n] = self._added(n, self.moments[n], own.momentum, -rate)
                self.weights[n] = own.retain * weight + self.moments[n]
            else:
                self.weights[n] = self._added(n, weight, own.retain, -rate)
        self.kept *= own.retain
        self.gathered, self.pairs = [], [[] for _ in self.weights]

    def _ruled(self, rule: Callable[..., tuple[Tensor, dict[str, Tensor]]], tokens: int) -> None:
        """One step of a declared rule, number by number or matrix by matrix."""
        own = self.learning
        share = 1 / tokens if own.reduce == "mean" else 1.0
        slopes = [self._added(n, torch.zeros_like(one), 1.0, share) for n, one in enumerate(self.weights)]
        kept = [own.retain * one for one in self.weights]
        self.number += 1
        rate = kept[0].new_full((self.batch, 1), own.rate)
        steps, self.held = inner_rule(
            rule, _by_layer(kept), _by_layer(slopes), self.held, rate, self.number, {}
        )
        self.weights = [one + steps[str(n)].squeeze(1) for n, one in enumerate(kept)]
        self.kept *= own.retain
        self.gathered, self.pairs = [], [[] for _ in self.weights]

    def _added(self, n: int, base: Tensor, keep: float, factor: float) -> Tensor:
        """`keep base + factor g` for layer n."""
        if self.pairs[n]:
            inputs, errors = _joined(self.pairs[n], base.dtype)
            base = torch.baddbmm(base, errors.mT, inputs, beta=keep, alpha=factor)
        elif keep != 1:
            base = keep * base
        return base + factor * self.gathered[n] if self.gathered else base

    def state(self, *, open_period: bool) -> dict[str, Any]:
        """What a later call needs; `open_period`: its own gradients may wait while others change."""
        made: dict[str, Any] = {
            "weights": list(self.weights),
            "kept": torch.tensor(self.kept, dtype=torch.float64),
        }
        if self.moments:
            made["momentum"] = list(self.moments)
        if self.learning.rule is not None:
            made["rule"] = rule_state(self.held, self.number)
        if open_period:
            made["gathered"] = [
                self._added(n, torch.zeros_like(one), 1.0, 1.0) for n, one in enumerate(self.weights)
            ]
        return made


def _by_layer(tensors: list[Tensor]) -> dict[str, Tensor]:
    """Tensors `[B, out, in]` by the number of their layer, as one head of each sequence."""
    return {str(n): one.unsqueeze(1) for n, one in enumerate(tensors)}


def _alias(weight: Tensor) -> Tensor:
    """The same weights as a tensor of one segment: a gradient by it is that of this segment alone."""
    return weight.view_as(weight) if weight.requires_grad else weight.detach().requires_grad_()


def _joined(pairs: Pairs, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Inputs `[B, T, in]` and errors `[B, T, out]` of several reads."""
    inputs, errors = zip(*pairs, strict=True)
    return torch.cat(inputs, dim=1).to(dtype), torch.cat(errors, dim=1).to(dtype)


class FastLevel:
    """A level while a call reads: its weights, the layers that answer, and what was asked of them."""

    def __init__(self, level: TaskLevel, batch: int, saved: dict[str, Any] | None, *, outer: bool) -> None:
        own = level.learning
        self.learning = own
        self.through = own.gradient == "through"
        starts = [one.weight for one in level.starts()]
        past, saved = outer and self.through, saved or {}
        self.origin = None
        if own.origin is not None:
            self.origin = Track(own.origin, starts, batch, saved.get("origin"), past)
        self.running = Track(own, starts, batch, saved.get("running"), past)
        self.came_back: list[Pairs] = [[] for _ in starts]
        self.anchors: list[Tensor | None] = [None] * len(starts)
        if outer and not self.through:
            reached = zip(starts, self.came_back, strict=True)
            self.anchors = [StartAnchor.apply(one, back) for one, back in reached if one.requires_grad]
            self.anchors = self.anchors or [None] * len(starts)
        self.reads: list[Pairs] = []
        self.standing: list[Tensor] = []

    def layers(self, *, reached: bool = True) -> list[StandingLayer]:
        """Layers for one segment, whose weights stand still; `reached`: the outer loss reaches the start."""
        self.reads = [[] for _ in self.running.weights]
        self.standing = [_alias(one) for one in self.running.weights] if self.through else []
        return [self._layer(n, reached=reached) for n in range(len(self.reads))]

    def _layer(self, n: int, *, reached: bool) -> StandingLayer:
        weight = self.standing[n] if self.through else self.running.weights[n]

        def answer(x: Tensor) -> Tensor:
            if self.through or not torch.is_grad_enabled():
                return torch.bmm(x, weight.to(x.dtype).mT)
            given, anchor = x.detach(), self.anchors[n] if reached else None
            if anchor is None:
                tap = x.new_zeros(1).expand(*x.shape[:-1], weight.shape[1]).requires_grad_()
            else:
                tap = ReadTap.apply(anchor, given, self.running.kept, weight.shape[1], self.came_back[n])
            self.reads[n].append((given, tap))
            return torch.baddbmm(tap, x, weight.to(x.dtype).mT)

        return answer

    def taps(self) -> list[Tensor]:
        """What the inner gradient is taken by: the answers of the layers, or the weights."""
        return self.standing if self.through else [tap for reads in self.reads for _, tap in reads]

    def gather(self, gradients: Sequence[Tensor]) -> None:
        """Take in the gradients by `taps`."""
        if self.through:
            pairs, whole = [[] for _ in self.reads], list(gradients)
        else:
            errors = iter(gradients)
            pairs, whole = [[(x, next(errors)) for x, _ in reads] for reads in self.reads], []
        for track in (self.running, self.origin):
            if track is not None:
                track.gather(pairs, whole)

    def change(self, position: int) -> None:
        """All that is due after `position` tokens: updates, then the return to the start."""
        for track in (self.running, self.origin):
            if track is not None and is_due(position, track.learning.period, track.learning.offset):
                track.update(track.learning.since(position))
        if any(is_due(position, *clock) for clock in self.learning.resets):
            if self.origin is None:
                self.running.begin()
            else:
                self.running.begin(list(self.origin.weights), self.origin.kept)

    def state(self, clocks: set[tuple[int, int]]) -> dict[str, Any]:
        """What a later call needs; `clocks` are those of all levels, which end segments."""
        made = {}
        for name, track in (("running", self.running), ("origin", self.origin)):
            if track is not None:
                own = {(track.learning.period, track.learning.offset)}
                made[name] = track.state(open_period=clocks != own)
        return made
