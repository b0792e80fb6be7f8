"""One step of the clocked loop."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from checkpoint import construct, load_weights
from divergence import all_weights_finite, gradient_error, loss_error, weights_error
from documents import Documents, by_document
from generate import generate
from learners import Learner, put_to_work
from measures import Answers, evaluate
from measures import check as check_measures
from pretrained import start_from_files
from schedule import Measure, Settings, UserError, cuts, due, parents_first, validate
from session import pick_precision
from tasks import Course, share
from tokens import tokenizer

State = Any  # nested dicts, lists and tuples of tensors
Event = dict[str, Any]


class Trainer:
    """The model, its levels and its text, and one step of the loop."""

    def __init__(self, settings: Settings, device: torch.device, *, begun: bool = False) -> None:
        """`begun`: a checkpoint will bring the weights, so that no file is read for them."""
        validate(settings)
        check_measures(settings.measures, settings.data.tokenizer)
        self.settings = settings
        self.device = device
        vocabulary = int(settings.model.get("vocab", 256))
        self.course = Course(settings.data, vocabulary, settings.most_windows)
        torch.manual_seed(settings.seed)
        self.model = construct(settings.model).to(device)
        self.pretrained = [] if begun else start_from_files(self.model, settings)
        self.learners = put_to_work(self.model, settings)
        order = [level.name for level in parents_first(settings.levels)]
        self.parents_first = sorted(self.learners, key=lambda learner: order.index(learner.level.name))
        self.precision = pick_precision(settings, device)
        self.step = 0
        self.tokens = 0  # of one stream
        self._answers: tuple[int, Answers] | None = None  # the last ones, and the step that they are of

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Automatic mixed precision where the settings ask for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def train_step(self) -> Event:
        """One batch: forward and backward segment by segment, and after each the updates that are due."""
        self.model.train()
        inputs, targets = (part.to(self.device) for part in self.course.sampler.draw())
        length = self.settings.data.length
        segments = cuts(self.settings, self.step)
        due_after = [self._due(end) for end in segments]
        for learner in self.learners:
            learner.begin_step()
        facts: Event = {"loss": 0.0, "norm": 0.0, "updated": [], "updates": {}, "rates": {}}
        facts |= {"reset": [], "warnings": []}
        state: State = None
        begin = 0
        for index, end in enumerate(segments):
            to_come = [learner for due_then in due_after[index:] for learner in due_then]
            for learner in self.learners:
                learner.listen(learner in to_come)
            with self.context():
                logits, state = self.model(inputs[:, begin:end], state)
            loss = next_token_loss(logits, targets[:, begin:end])
            part = share(targets, begin, end)
            if loss.requires_grad:  # some level listens
                (loss if part == 1 else loss * part).backward()
            value = loss.item()
            if not math.isfinite(value):
                what = f"the loss is {value} at step {self.step + 1}"
                raise loss_error(self.model, self.learners, what, inputs)
            facts["loss"] += value * part
            self.tokens += end - begin
            for learner in self.learners:
                learner.gathered += end - begin
            self._update(due_after[index], facts)
            self._begin_anew(due_after[index], facts)
            state = cut(state) if end < length else None
            begin = end
        for learner in self.learners:
            learner.listen(True)
        self.step += 1
        return facts

    def _due(self, end: int) -> list[Learner]:
        """Learners whose clock is due after `end` tokens of this step's sequence."""
        length, last = self.settings.data.length, self.step + 1 == self.settings.steps
        position = self.step * length + end
        return [one for one in self.learners if due(one.level.clock, position, length, ends=last)]

    def _update(self, learners: list[Learner], facts: Event) -> None:
        """Let `learners` change their weights, their gradients clipped together by their global norm.

        All gradients were taken before any of these updates, so that their order does not matter.
        """
        for learner in learners:
            learner.reduce(self.settings.data.length)
        changing = [p for learner in learners for p in learner.parameters.values() if p.grad is not None]
        if changing:
            norm = torch.nn.utils.get_total_norm([p.grad for p in changing if p.grad is not None])
            size = norm.item()
            if not math.isfinite(size):
                raise gradient_error(learners, self.learners, self.step + 1)
            if self.settings.clip is not None and size > self.settings.clip:
                torch.nn.utils.clip_grads_with_norm_(changing, self.settings.clip, norm)
            facts["norm"] = max(facts["norm"], size)
        for learner in learners:
            before = learner.growth.begin()
            rate = learner.update(self.step, self.settings.steps)
            if warning := learner.growth.look(before, self.step + 1):
                facts["warnings"].append(warning)
            name = learner.level.name
            facts["rates"][name] = rate
            facts["updates"][name] = facts["updates"].get(name, 0) + 1
            facts["updated"] = list(facts["updates"])

    def _begin_anew(self, updated: list[Learner], facts: Event) -> None:
        """After the updates: forget the open periods of a sequence that ends, and return to starts.

        A level that returns has changed as well: parents come before their children.
        """
        length = self.settings.data.length
        changed = {learner.level.name for learner in updated}
        for learner in self.parents_first:
            level = learner.level
            by_clock = level.resets is not None and due(level.resets, self.tokens, length)
            if by_clock or level.parent in changed:
                learner.return_to_start()
                changed.add(level.name)
                facts["reset"].append(level.name)
            elif level.clock.partial == "drop" and level.clock.unit == "token" and self.tokens % length == 0:
                learner.forget()

    def check_weights(self) -> None:
        """Raise `UserError` (kind `diverged`) if a weight is not finite."""
        if not all_weights_finite(self.model, self.learners):
            raise weights_error(self.learners, f"the weights are not finite after step {self.step}")

    def evaluate(self) -> dict[str, float]:
        """Held-out loss and measures."""

        def keep(answers: Answers) -> None:
            self._answers = self.step, answers

        return self._measured(self.course.windows, self.course.targets, self.settings.measures, keep)

    def evaluate_documents(self) -> Documents:
        """The held-out loss by document; the last evaluation serves if no step was made since."""
        if self._answers is None or self._answers[0] != self.step:
            self.evaluate()
        assert self._answers is not None
        return by_document(self._answers[1], self.course)

    def evaluate_tasks(self) -> list[dict[str, float]]:
        """Held-out loss and accuracy of each task."""
        asked = [self.course.asked([task]) for task in range(len(self.course.tasks))]
        return [self._measured(windows, targets, (Measure("accuracy"),)) for windows, targets in asked]

    def _measured(
        self,
        windows: Tensor,
        targets: Tensor | None,
        measures: tuple[Measure, ...],
        keep: Callable[[Answers], None] | None = None,
    ) -> dict[str, float]:
        batch = self.settings.data.batch
        return evaluate(
            self.model,
            windows,
            measures,
            batch=batch,
            context=self.context,
            targets=targets,
            bytes_per_token=self.course.bytes_per_token,
            keep=keep,
        )

    def sample(self) -> str:
        """A text by the model, as the settings ask for it."""
        wish = self.settings.sample
        if not wish.tokens or not self.course.writes_text:
            return ""
        self.model.eval()
        words = tokenizer(self.settings.data.tokenizer)
        stream = generate(
            self.model,
            words.encode(wish.prompt),
            wish.tokens,
            temperature=wish.temperature,
            top_k=wish.top_k,
            seed=wish.seed,
        )
        with self.context():
            return wish.prompt + "".join(words.decode(stream))

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


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of `logits` [B, T, vocab] and `targets` [B, T], in float32 or better.

    Targets that do not count are left out; where none does, the loss is 0.
    """
    kind = torch.promote_types(logits.dtype, torch.float32)
    reduction = "mean" if share(targets, 0, targets.shape[1]) else "sum"  # a mean over nothing is no number
    return cross_entropy(logits.flatten(0, 1).to(kind), targets.flatten(), reduction=reduction)


def cut(state: State) -> State:
    """A copy of `state` through which no gradient flows and that no update of weights in place can reach."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: cut(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(cut(value) for value in state)
    return state
