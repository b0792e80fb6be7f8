"""Clocks, rates and amendments of settings."""

from __future__ import annotations

import dataclasses
import doctest
import math
from pathlib import Path

import pytest

from nldsl.run.folder import Build, load


@pytest.fixture
def s(build: Build):
    return build.schedule


def test_examples_in_docstrings_run(build: Build) -> None:
    for name in ("schedule", "data", "generate", "session"):
        failed, tried = doctest.testmod(build.modules[name])
        assert (failed, tried > 0) == (0, True), name


@pytest.mark.parametrize(
    ("period", "offset", "first"), [(4, 0, [4, 8, 12]), (4, 6, [6, 10, 14]), (1, 0, [1, 2, 3])]
)
def test_a_clock_is_due_every_period_after_its_offset(s, period: int, offset: int, first: list[int]) -> None:
    steps = [n for n in range(40) if s.due(s.Clock(period, "step", offset), 8 * n, 8)]
    assert steps[:3] == first
    assert [n for n in range(40) if s.due(s.Clock(period, "token", offset), n, 8)] == steps
    assert not any(s.due(s.Clock(1, "step"), position, 8) for position in range(8))


def test_rates_warm_up_and_go_down_to_the_floor(s) -> None:
    rate = s.Rate(2.0, warmup=10, shape="cosine", floor=0.1)
    assert rate.at(0, 110) == 0.2
    assert rate.at(10, 110) == 2.0
    assert rate.at(60, 110) == pytest.approx(2.0 * 0.55)
    assert rate.at(110, 110) == pytest.approx(0.2)
    assert s.Rate(2.0, shape="linear", floor=0.5).at(50, 100) == pytest.approx(1.5)
    assert s.Rate(2.0).at(10**6, 100) == 2.0


def test_rates_stay_finite_when_the_warm_up_outlasts_the_run(s) -> None:
    rate = s.Rate(1.0, warmup=100, shape="cosine")
    assert all(math.isfinite(rate.at(step, 10)) for step in range(11))


def _with_clocks(build: Build, *clocks, length: int = 64):
    s, settings = build.schedule, build.settings
    levels = tuple(dataclasses.replace(settings.levels[i], clock=clock) for i, clock in enumerate(clocks))
    data = dataclasses.replace(settings.data, length=length)
    return dataclasses.replace(settings, levels=levels, data=data, steps=100), s


def test_sequences_are_cut_where_token_clocks_are_due(build: Build) -> None:
    clock = build.schedule.Clock
    for clocks, expected in [
        ((clock(1), clock(4)), [[64], [64]]),
        ((clock(16, "token"), clock(4)), [[16, 32, 48, 64]] * 2),
        ((clock(32, "token"), clock(16, "token", 16)), [[16, 32, 48, 64]] * 2),
        ((clock(128, "token"), clock(4)), [[64], [64]]),
        ((clock(32, "token", 16), clock(4)), [[16, 48, 64]] * 2),
        ((clock(48, "token"), clock(4)), [[48, 64], [32, 64]]),
        ((clock(48, "token", 0, "drop"), clock(4)), [[48, 64]] * 2),
        ((clock(48, "token", 0, "flush"), clock(24, "token")), [[24, 48, 64], [8, 32, 48, 56, 64]]),
    ]:
        settings, s = _with_clocks(build, *clocks)
        assert [s.cuts(settings, step) for step in range(2)] == expected
    assert s.segment_lengths(settings) == (8, 24)


@pytest.mark.parametrize("period", [1, 3, 8, 20])
@pytest.mark.parametrize("offset", [0, 1, 5, 9])
@pytest.mark.parametrize("unit", ["step", "token"])
@pytest.mark.parametrize("partial", ["carry", "drop", "flush"])
def test_updates_are_counted_as_the_clock_gives_them(
    build: Build, period: int, offset: int, unit: str, partial: str
) -> None:
    s = build.schedule
    clock = s.Clock(period, unit, offset, partial)
    settings = dataclasses.replace(build.settings, steps=13)
    moments = range(1, 13 * 16 + 1)
    assert s.updates(clock, settings) == sum(s.due(clock, n, 16, ends=n == 13 * 16) for n in moments)


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        ((65, "token", 0, "drop"), "begins anew with each sequence of 64 tokens"),
        ((4, "token", 0, "cary"), "cannot `cary`"),
        ((0, "step"), "the period of level"),
        ((4, "step", -1), "the offset of level"),
    ],
)
def test_clocks_that_make_no_sense_are_errors(build: Build, clock: tuple, words: str) -> None:
    settings, s = _with_clocks(build, build.schedule.Clock(1), build.schedule.Clock(*clock))
    with pytest.raises(s.UserError, match=words):
        s.validate(settings)


def test_levels_that_a_run_never_changes_are_named(build: Build) -> None:
    settings, s = _with_clocks(build, build.schedule.Clock(1), build.schedule.Clock(101))
    s.validate(settings)
    assert [words.split(";")[0] for words in s.idle_levels(settings)] == [
        "level `slow` changes every 101 steps and is never due in a run of 100 steps"
    ]
    settings, s = _with_clocks(build, build.schedule.Clock(1), build.schedule.Clock(100))
    assert s.idle_levels(settings) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": "taught by pretrain"}, "cannot start `taught by pretrain`"),
        ({"start": "learned in slow"}, "leans on `slow`, which is no other level"),
        ({"start": "copy of nobody"}, "leans on `nobody`"),
        ({"reset": "often"}, "cannot reset `often`"),
        ({"reset": "with slow"}, "leans on `slow`"),
    ],
)
def test_starts_and_resets_that_make_no_sense_are_errors(build: Build, changes: dict, words: str) -> None:
    first, slow = build.settings.levels
    settings = dataclasses.replace(build.settings, levels=(first, dataclasses.replace(slow, **changes)))
    with pytest.raises(build.schedule.UserError, match=words):
        build.schedule.validate(settings)


def test_levels_that_wait_for_each_other_are_an_error(build: Build) -> None:
    first, slow = build.settings.levels
    levels = (
        dataclasses.replace(first, reset="with slow"),
        dataclasses.replace(slow, start="learned in pretrain"),
    )
    with pytest.raises(build.schedule.UserError, match="wait for each other's starts or resets"):
        build.schedule.validate(dataclasses.replace(build.settings, levels=levels))


def test_two_levels_of_one_name_are_an_error(build: Build) -> None:
    settings = dataclasses.replace(build.settings, levels=(build.settings.levels[0],) * 2)
    with pytest.raises(build.schedule.UserError, match="two levels are called `pretrain`"):
        build.schedule.validate(settings)


@pytest.mark.parametrize(
    ("path", "text", "read"),
    [
        ("steps", "1_000", lambda x: x.steps == 1000),
        ("data.batch", "2", lambda x: x.data.batch == 2),
        ("data.source", "other.txt", lambda x: x.data.source == "other.txt"),
        ("model.dim", "16", lambda x: x.model["dim"] == 16),
        ("levels.slow.rate", "1e-4", lambda x: x.level("slow").rate.base == 1e-4),
        ("levels.slow.rate.warmup", "7", lambda x: x.level("slow").rate.warmup == 7),
        ("levels.slow.rate.shape", "linear", lambda x: x.level("slow").rate.shape == "linear"),
        ("levels.slow.clock", "every 8 steps", lambda x: x.level("slow").clock.period == 8),
        ("levels.slow.clock", "32 tokens offset 8", lambda x: x.level("slow").clock.offset == 8),
        ("levels.slow.clock", "9 tokens flush", lambda x: x.level("slow").clock.partial == "flush"),
        ("levels.slow.reset", "every 2 steps", lambda x: x.level("slow").resets.period == 2),
        ("levels.slow.reduce", "sum", lambda x: x.level("slow").reduce == "sum"),
        ("levels.slow.period", "3", lambda x: x.level("slow").options["period"] == 3),
        ("levels.pretrain.decay", "0", lambda x: x.level("pretrain").options["decay"] == 0.0),
        ("clip", "none", lambda x: x.clip is None),
        ("clip", "2", lambda x: x.clip == 2.0),
        ("evaluate_windows", "256", lambda x: x.most_windows == 256),
        ("evaluate_windows", "all", lambda x: x.evaluate_windows == "all" and x.most_windows > 2**53),
        ("compile", "off", lambda x: x.compile is None),
        ("compile", "true", lambda x: x.compile is True),
        ("precision", "bfloat16", lambda x: x.precision == "bfloat16"),
        ("no_decay", "*bias, *scale", lambda x: x.no_decay == ("*bias", "*scale")),
        ("sample.top_k", "none", lambda x: x.sample.top_k is None),
    ],
)
def test_one_setting_is_replaced(build: Build, path: str, text: str, read) -> None:
    assert read(build.amend.override(build.settings, path, text))


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("stepz", "1", "did you mean `steps`"),
        ("data.bach", "1", "did you mean `batch`"),
        ("levels.slo.rate", "1", "did you mean `slow`"),
        ("levels.slow.perid", "1", "did you mean `period`"),
        ("levels.slow", "1", "is a whole level"),
        ("levels", "1", "is a group of settings"),
        ("data", "1", "is a group of settings"),
        ("steps", "many", "the value is a whole number"),
        ("steps", "1.5", "the value is a whole number"),
        ("evaluate_windows", "most", "the value is a whole number or `all`"),
        ("evaluate_windows", "0.5", "the value is a whole number or `all`"),
        ("steps.more", "1", "`steps` is one value"),
        ("precision", "float16", "`float32` or `bfloat16` or `auto`"),
        ("levels.slow.clock", "often", "is not a clock"),
        ("model.width", "3", "known here: `vocab`, `dim`"),
    ],
)
def test_what_cannot_be_set_is_said(build: Build, path: str, text: str, words: str) -> None:
    with pytest.raises(build.schedule.UserError) as caught:
        build.amend.override(build.settings, path, text)
    assert words in str(caught.value)
    assert caught.value.code == 2


def test_folders_do_not_share_their_modules(make_folder) -> None:
    one, two = load(make_folder("one")), load(make_folder("two"))
    assert one.schedule is not two.schedule
    assert one.settings.__class__ is not two.settings.__class__
    assert Path(one.train.HERE if hasattr(one.train, "HERE") else one.session.HERE).name == "one"
