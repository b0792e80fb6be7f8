"""Held-out losses by document: what belongs to which, and that together they are the held-out loss."""

from __future__ import annotations

import dataclasses
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import log_softmax

from nldsl.run.folder import Build

SIZES = (50, 90, 33, 120, 41, 77, 64, 39)


def _corpus(folder: Path, every: int = 2) -> list[bytes]:
    """`tales`: eight documents, of which every second one is held out; returns their bytes."""
    letters = "abcdefghijklmnopqrstuvwxyz "
    texts = [
        bytes(ord(letters[(7 * i + j * j) % len(letters)]) for j in range(size))
        for i, size in enumerate(SIZES)
    ]
    entries, offset = [], 0
    for index, text in enumerate(texts):
        entries.append(
            {"offset": offset, "bytes": len(text), "date": f"18{index:02}-05-03", "author": "A. Writer"}
        )
        offset += len(text) + 1
    (folder / "tales.txt.xz").write_bytes(lzma.compress(b"\f".join(texts)))
    manifest = {"split": {"every": every, "remainder": every - 1}, "documents": entries}
    (folder / "tales.json").write_text(json.dumps(manifest))
    return texts


def _trainer(build: Build, windows: Any = 1000, **data: Any) -> Any:
    given = {"source": "tales", "split": "manifest", "length": 16, "batch": 3} | data
    settings = dataclasses.replace(
        build.settings,
        data=dataclasses.replace(build.settings.data, **given),
        evaluate_windows=windows,
    )
    return build.loop.Trainer(settings, torch.device("cpu"))


def test_every_token_is_counted_with_the_document_in_which_it_stands(build: Build) -> None:
    texts = _corpus(build.folder)
    trainer = _trainer(build)
    found = trainer.evaluate_documents()
    assert found.unit == "document"
    assert [one["name"] for one in found.units] == [f"18{i:02}-05-03 A. Writer" for i in (1, 3, 5, 7)]

    # Token by token: the document of a byte, and what the model gives it in its window.
    held_out = [texts[i] for i in (1, 3, 5, 7)]
    owner = [i for i, text in enumerate(held_out) for _ in range(len(text) + 1)][:-1]
    stream = list(b"\f".join(held_out))
    sums, tokens, right = [0.0] * 4, [0] * 4, [0] * 4
    with torch.no_grad():
        for start in range(0, len(stream) - 16, 16):
            logits, _ = trainer.model(torch.tensor([stream[start : start + 16]]), None)
            for place in range(16):
                target = stream[start + place + 1]
                sums[owner[start + place + 1]] -= float(log_softmax(logits[0, place].double(), -1)[target])
                right[owner[start + place + 1]] += int(logits[0, place].argmax()) == target
                tokens[owner[start + place + 1]] += 1
    assert [one["tokens"] for one in found.units] == tokens
    assert [one["loss"] for one in found.units] == pytest.approx(
        [a / b for a, b in zip(sums, tokens, strict=True)], rel=1e-6
    )
    assert [one["accuracy"] for one in found.units] == [a / b for a, b in zip(right, tokens, strict=True)]


@pytest.mark.parametrize(
    ("data", "unit", "count"),
    [
        ({}, "document", 4),
        ({"split": "tail(0.5)"}, "document", 5),  # the first of them is cut
        ({"source": "letters.txt", "split": "tail"}, "window", 24),
    ],
)
def test_the_mean_by_tokens_is_the_loss_of_the_run(
    build: Build, data: dict[str, Any], unit: str, count: int
) -> None:
    _corpus(build.folder)
    trainer = _trainer(build, **data)
    measured = trainer.evaluate()
    found = trainer.evaluate_documents()
    assert (found.unit, len(found.units)) == (unit, count)
    assert found.loss == pytest.approx(measured["loss"], rel=0, abs=1e-12)
    assert found.accuracy == pytest.approx(measured["accuracy"], rel=0, abs=1e-12)
    assert sum(one["tokens"] for one in found.units) == trainer.course.questions_asked


@pytest.mark.parametrize(("windows", "measured"), [(1, 1), (5, 5), (1000, 20), ("all", 20)])
def test_documents_are_measured_by_as_many_windows_as_are_asked_for(
    build: Build, windows: Any, measured: int
) -> None:
    """Of 326 tokens held out, 20 windows of 16 have a next token each."""
    _corpus(build.folder)
    trainer = _trainer(build, windows)
    assert len(trainer.course.windows) == measured
    assert sum(one["tokens"] for one in trainer.evaluate_documents().units) == 16 * measured


def test_documents_of_one_name_stay_apart(build: Build) -> None:
    _corpus(build.folder)
    manifest = json.loads((build.folder / "tales.json").read_text())
    manifest["documents"][3]["date"] = manifest["documents"][1]["date"]  # both are held out
    (build.folder / "tales.json").write_text(json.dumps(manifest))
    names = [one["name"] for one in _trainer(build).evaluate_documents().units]
    assert names[:2] == ["1801-05-03 A. Writer", "1801-05-03 A. Writer (2)"]
    tasks = (build.schedule.Task("early", "tales", years=(1800, 1803)),)
    trainer = _trainer(build, source="", split="auto", tasks=tasks, each=3, order="sequence")
    assert [one["name"] for one in trainer.evaluate_documents().units] == [f"early: {n}" for n in names[:2]]


def test_windows_of_other_lengths_are_other_windows(build: Build) -> None:
    _corpus(build.folder)
    of_text = {"source": "letters.txt", "split": "tail"}
    short, long = (
        [one["name"] for one in _trainer(build, **of_text, length=length).evaluate_documents().units]
        for length in (16, 32)
    )
    assert short[:2] == ["window 0 to 16", "window 16 to 32"]
    assert long[0] == "window 0 to 32"
    assert not set(short) & set(long)


def test_a_run_that_is_done_hands_them_over_without_another_pass(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    _corpus(build.folder)
    settings = dataclasses.replace(
        build.settings, data=dataclasses.replace(build.settings.data, source="tales", split="manifest")
    )
    passes: list[int] = []
    answer = build.measures.answer
    monkeypatch.setattr(build.measures, "answer", lambda *a, **k: passes.append(1) or answer(*a, **k))
    result = build.train.train(settings, device="cpu", listen=lambda _: None)
    assert len(passes) == 3  # at steps 0, 3 and 6
    assert result.documents.loss == pytest.approx(result.loss_after, abs=1e-12)
    again = build.train.train(settings, device="cpu", out=result.folder, resume=True, listen=lambda _: None)
    assert again.documents == result.documents


def test_after_another_step_they_are_measured_anew(build: Build) -> None:
    _corpus(build.folder)
    trainer = _trainer(build)
    before = trainer.evaluate_documents()
    trainer.train_step()
    assert trainer.evaluate_documents().loss != before.loss
    assert trainer.evaluate_documents().loss == pytest.approx(trainer.evaluate()["loss"], abs=1e-12)


def test_items_of_tasks(build: Build) -> None:
    lines = "".join(f"{'abc'[i % 3]}\t{'xyz'[i % 3] * 3}{i}\n" for i in range(45))
    (build.folder / "labels.tsv").write_text(lines)
    tasks = tuple(build.schedule.Task(label, "labels.tsv", kind="classes", labels=(label,)) for label in "ab")
    settings = dataclasses.replace(
        build.settings,
        model={"vocab": 300, "dim": 8},
        data=build.schedule.Data("", 16, 4, tasks=tasks, each=3, counts="answer"),
    )
    trainer = build.loop.Trainer(settings, torch.device("cpu"))
    found = trainer.evaluate_documents()
    assert found.unit == "item"
    assert [one["name"] for one in found.units] == [f"{x}: item {i}" for x in "ab" for i in (1, 2, 3)]
    assert all(one["tokens"] == 1 for one in found.units)  # the label is all that counts
    assert found.loss == pytest.approx(trainer.evaluate()["loss"], abs=1e-12)


def test_texts_as_tasks(build: Build) -> None:
    _corpus(build.folder)
    tasks = (
        build.schedule.Task("early", "tales", years=(1800, 1803)),
        build.schedule.Task("late", "tales", years=(1804, 1807)),
    )
    trainer = _trainer(build, source="", split="auto", tasks=tasks, each=3, order="sequence")
    found = trainer.evaluate_documents()
    assert found.unit == "document"
    assert [one["name"] for one in found.units] == [
        f"{task}: 18{i:02}-05-03 A. Writer"
        for task, i in (("early", 1), ("early", 3), ("late", 5), ("late", 7))
    ]
    assert found.loss == pytest.approx(trainer.evaluate()["loss"], abs=1e-12)
    # The targets of `early` stand in 90 + 1 + 120 bytes, of which 13 windows of 16 begin.
    assert [one["tokens"] for one in found.units[:2]] == [90, 13 * 16 - 90]
