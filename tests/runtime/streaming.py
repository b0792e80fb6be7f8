"""What the tests of streams have in common: a small model, plastic levels, a text, and equality of states."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from nldsl.run.folder import Build


def plastic_level(build: Build, name: str, learns: tuple[str, ...], clock: str, **changes: Any) -> Any:
    """A plastic level by gradient descent."""
    schedule = build.schedule
    made = schedule.Level(
        name, learns, "gd", schedule.read_clock(clock), schedule.Rate(0.3), {}, plastic=True
    )
    return dataclasses.replace(made, **changes)


def with_levels(build: Build, *levels: Any, **changes: Any) -> Any:
    """The build's settings with `levels` beside one that learns the rest and is not plastic."""
    rest = dataclasses.replace(build.settings.levels[0], plastic=False)
    return dataclasses.replace(build.settings, levels=(rest, *levels), **changes)


def small_model(build: Build) -> torch.nn.Module:
    """In float64, ready to be read with."""
    torch.manual_seed(0)
    return build.checkpoint.construct({"vocab": 128, "dim": 8}).double().eval()


def letters() -> torch.Tensor:
    """75 tokens."""
    return torch.randint(97, 110, (75,), generator=torch.Generator().manual_seed(1))


def two_levels(build: Build) -> Any:
    """A level of 8 tokens by gradient descent, one of 2 steps by AdamW."""
    return with_levels(
        build,
        plastic_level(build, "fast", ("fast",), "8 tokens"),
        plastic_level(build, "slow", ("slow",), "2 steps", rule="adamw", rate=build.schedule.Rate(1e-2)),
    )


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
