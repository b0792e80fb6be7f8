"""Runs under a hostile user: broken folders, numbers that are none, texts that are too short."""

import io
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.cli import main
from nldsl.run.errors import RunError
from nldsl.run.folder import load

SPEC = """edition 2026
import [DeltaNet] from std

block Layer(dim) { mixer: x = x + (x |> DeltaNet(dim)) }

model Small(dim = 8, vocab = 256) { tokens |> embed(vocab, dim) |> Layer(dim) |> unembed(tied) }

train Run {
  model = Small
  data  = text("own.txt", length = 16, batch = 2)
  steps = 4
  level all { learns = rest, rule = adamw(rate = 1e-3) }
}
"""


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A compiled folder in the scratch folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    torch.set_num_threads(1)
    Path("own.txt").write_text("A text of my own. " * 60)
    Path("a.nl").write_text(SPEC)
    assert main(["compile", "a.nl", "-o", "out"]) == 0
    capsys.readouterr()
    return tmp_path / "out"


def test_settings_that_are_none(build: Path) -> None:
    (build / "settings.py").write_text("SETTINGS = 3\n")
    with pytest.raises(RunError, match="defines no `SETTINGS`"):
        load(build)


@pytest.mark.parametrize("temperature", [float("nan"), -1.0])
def test_temperatures_that_are_none(build: Path, temperature: float) -> None:
    made: Any = load(build)
    with pytest.raises(made.schedule.UserError, match="the temperature is"):
        made.generate.generate(
            made.model.build(), torch.zeros(3, dtype=torch.long), 2, temperature=temperature
        )


def test_what_reaches_a_terminal_cannot_drive_it(build: Path) -> None:
    made: Any = load(build)
    assert made.generate.printable("one\ttwo\n\x1b[2J\x07\x9b") == "one\ttwo\n\ufffd[2J\ufffd\ufffd"


@pytest.mark.parametrize(
    ("text", "words"),
    [("x" * 40, "`--set data.length=3` or less"), ("x" * 8, "use more text$"), ("", "name a file with text")],
)
def test_the_help_for_a_short_text_is_true(build: Path, text: str, words: str) -> None:
    made: Any = load(build)
    (build / "own.txt").write_text(text)
    data = made.settings.data
    with pytest.raises(made.schedule.UserError) as told:
        made.data.load(data, build)
    assert re.search(words, told.value.help)


def interrupted(*_: object, **__: object) -> None:
    """A user who loses patience; programs that are started in the background begin without this handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_during_the_set_up_ends_it(
    build: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: Any = load(build)
    monkeypatch.setattr(made.train, "pick_device", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.train.train(made.settings, out=build / "run", listen=lambda _: None)
    assert not (build / "run").exists()


PERIODS = """
memory Deep(dim, heads = 2) {
  key   = x |> linear |> unit
  value = x |> linear
  query = x |> linear |> unit
  rate  = 0.1
  map   = mlp(hidden = 4, residual)
  update   = every 8 tokens
  gradient = first_order
}
"""


@pytest.mark.parametrize("length", [1, 5])
def test_sequences_shorter_than_a_period_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], length: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.txt").write_text("A text of my own. " * 60)
    Path("a.nl").write_text(
        SPEC.replace("block Layer", f"{PERIODS}\nblock Layer").replace(
            "DeltaNet(dim)) }", "DeltaNet(dim))\n deep: x = x + (x |> rmsnorm |> Deep(dim)) }"
        )
    )
    assert main(["compile", "a.nl", "-o", "out"]) == 0
    made: Any = load(Path("out"))
    settings = made.amend.amend(made.settings, [f"data.length={length}"])
    result = made.train.train(settings, device="cpu", out=tmp_path / "run", listen=lambda _: None)
    assert (result.code, result.step) == (0, 4)
    assert 0 < result.loss_after < 10
    capsys.readouterr()
    assert (
        main(["generate", "out", "--checkpoint", "run/checkpoint.pt", "--prompt", "A", "--tokens", "9"]) == 0
    )
    assert capsys.readouterr().out.startswith("A")


@pytest.mark.parametrize("part", ["stream", "name", "sizes", "length", "streams", "learns", "weights"])
def test_a_state_that_lacks_a_part_is_refused(
    build: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    made: Any = load(build)
    made.train.train(made.settings, device="cpu", out=build / "run", listen=lambda _: None)
    asked = [
        "generate",
        "out",
        "--checkpoint",
        "out/run/checkpoint.pt",
        "--prompt",
        "A text",
        "--tokens",
        "2",
    ]
    assert main([*asked, "--save-state", "s.pt"]) == 0
    whole = torch.load("s.pt", weights_only=True)
    for content in (whole | {part: None}, {k: v for k, v in whole.items() if k != part}):
        torch.save(content, "s.pt")
        capsys.readouterr()
        assert main([*asked, "--load-state", "s.pt"]) == 1
        assert "is no state of a stream of this program" in capsys.readouterr().err
    whole["stream"].pop("position")
    torch.save(whole, "s.pt")
    assert main([*asked, "--load-state", "s.pt"]) == 1
    assert "is no state of a stream of this program" in capsys.readouterr().err
