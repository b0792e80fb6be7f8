"""Text: windows, splits, baselines, and what can be wrong with a file."""

from __future__ import annotations

import dataclasses
import itertools
import json
import lzma
import math
from pathlib import Path

import pytest
import torch

from nldsl.run.folder import Build


@pytest.fixture
def data(build: Build):
    return build.data


def _load(build: Build, **changes):
    return build.data.load(dataclasses.replace(build.settings.data, **changes))


def test_every_window_is_given_once_an_epoch(data) -> None:
    stream = torch.arange(103, dtype=torch.uint8)
    sampler = data.Sampler(stream, 10, 1, seed=3)
    for _ in range(3):
        starts = sorted(int(sampler.next()[0, 0]) for _ in range(9))
        assert [b - a for a, b in itertools.pairwise(starts)] == [10] * 8
    window = sampler.next()
    assert window.shape == (1, 11)
    assert torch.equal(window[0], torch.arange(11) + window[0, 0])


@pytest.mark.parametrize("size", [11, 12, 19, 20, 21, 30])
def test_windows_stay_inside_short_texts(data, size: int) -> None:
    sampler = data.Sampler(torch.arange(size, dtype=torch.uint8), 10, 2, seed=0)
    for _ in range(20):
        assert sampler.next().shape == (2, 11)


def test_the_order_is_fixed_by_the_seed(data) -> None:
    stream = torch.randint(256, (500,), dtype=torch.uint8)

    def read(seed: int) -> list[torch.Tensor]:
        sampler = data.Sampler(stream, 16, 4, seed)
        return [sampler.next() for _ in range(12)]

    assert all(torch.equal(a, b) for a, b in zip(read(1), read(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(read(1), read(2), strict=True))


def test_a_sampler_goes_on_where_another_stood(data) -> None:
    stream = torch.randint(256, (500,), dtype=torch.uint8)
    whole = data.Sampler(stream, 16, 4, 1)
    batches = [whole.next() for _ in range(20)]
    first, second = data.Sampler(stream, 16, 4, 1), data.Sampler(stream, 16, 4, 1)
    for _ in range(11):
        first.next()
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(second.next(), want) for want in batches[11:])


def test_a_sampler_refuses_the_position_of_another_text(build: Build) -> None:
    stream = torch.zeros(500, dtype=torch.uint8)
    state = build.data.Sampler(stream, 16, 4, 1).state_dict()
    with pytest.raises(build.schedule.UserError, match="length 16, and this run has 8"):
        build.data.Sampler(stream, 8, 4, 1).load_state_dict(state)


def test_held_out_windows_are_in_order(build: Build) -> None:
    corpus = _load(build)
    windows = build.data.held_out_windows(corpus, 16, 1000)
    assert torch.equal(windows[:, :-1].flatten(), corpus.held_out[: len(windows) * 16].long())
    assert len(build.data.held_out_windows(corpus, 16, 5)) == 5


def test_the_tail_is_held_out(build: Build) -> None:
    corpus = _load(build)
    assert (len(corpus.train), len(corpus.held_out)) == (3600, 400)
    assert len(_load(build, split="tail(0.25)").held_out) == 1000
    assert len(_load(build, split="auto").held_out) == 400


def test_a_manifest_holds_out_its_documents(build: Build) -> None:
    documents = [bytes([97 + i]) * 40 for i in range(20)]
    text = b"\f".join(documents)
    (build.folder / "tales.txt.xz").write_bytes(lzma.compress(text))
    offsets = [text.index(document) for document in documents]
    manifest = {
        "split": {"every": 10, "remainder": 9},
        "documents": [{"offset": o, "bytes": 40} for o in offsets],
    }
    (build.folder / "tales.json").write_text(json.dumps(manifest))
    corpus = _load(build, source="tales", split="manifest")
    assert bytes(corpus.held_out.tolist()) == b"\f".join((documents[9], documents[19]))
    assert len(corpus.train) == 18 * 40 + 17

    (build.folder / "tales.json").write_text("{}")
    with pytest.raises(build.schedule.UserError, match="is damaged"):
        _load(build, source="tales", split="manifest")
    (build.folder / "tales.txt.xz").write_bytes(b"no archive")
    with pytest.raises(build.schedule.UserError, match="is damaged"):
        _load(build, source="tales", split="manifest")


def test_baselines_are_those_of_counting(build: Build) -> None:
    train, held_out = b"aabab" * 3, b"abba"
    corpus = build.data.Corpus(
        "x", *(torch.tensor(list(text), dtype=torch.uint8) for text in (train, held_out))
    )
    single = {b: (train.count(b) + 1) / (len(train) + 256) for b in range(256)}
    pairs = list(itertools.pairwise(train))

    def follows(a: int, b: int) -> float:
        kinds = len({y for x, y in pairs if x == a})
        return (pairs.count((a, b)) + kinds * single[b]) / (sum(x == a for x, _ in pairs) + kinds)

    asked = list(itertools.pairwise(held_out))
    found = build.data.baselines(corpus)
    assert found["unigram"] == pytest.approx(-sum(math.log(single[b]) for _, b in asked) / 3)
    assert found["bigram"] == pytest.approx(-sum(math.log(follows(a, b)) for a, b in asked) / 3)
    windows = corpus.held_out.long()[None]
    assert build.data.baselines(corpus, windows) == pytest.approx(found)


def test_baselines_are_finite_for_bytes_never_seen(build: Build) -> None:
    corpus = build.data.Corpus(
        "x", torch.zeros(9, dtype=torch.uint8), torch.full((9,), 200, dtype=torch.uint8)
    )
    assert all(math.isfinite(value) for value in build.data.baselines(corpus).values())


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        (None, {}, "there is no text `mine.txt`"),
        (b"", {}, "is empty"),
        (b"x" * 30, {}, "the held-out part of mine.txt has 3 bytes, and one window takes 17"),
        (b"x" * 400, {"split": "manifest"}, "has no manifest"),
        (b"x" * 400, {"split": "head"}, "no way to hold out text"),
        (b"x" * 400, {"split": "tail(2)"}, "no way to hold out text"),
        (b"x" * 400, {"tokenizer": "words"}, "there is no tokenizer `words`"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(
    build: Build, content: bytes | None, changes: dict, words: str
) -> None:
    if content is not None:
        (build.folder / "mine.txt").write_bytes(content)
    with pytest.raises(build.schedule.UserError) as caught:
        _load(build, source="mine.txt", **changes)
    assert words in caught.value.message
    assert caught.value.help


def test_a_folder_is_no_text(build: Build, tmp_path: Path) -> None:
    with pytest.raises(build.schedule.UserError, match="is a folder"):
        _load(build, source=str(tmp_path))


def test_bytes_that_are_not_utf8_are_read_with_a_warning(build: Build) -> None:
    (build.folder / "mine.txt").write_bytes(b"abc\xff" * 200)
    corpus = _load(build, source="mine.txt")
    assert "not UTF-8 (byte 3)" in corpus.warnings[0]
    with pytest.raises(build.schedule.UserError, match=r"128 tokens, and mine.txt has a byte of value 255"):
        build.data.check_vocabulary(corpus, 128)
    build.data.check_vocabulary(corpus, 256)
