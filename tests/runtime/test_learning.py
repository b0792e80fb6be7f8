"""Learning at test time through its verbs: `generate` with streams, and what learning on brings in `eval`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.run.evaluate import evaluate
from nldsl.run.folder import Build, RunError, load
from nldsl.run.generate import generate


@pytest.fixture
def plastic(make_folder: Callable[..., Path]) -> Build:
    """A trained folder whose level `slow` is plastic, at every step."""
    folder = make_folder("plastic")
    path = folder / "settings.py"
    text = path.read_text(encoding="utf-8")
    text, count = re.subn(
        r'Level\("slow".*\n',
        'Level("slow", ("slow", "norm_scale"), "gd", Clock(1), Rate(0.5), plastic=True),\n',
        text,
    )
    assert count == 1
    path.write_text(text, encoding="utf-8")
    build = load(folder)
    build.train.train(build.settings, device="cpu", listen=lambda _: None)
    return build


def _text(build: Build, **options: Any) -> str:
    given: dict[str, Any] = {"prompt": "ash birch cedar elm fir hazel", "tokens": 12, "temperature": 0.8}
    given["seed"] = 3
    return "".join(generate(build.folder, **(given | options)))


def test_without_learning_the_text_is_the_same(plastic: Build, tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    assert _text(plastic, save_state=state) == _text(plastic)
    assert state.is_file()
    first, rest = _text(plastic, tokens=5, save_state=state, temperature=0), ""
    rest = _text(plastic, prompt="", tokens=7, load_state=[state], temperature=0)
    assert first + rest == _text(plastic, temperature=0)


def test_learning_from_the_prompt_and_from_its_own(plastic: Build, tmp_path: Path) -> None:
    model, trained = plastic.checkpoint.restore(plastic.checkpoint.newest(plastic.folder))
    updates = []
    for options in ({}, {"learn": True}, {"learn_own": True}):
        state = tmp_path / "state.pt"
        _text(plastic, tokens=40, save_state=state, **options)
        stream = plastic.streams.Stream(model, plastic.settings, trained)
        stream.load(state)
        updates.append(stream.updates["slow"])
        assert stream.position == 29 + 40
    # The prompt has 29 tokens: one whole step, and a period that is open when its labels end.
    assert updates == [0, 2, 4]


def test_states_are_averaged_and_sequences_begun_anew(plastic: Build, tmp_path: Path) -> None:
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    _text(plastic, learn=True, save_state=one)
    _text(plastic, learn=True, save_state=two, prompt="yew rowan pine oak maple larch fir")
    with pytest.raises(RunError, match=r"states after 41 and 46 tokens cannot be averaged"):
        _text(plastic, load_state=[one, two])
    assert len(_text(plastic, load_state=[one, two], new_sequence=True)) >= 1
    assert _text(plastic, load_state=[one, one], prompt="") == _text(plastic, load_state=[one], prompt="")
    with pytest.raises(RunError, match="the prompt is empty"):
        _text(plastic, load_state=[one], new_sequence=True, prompt="")


def test_what_cannot_learn_is_said(build: Build, plastic: Build, tmp_path: Path) -> None:
    build.train.train(build.settings, device="cpu", listen=lambda _: None)
    for call in (lambda: _text(build, learn=True), lambda: evaluate(build.folder, learn=True)):
        with pytest.raises(RunError, match="no level of this run goes on learning at test time"):
            call()
    with pytest.raises(RunError, match="no plastic level is called `pretrain`"):
        _text(plastic, learn=True, rates={"pretrain": 0.1})
    with pytest.raises(RunError, match="there is no state of a stream") as caught:
        _text(plastic, load_state=[tmp_path / "none.pt"])
    assert caught.value.exit_code == 2


def test_a_folder_generates_alone(plastic: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`generate.py` takes the same options; its `main` is what `python generate.py` runs."""
    state = str(tmp_path / "state.pt")
    given = ["--prompt", "ash birch cedar elm fir hazel", "--tokens", "12", "--seed", "3"]
    plastic.generate.HERE = plastic.folder
    assert plastic.generate.main([*given, "--learn", "--rate", "slow=0.1", "--save-state", state]) == 0
    assert plastic.generate.main(["--prompt", "", "--tokens", "4", "--load-state", state]) == 0
    assert plastic.generate.main([*given, "--rate", "slow"]) == 2
    assert "`--rate slow` is no rate" in capsys.readouterr().err


def test_eval_reads_documents_as_streams(plastic: Build) -> None:
    found = evaluate(plastic.folder, learn_tokens=300)
    learning = found["learning"]
    assert learning["tokens"] == 299
    assert learning["changed"] == {"slow": 18}  # (300 - 1) // 16 whole steps whose labels have come
    assert learning["gain"] == pytest.approx(learning["frozen"] - learning["learned"])
    assert "learning" not in evaluate(plastic.folder, learn=False)
    still = evaluate(plastic.folder, learn_tokens=300, rates={"slow": 0.0})["learning"]
    assert still["gain"] == pytest.approx(0, abs=1e-6)
    assert still["frozen"] == learning["frozen"]


def test_the_frozen_loss_is_that_of_the_whole_document(plastic: Build) -> None:
    model, trained = plastic.checkpoint.restore(plastic.checkpoint.newest(plastic.folder))
    text = plastic.learning.documents(plastic.data.load(plastic.settings.data, plastic.folder), 200)[0]
    found = plastic.learning.learning_on(model, plastic.settings, trained, [text, text[:50]])
    with torch.no_grad():
        logits, _ = model(text[None, :-1])
        short, _ = model(text[None, :49])
    total = torch.nn.functional.cross_entropy(logits[0], text[1:], reduction="sum")
    total += torch.nn.functional.cross_entropy(short[0], text[1:50], reduction="sum")
    assert found["frozen"] == pytest.approx(float(total) / 248, rel=1e-5)
    assert (found["documents"], found["tokens"]) == (2, 248)


def test_documents_are_spread_and_cut(build: Build) -> None:
    held_out = torch.tensor(list(b"aaaa\fbbbbbbbb\fcccccc\f\fd\feeee"), dtype=torch.uint8)
    corpus = dataclasses.replace(build.data.load(build.settings.data, build.folder), held_out=held_out)
    texts = [bytes(one.tolist()).decode() for one in build.learning.documents(corpus, 1000)]
    assert texts == ["aaaa", "bbbbbbbb", "cccccc", "eeee"]
    texts = [bytes(one.tolist()).decode() for one in build.learning.documents(corpus, 7)]
    assert texts == ["aaaa", "eee"]
