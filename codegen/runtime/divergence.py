"""Runs that leave the numbers: which level is at fault, and signs of it while the numbers are still there."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from finite import first_not_finite
from learners import Learner
from schedule import UserError

ORDINARY = 1e4  # weights below this are not what makes a loss overflow


def gradient_error(due: Sequence[Learner], learners: Sequence[Learner], step: int) -> UserError:
    """The error of a gradient that is not finite, in step `step` (from 1) and one of the levels `due` there.

    Where each is finite and their norm is not, the level with the largest weights of all is at fault.
    """
    for learner in due:
        for name, parameter in learner.parameters.items():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                where = f"the gradient of level `{learner.level.name}` (`{name}`)"
                return _diverged(f"{where} is not finite at step {step}", learner)
    return weights_error(learners, f"the gradients together are too large at step {step}")


def loss_error(model: nn.Module, learners: Sequence[Learner], what: str, tokens: Tensor) -> UserError:
    """The error of a loss that is not finite: a part's that leaves the numbers by itself, or the weights'.

    `what` is what was seen and when, `tokens` `[batch, length]` what the model was given.
    """
    largest = max((p.detach().abs().max().item() for p in model.parameters() if p.numel()), default=0.0)
    part = first_not_finite(model, tokens) if largest < ORDINARY else None
    if part is None:
        return weights_error(learners, what)
    name, kind = part
    return UserError(
        f"{what}: no weight is larger than {largest:.3g}, and `{name}` ({kind}) leaves the numbers by itself",
        help=(
            "bound what its fast weights learn: keys and values of length 1, a smaller rate, a retain below 1"
        ),
        kind="diverged",
    )


def weights_error(learners: Sequence[Learner], what: str) -> UserError:
    """The error of a loss or weights that are not finite: names the level that is, or has the largest."""
    sizes: list[tuple[float, int, str]] = []
    for index, learner in enumerate(learners):
        for name, parameter in learner.parameters.items():
            largest = parameter.detach().abs().max().item() if parameter.numel() else 0.0
            sizes.append((largest if math.isfinite(largest) else math.inf, index, name))
    largest, index, name = max(sizes)
    learner = learners[index]
    found = "weights that are not finite" if math.isinf(largest) else f"the largest weight, {largest:.3g}"
    where = f"level `{learner.level.name}` has {found} (`{name}`), last changed at step {learner.changed}"
    return _diverged(f"{what}: {where}", learner)


def all_weights_finite(model: nn.Module, learners: Sequence[Learner]) -> bool:
    """Whether every weight is finite, and every start that a level learns."""
    starts = (p for learner in learners for p in learner.parameters.values())
    return all(bool(p.isfinite().all()) for p in (*model.parameters(), *starts))


def _diverged(message: str, learner: Learner) -> UserError:
    """The error of a run that has left the numbers; the level's rate is the first thing to change."""
    name, rate = learner.level.name, learner.level.rate.base
    lower = f"lower its rate (`train.py --set levels.{name}.rate={rate / 10:g}`)"
    advice = f"{lower}, warm up longer, or clip (`--set clip=1`)"
    return UserError(message, help=advice, kind="diverged")
