"""One step of the clocked loop."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from assign import assign
from checkpoint import construct, load_weights
from data import encode
from finite import first_not_finite
from generate import generate, text
from learners import Learner, scale
from measures import check as check_measures
from measures import evaluate
from schedule import Measure, Settings, UserError, due, segment_length, validate
from session import pick_precision
from tasks import Course, share

State = Any  # nested dicts, lists and tuples of tensors
Event = dict[str, Any]


ORDINARY = 1e4  # weights below this are not what makes a loss overflow


class Trainer:
    """The model, its levels and its text, and one step of the loop."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        validate(settings)
        check_measures(settings.measures)
        self.settings = settings
        self.device = device
        vocabulary = int(settings.model.get("vocab", 256))
        self.course = Course(settings.data, vocabulary, settings.evaluate_windows)
        torch.manual_seed(settings.seed)
        self.model = construct(settings.model).to(device)
        self.learners = [
            Learner(settings.level(name), parameters, settings)
            for name, parameters in assign(self.model, settings).items()
        ]
        self.segment = segment_length(settings)
        self.precision = pick_precision(settings, device)
        self.step = 0
        self.tokens = 0  # of one stream

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Automatic mixed precision where the settings ask for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def train_step(self) -> Event:
        """One batch: forward and backward by segments, and the updates that are due."""
        self.model.train()
        inputs, targets = (part.to(self.device) for part in self.course.sampler.draw())
        length = self.settings.data.length
        state: State = None
        facts: Event = {"loss": 0.0, "norm": 0.0, "updated": [], "updates": {}, "rates": {}}
        for begin in range(0, length, self.segment):
            part = slice(begin, begin + self.segment)
            with self.context():
                logits, state = self.model(inputs[:, part], state)
            weight = share(targets, begin, begin + self.segment)
            reduction = "mean" if weight else "sum"  # a mean over nothing is no number
            flat = logits.flatten(0, 1).float()
            loss = cross_entropy(flat, targets[:, part].flatten(), reduction=reduction)
            (loss if weight == 1 else loss * weight).backward()
            self.tokens += self.segment
            last = begin + self.segment == length
            for learner in self.learners:
                learner.gathered += self.segment
            value = loss.item()
            if not math.isfinite(value):
                raise self._blame_loss(f"the loss is {value} at step {self.step + 1}", inputs)
            facts["loss"] += value * weight
            self._update(self._due(last), facts)
            if not last:
                state = cut(state)
        self.step += 1
        return facts

    def _due(self, last: bool) -> list[Learner]:
        """Learners whose clock is due here; step clocks only at the end of a sequence."""
        clocks = [(learner, learner.level.clock) for learner in self.learners]
        return [
            learner
            for learner, clock in clocks
            if (last or clock.unit == "token") and due(clock, self.step + last, self.tokens)
        ]

    def _update(self, learners: list[Learner], facts: Event) -> None:
        """Let `learners` change their weights, their gradients clipped together by their global norm."""
        for learner in learners:
            learner.reduce(self.settings.data.length)
        gradients = [g for learner in learners for g in learner.gradients]
        if not gradients:
            return
        norm = torch.nn.utils.get_total_norm(gradients)
        size = norm.item()
        if not math.isfinite(size):
            raise self._blame_gradient(learners)
        if self.settings.clip is not None and size > self.settings.clip:
            scale(gradients, self.settings.clip / size)
        facts["norm"] = max(facts["norm"], size)
        for learner in learners:
            rate = learner.update(self.step, self.settings.steps)
            name = learner.level.name
            facts["rates"][name] = rate
            facts["updates"][name] = facts["updates"].get(name, 0) + 1
            facts["updated"] = list(facts["updates"])

    def _blame_gradient(self, learners: list[Learner]) -> UserError:
        """The error of a gradient that is not finite."""
        for learner in learners:
            for name, parameter in learner.parameters.items():
                if parameter.grad is not None and not parameter.grad.isfinite().all():
                    where = f"the gradient of level `{learner.level.name}` (`{name}`)"
                    return _diverged(f"{where} is not finite at step {self.step + 1}", learner)
        return _diverged(f"the gradients together are too large at step {self.step + 1}", learners[0])

    def _blame_loss(self, what: str, tokens: Tensor) -> UserError:
        """The error of a loss that is not finite: a part's that leaves the numbers by itself, or the
        weights'.
        """
        largest = max(
            (p.detach().abs().max().item() for p in self.model.parameters() if p.numel()), default=0.0
        )
        part = first_not_finite(self.model, tokens) if largest < ORDINARY else None
        if part is None:
            return self._blame_weights(what)
        name, kind = part
        return UserError(
            (
                f"{what}: no weight is larger than {largest:.3g}, and `{name}` ({kind}) leaves the "
                "numbers by itself"
            ),
            help=(
                "bound what its fast weights learn: keys and values of length 1, a smaller rate, a "
                "retain below 1"
            ),
            kind="diverged",
        )

    def _blame_weights(self, what: str) -> UserError:
        """The error of a loss or weights that are not finite: names the level that is, or has the largest."""
        sizes: list[tuple[float, int, str]] = []
        for index, learner in enumerate(self.learners):
            for name, parameter in learner.parameters.items():
                largest = parameter.detach().abs().max().item() if parameter.numel() else 0.0
                sizes.append((largest if math.isfinite(largest) else math.inf, index, name))
        largest, index, name = max(sizes)
        learner = self.learners[index]
        found = "weights that are not finite" if math.isinf(largest) else f"the largest weight, {largest:.3g}"
        where = f"level `{learner.level.name}` has {found} (`{name}`), last changed at step {learner.changed}"
        return _diverged(f"{what}: {where}", learner)

    def check_weights(self) -> None:
        """Raise `UserError` (kind `diverged`) if a weight is not finite."""
        if not all(p.isfinite().all() for p in self.model.parameters()):
            raise self._blame_weights(f"the weights are not finite after step {self.step}")

    def evaluate(self) -> dict[str, float]:
        """Held-out loss and measures."""
        return self._measured(self.course.windows, self.course.targets, self.settings.measures)

    def evaluate_tasks(self) -> list[dict[str, float]]:
        """Held-out loss and accuracy of each task."""
        asked = [self.course.asked([task]) for task in range(len(self.course.tasks))]
        return [self._measured(windows, targets, (Measure("accuracy"),)) for windows, targets in asked]

    def _measured(
        self, windows: Tensor, targets: Tensor | None, measures: tuple[Measure, ...]
    ) -> dict[str, float]:
        batch = self.settings.data.batch
        return evaluate(self.model, windows, measures, batch=batch, context=self.context, targets=targets)

    def sample(self) -> str:
        """A text by the model, as the settings ask for it."""
        wish = self.settings.sample
        if not wish.tokens:
            return ""
        self.model.eval()
        stream = generate(
            self.model,
            encode(wish.prompt),
            wish.tokens,
            temperature=wish.temperature,
            top_k=wish.top_k,
            seed=wish.seed,
        )
        with self.context():
            return wish.prompt + "".join(text(stream))

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on."""
        cuda = self.device.type == "cuda"
        return {
            "name": self.settings.name,
            "sizes": dict(self.settings.model),
            "step": self.step,
            "tokens": self.tokens,
            "weights": self.model.state_dict(),
            "levels": {learner.level.name: learner.state_dict() for learner in self.learners},
            "data": self.course.sampler.state_dict(),
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
            },
        }

    def load_state_dict(self, content: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint; `UserError` if it is not one of this model, these levels and this text."""
        load_weights(self.model, content, path)
        names = [learner.level.name for learner in self.learners]
        if sorted(content["levels"]) != sorted(names):
            raise UserError(
                f"{path} has the levels {', '.join(content['levels'])}, and this run {', '.join(names)}",
                help="resume with the same levels, or start a new run",
                kind="checkpoint",
            )
        for learner in self.learners:
            learner.load_state_dict(content["levels"][learner.level.name])
        self.course.sampler.load_state_dict(content["data"])
        self.step, self.tokens = content["step"], content["tokens"]
        torch.set_rng_state(content["random"]["cpu"])
        if self.device.type == "cuda" and content["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(content["random"]["cuda"], self.device)


def _diverged(message: str, learner: Learner) -> UserError:
    """The error of a run that has left the numbers; the level's rate is the first thing to change."""
    name, rate = learner.level.name, learner.level.rate.base
    advice = (
        f"lower its rate (`--set levels.{name}.rate={rate / 10:g}`), warm up longer, or clip (`--set clip=1`)"
    )
    return UserError(message, help=advice, kind="diverged")


def cut(state: State) -> State:
    """A copy of `state` through which no gradient flows and that no update of weights in place can reach."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: cut(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(cut(value) for value in state)
    return state
