"""The loop is exact: against plain PyTorch, a loop by hand, a naive simulator, and itself resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from nldsl.run.folder import Build, load
from tests.runtime.naive import Simulation

CPU = torch.device("cpu")


@pytest.fixture
def wide(build: Build) -> Iterator[Build]:
    """The build, with float64 as the kind of all new weights."""
    torch.set_default_dtype(torch.float64)
    yield build
    torch.set_default_dtype(torch.float32)


def _level(build: Build, name: str, learns: str, rule: str = "gd", **changes: Any) -> Any:
    s = build.schedule
    changes = {"clock": s.Clock(1), "rate": s.Rate(0.05), "options": {}, **changes}
    return s.Level(name, (learns,), rule, **changes)


def _settings(build: Build, levels: tuple[Any, ...], **changes: Any) -> Any:
    data = dataclasses.replace(build.settings.data, length=changes.pop("length", 8), batch=2)
    changes = {"steps": 6, "clip": None, **changes}
    return dataclasses.replace(build.settings, levels=levels, data=data, **changes)


def _batches(trainer: Any, steps: int) -> list[Any]:
    """The batches that a trainer will see, from a sampler of its own."""
    other = type(trainer.course.sampler)(
        trainer.course.corpus.train, trainer.settings.data.length, trainer.settings.data.batch, 0
    )
    return [other.draw() for _ in range(steps)]


# --------------------------------------------------------------------------- plain training


class AdamW(torch.optim.AdamW):
    """Torch's own, in the place of a rule: it sees gradients alone."""

    def settle(self, gram: float, error: float) -> None:
        """What gradients were multiplied by matters to rules that see layers."""


def _fused(parameters: Any) -> torch.optim.Optimizer:
    return AdamW(parameters, lr=0.05, weight_decay=0.1, fused=True)


def _foreach(parameters: Any) -> torch.optim.Optimizer:
    return AdamW(parameters, lr=0.05, weight_decay=0.1, foreach=True)


FORMS: dict[str, Callable[[Any], torch.optim.Optimizer] | None] = {
    "the rule": None,
    "fused": _fused,
    "foreach": _foreach,
}


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("form", FORMS)
def test_clocks_of_one_step_are_plain_training_bit_for_bit(
    build: Build, clip: float | None, form: str
) -> None:
    """Twenty steps of three levels are those of one optimizer over all weights: no tolerance.

    With clipping it is one level: a norm is a sum, and its last bit depends on the order of the weights.
    """
    levels = tuple(
        _level(build, name, learns, "adamw", options={"decay": 0.1})
        for name, learns in (("rest", "rest"), ("fast", "fast"), ("slow", "slow"))
    )
    levels = levels if clip is None else levels[:1]
    wish = _settings(build, levels, steps=20, clip=clip, no_decay=(), length=16)
    trainer, plain = build.loop.Trainer(wish, CPU), build.loop.Trainer(wish, CPU).model
    make = FORMS[form]
    if make is not None:
        for learner in trainer.learners:
            learner.rule = make(learner.parameters.values())
    optimizer = (make or _fused)(plain.parameters())
    for inputs, targets in _batches(trainer, 20):
        facts = trainer.train_step()
        optimizer.zero_grad()
        logits, _ = plain(inputs)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), clip)
        optimizer.step()
        assert facts["loss"] == loss.item()
    _equal(dict(trainer.model.named_parameters()), dict(plain.named_parameters()))


def _equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("reduce", ["mean", "sum", "last"])
def test_level_clocks_are_a_loop_by_hand_bit_for_bit(build: Build, reduce: str) -> None:
    """The usual loop: an optimizer for each period, whose gradients wait from step to step."""
    clock = build.schedule.Clock
    levels = (
        _level(build, "rest", "rest", "adamw"),
        _level(build, "fast", "fast", "adamw", clock=clock(2), reduce=reduce),
        _level(build, "slow", "slow", "adamw", clock=clock(4), reduce=reduce),
    )
    wish = _settings(build, levels, steps=10, length=16)
    trainer, plain = build.loop.Trainer(wish, CPU), build.loop.Trainer(wish, CPU).model
    owned = [[*plain.fast.parameters()], [*plain.slow.parameters()]]
    rest = [plain.embed.weight, plain.norm_scale, plain.retain]
    groups = [
        (period, torch.optim.AdamW(weights, lr=0.05, weight_decay=0.0, fused=True), weights)
        for period, weights in ((1, rest), (2, owned[0]), (4, owned[1]))
    ]
    for step, (inputs, targets) in enumerate(_batches(trainer, 10)):
        if reduce == "last":
            for _, optimizer, _ in groups:
                optimizer.zero_grad()
        trainer.train_step()
        logits, _ = plain(inputs)
        cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        for period, optimizer, weights in groups:
            if (step + 1) % period == 0:
                for weight in weights:
                    if reduce == "mean":
                        weight.grad.div_(period)
                optimizer.step()
                optimizer.zero_grad()
    _equal(dict(trainer.model.named_parameters()), dict(plain.named_parameters()))


# --------------------------------------------------------------------------- any schedule


LENGTH, STEPS = 8, 6


@st.composite
def clocks(draw: st.DrawFn) -> tuple[int, str, int, str]:
    unit = draw(st.sampled_from(["step", "token"]))
    period = draw(st.integers(1, 4 if unit == "step" else 19))
    partial = draw(st.sampled_from(["carry", "drop", "flush"]))
    if unit == "token" and partial == "drop":
        period = min(period, LENGTH)
    return period, unit, draw(st.integers(0, period - 1)), partial


@st.composite
def levels(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Three levels; those of the two layers may start from and return with each other."""
    found = []
    for name in ("rest", "fast", "slow"):
        kind = draw(st.sampled_from(["gd", "momentum", "adamw"]))
        found.append(
            {
                "name": name,
                "rule": kind,
                "clock": draw(clocks()),
                "reduce": draw(st.sampled_from(["mean", "sum", "last"])),
                "start": "",
                "reset": "",
            }
        )
    order = draw(st.permutations(["rest", "fast", "slow"]))
    for name in order[1:]:
        one = next(one for one in found if one["name"] == name)
        before = order[: order.index(name)]
        other = draw(st.sampled_from(before))
        kinds = ["", f"learned in {other}"]
        kinds += [f"copy of {n}" for n in before if "rest" not in (n, name)]
        one["start"] = draw(st.sampled_from(kinds))
        period, unit, offset, _ = draw(clocks())
        own = f"every {period} {unit}s" + (f" offset {offset}" if offset else "")
        one["reset"] = draw(st.sampled_from(["", own, f"with {draw(st.sampled_from(before))}"]))
    return found


def _made(build: Build, spelled: list[dict[str, Any]]) -> Any:
    s = build.schedule
    made = [
        _level(
            build,
            one["name"],
            one["name"],
            one["rule"],
            clock=s.Clock(*one["clock"]),
            reduce=one["reduce"],
            start=one["start"],
            reset=one["reset"],
            rate=s.Rate(0.02, warmup=2, shape="cosine"),
        )
        for one in spelled
    ]
    return _settings(build, tuple(made), steps=STEPS, length=LENGTH)


def _weights_of(trainer: Any) -> dict[str, Any]:
    found = dict(trainer.model.named_parameters())
    for learner in trainer.learners:
        if learner.level.teacher:
            found |= learner.start.taught
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spelled=levels())
def test_any_schedule_is_what_a_naive_loop_does(wide: Build, spelled: list[dict[str, Any]]) -> None:
    """Clocks, offsets, open periods, reductions, starts and resets, all at once; in float64."""
    wish = _made(wide, spelled)
    trainer, plain = wide.loop.Trainer(wish, CPU), wide.loop.Trainer(wish, CPU).model
    owned = {one["name"]: [] for one in spelled}
    for name, _ in plain.named_parameters():
        owned[name.split(".")[0] if name.split(".")[0] in owned else "rest"].append(name)
    simulation = Simulation(wish, plain, owned)
    simulation.run(_batches(trainer, STEPS))
    counts = dict.fromkeys(owned, 0)
    for _ in range(STEPS):
        for name, count in trainer.train_step()["updates"].items():
            counts[name] += count
    assert counts == {name: one.updates for name, one in simulation.levels.items()}
    assert counts == {one.name: wide.schedule.updates(one.clock, wish) for one in wish.levels}
    found = _weights_of(trainer)
    assert found.keys() == simulation.weights.keys()
    for name, value in simulation.weights.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-11, atol=1e-12, msg=name)


# --------------------------------------------------------------------------- resuming


POLICIES: dict[str, list[dict[str, Any]]] = {
    "carry": [{"clock": (5, "token", 0, "carry")}, {"clock": (3, "step", 0, "carry")}],
    "drop": [{"clock": (5, "token", 2, "drop")}, {"clock": (4, "step", 1, "drop")}],
    "flush": [{"clock": (3, "token", 0, "flush")}, {"clock": (4, "step", 0, "flush")}],
    "sum": [{"reduce": "sum", "clock": (11, "token", 0, "carry")}, {"reduce": "sum", "clock": (4, "step")}],
    "last": [{"reduce": "last", "clock": (4, "step")}, {"reduce": "last", "clock": (12, "token")}],
    "learned": [
        {"start": "learned in slow", "reset": "with slow", "clock": (2, "step")},
        {"clock": (4, "step")},
    ],
    "copy": [
        {"start": "copy of slow", "reset": "every 2 steps", "clock": (1, "step")},
        {"clock": (4, "step")},
    ],
    "first": [{"reset": "every 12 tokens", "clock": (3, "token")}, {"reset": "with fast"}],
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_run_resumed_in_a_period_is_the_run_that_did_not_stop(
    build: Build, tmp_path: Path, policy: str, stop: int
) -> None:
    plain = {"rule": "adamw", "clock": (1, "step"), "reduce": "mean", "start": "", "reset": ""}
    changed: dict[str, dict[str, Any]] = dict(zip(("fast", "slow"), POLICIES[policy], strict=True))
    spelled = [plain | {"name": name} | changed.get(name, {}) for name in ("rest", "fast", "slow")]
    wish = _made(build, spelled)
    whole, parts = build.loop.Trainer(wish, CPU), build.loop.Trainer(wish, CPU)
    for _ in range(STEPS):
        whole.train_step()
    for _ in range(stop):
        parts.train_step()
    path = tmp_path / "checkpoint.pt"
    build.checkpoint.save(path, parts.state_dict())
    torch.rand(3)
    resumed = build.loop.Trainer(wish, CPU)
    resumed.load_state_dict(build.checkpoint.load(path), path)
    for _ in range(stop, STEPS):
        resumed.train_step()
    _equal(_weights_of(resumed), _weights_of(whole))


def test_a_checkpoint_with_other_starts_is_refused(build: Build, tmp_path: Path) -> None:
    other = {"name": "rest", "rule": "gd", "clock": (1, "step"), "reduce": "mean", "start": "", "reset": ""}
    fast = other | {"name": "fast", "start": "learned in slow", "reset": "with slow"}
    slow = other | {"name": "slow"}
    path = tmp_path / "checkpoint.pt"
    build.checkpoint.save(path, build.loop.Trainer(_made(build, [other, fast, slow]), CPU).state_dict())
    trainer = build.loop.Trainer(_made(build, [other, fast | {"start": ""}, slow]), CPU)
    with pytest.raises(build.schedule.UserError, match="level `slow` held other weights"):
        trainer.load_state_dict(build.checkpoint.load(path), path)


def test_loading_leaves_no_name_behind(make_folder: Any) -> None:
    assert load(make_folder("other")).starts.Start.__module__ != "starts"
