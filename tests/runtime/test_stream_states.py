"""States of streams as files, and their averages."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.run.folder import Build
from tests.runtime.streaming import same

FLUSH_DENORMAL = True


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize("position", [3, 8, 16, 21, 37])
def test_a_saved_stream_goes_on_bit_for_bit(build: Build, model, text, two, tmp_path: Path, position) -> None:
    stream = build.streams.Stream(model, two)
    stream.feed(text[:position])
    stream.save(tmp_path / "state.pt")
    logits = stream.feed(text[position:])
    other = build.streams.Stream(model, two)
    other.load(tmp_path / "state.pt")
    assert torch.equal(other.feed(text[position:]), logits)
    assert same(other.state_dict(), stream.state_dict())


def test_a_state_that_does_not_fit_is_refused(build: Build, model, text, two, tmp_path: Path) -> None:
    stream, path = build.streams.Stream(model, two), tmp_path / "state.pt"
    stream.feed(text[:20])
    stream.save(path)
    error = build.schedule.UserError

    def load(other: torch.nn.Module, settings: Any, **options: Any) -> None:
        fresh = build.streams.Stream(other, settings, **options)
        before = fresh.state_dict()
        try:
            fresh.load(path)
        finally:
            assert same(fresh.state_dict(), before)

    with pytest.raises(error, match="saved by `Toy`, and this is `Other`"):
        load(model, dataclasses.replace(two, name="Other"))
    smaller = build.checkpoint.construct({"vocab": 128, "dim": 4}).double()
    with pytest.raises(error, match="the size `dim` is 8 there and 4 here"):
        load(smaller, dataclasses.replace(two, model={"vocab": 128, "dim": 4}))
    with pytest.raises(error, match="the tokens of a step is 16 there and 8 here"):
        load(model, dataclasses.replace(two, data=dataclasses.replace(two.data, length=8)))
    fast = dataclasses.replace(two.levels[1], clock=build.schedule.Clock(4, "token"))
    slow = dataclasses.replace(two.levels[2], rule="gd")
    with pytest.raises(error, match="level `fast` has another clock"):
        load(model, dataclasses.replace(two, levels=(two.levels[0], fast, two.levels[2])))
    with pytest.raises(error, match="level `slow` has another rule"):
        load(model, dataclasses.replace(two, levels=(*two.levels[:2], slow)))
    with pytest.raises(error, match="level `fast` learns only there"):
        load(model, two, learn=False)
    torch.manual_seed(5)
    other = build.checkpoint.construct({"vocab": 128, "dim": 8}).double()
    with pytest.raises(error, match="the weights of the model are others"):
        load(other, two)


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"hello"])
def test_a_damaged_state_is_refused_and_kept(build: Build, model, text, two, tmp_path: Path, damage) -> None:
    stream, path = build.streams.Stream(model, two), tmp_path / "state.pt"
    stream.feed(text[:20])
    stream.save(path)
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(build.schedule.UserError, match=r"is damaged: it has .* no whole state of a stream"):
        stream.load(path)
    assert path.read_bytes() == before


def test_other_files_and_broken_numbers_are_refused(build: Build, model, text, two, tmp_path: Path) -> None:
    stream, path = build.streams.Stream(model, two), tmp_path / "state.pt"
    error = build.schedule.UserError
    with pytest.raises(error, match="there is no state of a stream"):
        stream.load(path)
    build.checkpoint.save(path, {"weights": {}})
    with pytest.raises(error, match="is no state of a stream of this program"):
        stream.load(path)
    stream.feed(text[:20])
    with torch.no_grad():
        stream.levels[0].weights["fast.bias"][2] = float("nan")
    stream.save(path)
    with pytest.raises(error, match=r"holds numbers that are not finite: `levels.fast.weights.fast.bias`"):
        build.streams.Stream(model, two).load(path)


def test_a_state_cannot_be_written_everywhere(build: Build, model, text, two, tmp_path: Path) -> None:
    stream = build.streams.Stream(model, two)
    stream.feed(text[:5])
    with pytest.raises(build.schedule.UserError, match="cannot write") as caught:
        stream.save(tmp_path / "none" / "state.pt")
    assert caught.value.code == 2


# --------------------------------------------------------------------------- averages


def test_the_average_of_copies_is_the_copy(build: Build, model, text, two) -> None:
    stream = build.streams.Stream(model, two)
    stream.feed(text[:37])
    mean = build.streams.average([stream, stream.fork(), stream.fork()])
    assert torch.equal(mean.feed(text[37:]), stream.feed(text[37:]))


def test_an_average_is_the_mean_of_weights_and_memories(build: Build, model, two) -> None:
    texts = [torch.randint(97, 110, (40,)) for _ in range(2)]
    streams = [build.streams.Stream(model, two) for _ in texts]
    for stream, text in zip(streams, texts, strict=True):
        stream.feed(text)
    mean = build.streams.average([stream.new_sequence() for stream in streams])
    for index, one in enumerate(mean.levels):
        for name, weight in one.weights.items():
            parts = [stream.levels[index].weights[name].detach() for stream in streams]
            torch.testing.assert_close(weight.detach(), (parts[0] + parts[1]) / 2, rtol=1e-12, atol=0)
    with pytest.raises(build.schedule.UserError, match="cannot be averaged: `open` has no mean"):
        build.streams.average(streams)


def test_averages_that_mean_nothing_are_refused(build: Build, model, text, two) -> None:
    streams = [build.streams.Stream(model, two) for _ in range(2)]
    streams[0].feed(text[:20])
    streams[1].feed(text[:30])
    error = build.schedule.UserError
    with pytest.raises(error, match="states after 20 and 30 tokens cannot be averaged"):
        build.streams.average(streams)
    with pytest.raises(error, match="there is no stream to average"):
        build.streams.average([])
    other = build.streams.Stream(model, dataclasses.replace(two, name="Other"))
    with pytest.raises(error, match="cannot be averaged: it was saved by `Other`"):
        build.streams.average([streams[0], other])
