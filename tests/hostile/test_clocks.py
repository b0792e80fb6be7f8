"""Clocks and chains under a hostile user: levels that stand still while others lean on them."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nldsl.cli import main

SPEC = """edition 2026

memory Store(dim) {{
  objective = task
  chain sequential {{
    level a {{ map = mlp(8){a} }}
    level b {{ map = mlp(8){b} }}
  }}
}}

model Small(dim = 8, vocab = 256) {{ tokens |> embed(vocab, dim) |> Store(dim) |> unembed(tied) }}

train Run {{
  model = Small
  data  = text("own.txt", length = 16, batch = 2)
  steps = 4
  level all {{ learns = rest, rule = adamw(rate = 1e-3) }}
}}
"""

Run = Callable[[str, str], tuple[int, str]]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Train with fields of one's own in two levels; the exit code, and all that was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    torch.set_num_threads(1)
    Path("own.txt").write_text("A text of my own. " * 60)

    def call(a: str, b: str) -> tuple[int, str]:
        Path("a.nl").write_text(SPEC.format(a=f", {a}" if a else "", b=f", {b}" if b else ""))
        code = main(["train", "a.nl"])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


@pytest.mark.parametrize(
    "leans",
    [
        "start = learned in b, reset = with b",
        "start = learned in b, reset = every 2 steps",
        "reset = with b",
    ],
)
def test_a_level_may_lean_on_one_that_stands_still(train: Run, leans: str) -> None:
    code, said = train(leans, "update = never")
    assert code == 0, said


@pytest.mark.parametrize(
    ("a", "b"), [("start = copy of b", "update = never"), ("", "start = copy of a, update = never")]
)
def test_copies_are_of_levels_that_change(train: Run, a: str, b: str) -> None:
    code, said = train(a, b)
    assert (code, "NL0701" in said, "`b` never changes" in said) == (1, True, True), said


def test_a_period_is_cut_in_one_way(train: Run) -> None:
    code, said = train("update = every 12 tokens flush carry", "")
    assert (code, "`carry` is not part of a clock" in said) == (1, True), said


def test_gradients_of_models_read_in_segments_are_probed_in_all_of_them(
    train: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    level = "update = every 4 tokens, rate = 0.1"
    assert train(level, level)[0] == 1  # a rate of its own belongs to levels inside the sequence
    text = Path("a.nl").read_text().replace("chain seq", "scope = sequence\n  chain seq")
    Path("a.nl").write_text(text)
    assert main(["compile", "a.nl", "-o", "out"]) == 0
    assert main(["verify", "out"]) == 0, capsys.readouterr().out
