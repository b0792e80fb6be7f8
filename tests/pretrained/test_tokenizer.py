"""Texts that a tokenizer's file reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import nldsl
from nldsl.run.folder import Build, load

SPEC = """
edition 2026
model Small(dim = 8, vocab = 300) { tokens |> embed(vocab, dim) |> rmsnorm |> unembed(tied) }
train Run {
  model = Small
  data  = text("words.txt", tokenizer = file("tokenizer.json"), length = 16, batch = 2)
  steps = 2
  level all { learns = rest, rule = adamw(rate = 1e-2) }
  eval every 2 steps { bits_per_byte, perplexity }
}
"""
TEXT = "Où est le chat? The cat sat on the mat, and the hat sat on the cat. " * 60


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Build]:
    """`make(spec)`: a build with a text and a tokenizer of 300 tokens that was trained on it."""

    def build(spec: str = SPEC) -> Build:
        (tmp_path / "small.nl").write_text(spec, encoding="utf-8")
        (tmp_path / "words.txt").write_text(TEXT, encoding="utf-8")
        nldsl.load(tmp_path / "small.nl").compile(tmp_path / "build")
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
        made.train_from_iterator([TEXT], trainer)
        made.save(str(tmp_path / "build" / "tokenizer.json"))
        return load(tmp_path / "build")

    return build


def test_a_stream_says_the_text_in_fewer_tokens(make: Callable[..., Build]) -> None:
    build = make()
    words = build.tokens.tokenizer("tokenizer.json", build.folder)
    stream = words.stream(TEXT.encode())
    assert stream.dtype == torch.int32
    assert len(stream) < len(TEXT) / 3
    assert "".join(words.decode(stream.tolist())) == TEXT
    assert words.encode("the cat").tolist() == words.reader.encode("the cat").ids
    two = words.stream(b"the cat\fthe hat")
    assert "".join(words.decode(two.tolist())) == "the cat\fthe hat"


def test_documents_end_with_their_separator(make: Callable[..., Build], tmp_path: Path) -> None:
    words = make().tokens.tokenizer("tokenizer.json", tmp_path / "build")
    stream, ends = words.cut(b"the cat\f\fthe hat and the hat")
    pieces = [
        "".join(words.decode(stream[begin:end].tolist()))
        for begin, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
    assert pieces == ["the cat\f", "\f", "the hat and the hat"]
    assert len(stream) == ends[-1]


def test_held_out_losses_of_tokens_by_document(make: Callable[..., Build], tmp_path: Path) -> None:
    build = make()
    path = build.folder / "words.txt"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:-60] + "\f" + text[-60:], encoding="utf-8")
    result = build.train.train(build.settings, device="cpu", out=tmp_path / "run", listen=lambda _: None)
    found = result.documents
    assert [one["name"] for one in found.units] == ["document 1", "document 2"]
    assert found.loss == pytest.approx(result.loss_after, rel=0, abs=1e-12)
    corpus = build.data.load(build.settings.data, build.folder)
    assert corpus.held_out[: corpus.ends[0]].tolist()[-1:] == _words_of(build, "\f")


def _words_of(build: Build, text: str) -> list[int]:
    """Its tokens."""
    return build.tokens.tokenizer("tokenizer.json", build.folder).encode(text).tolist()


def test_a_run_counts_tokens_and_says_bits_for_bytes(make: Callable[..., Build], tmp_path: Path) -> None:
    build = make()
    events: list[dict[str, object]] = []
    result = build.train.train(build.settings, device="cpu", out=tmp_path / "run", listen=events.append)
    held_out = TEXT.encode()[-round(len(TEXT.encode()) / 10) :]
    tokens = build.tokens.tokenizer("tokenizer.json", build.folder).stream(held_out)
    expected = result.loss_after / math.log(2) * len(tokens) / len(held_out)
    assert result.measures["bits_per_byte"] == pytest.approx(expected, rel=1e-12)
    assert 0 < result.baselines["bigram"] < result.baselines["unigram"] < math.log(300)
    sample = next(event["text"] for event in events if event["event"] == "sample")
    assert str(sample).startswith("The ")


def test_what_cannot_be_read(make: Callable[..., Build]) -> None:
    build = make()
    for name, words in (("other.json", "there is no tokenizer `other.json`"), ("words.txt", "no tokenizer:")):
        with pytest.raises(build.schedule.UserError) as caught:
            build.tokens.tokenizer(name, build.folder)
        assert words in caught.value.message
    with pytest.raises(build.schedule.UserError) as caught:
        build.data.check_vocabulary(build.data.load(build.settings.data, build.folder), 200)
    assert "has a token numbered" in caught.value.message


def test_a_needle_takes_bytes(make: Callable[..., Build]) -> None:
    build = make(SPEC.replace("{ bits_per_byte, perplexity }", "{ needle(length = 64) }"))
    with pytest.raises(build.schedule.UserError) as caught:
        build.train.train(build.settings, device="cpu")
    assert "byte by byte" in caught.value.message


@pytest.mark.parametrize("given", ["file(tokens)", "file()", 'file("tokenizer.model")'])
def test_a_tokenizer_is_a_json_file(given: str, tmp_path: Path) -> None:
    path = tmp_path / "small.nl"
    path.write_text(SPEC.replace('file("tokenizer.json")', given), encoding="utf-8")
    assert [found.code for found in nldsl.check(path)] == ["NL0203"]
