"""What a spec may not say of starts from files; each finding names its place."""

from __future__ import annotations

from pathlib import Path

import pytest

import nldsl

HERE = Path(__file__).parent
START = 'pretrained("model.safetensors")'


def codes(text: str, path: Path) -> list[str]:
    (path / "llama.nl").write_text(text, encoding="utf-8")
    found = [one for one in nldsl.check(path / "llama.nl") if one.severity == "error"]
    return [one.code for one in found]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("pretrained()", "NL0201"),
        ('pretrained("model.bin")', "NL0570"),
        ('pretrained("model.safetensors", "model.layers.*.mlp")', "NL0571"),
        ('pretrained("model.safetensors", rename = [["a", "b", "c"]])', "NL0571"),
        ('pretrained("model.safetensors", rename = 3)', "NL0571"),
        ('pretrained("model.safetensors", rename = [[a + 1, "b"]])', "NL0204"),
        ('pretrained("model.safetensors", whole = yes)', "NL0202"),
        ('pretrained("a.safetensors", file = "b.safetensors")', "NL0202"),
        ("zeros", "NL0203"),
    ],
)
def test_starts_of_a_model(given: str, code: str, tmp_path: Path) -> None:
    text = (HERE / "llama.nl").read_text(encoding="utf-8")
    assert codes(text.replace(START, given), tmp_path) == [code]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ('pretrained("model.safetensors")', "NL0201"),
        ('pretrained("model.safetensors", "model.layers.0.mlp")', "NL0570"),
        ('pretrained("model.safetensors", "model.*.*.mlp")', "NL0570"),
        ('pretrained("model.safetensors", "model.layer*.mlp")', "NL0570"),
        ('pretrained("model.safetensors", "model.layers.*.mlp", partial)', "NL0571"),
    ],
)
def test_starts_of_a_level(given: str, code: str, tmp_path: Path) -> None:
    text = (HERE / "llama.nl").read_text(encoding="utf-8")
    text = text.replace("update = every 4 steps", f"start = {given}, update = every 4 steps")
    assert codes(text, tmp_path) == [code]


def test_one_path_with_two_clocks(tmp_path: Path) -> None:
    text = (HERE / "llama.nl").read_text(encoding="utf-8")
    text = text.replace("memory Bottom(dim, hidden)", "memory Bottom(dim, hidden, period = 4 steps)")
    text = text.replace("update = every 4 steps", "update = every period")
    text = text.replace("block Low(dim, hidden)", "block Low(dim, hidden, period = 4 steps)")
    text = text.replace("Bottom(dim, hidden))", "Bottom(dim, hidden, period))")
    assert codes(text, tmp_path) == []
    text = text.replace("repeat(1, Mid(dim, hidden))", "repeat(1, Low(dim, hidden, 2 steps))")
    assert codes(text.replace("Top, Middle,", "Top,"), tmp_path) == ["NL0572"]


def test_one_memory_in_two_blocks_may_have_two_clocks(tmp_path: Path) -> None:
    text = (HERE / "llama.nl").read_text(encoding="utf-8")
    text = text.replace("memory Bottom(dim, hidden)", "memory Bottom(dim, hidden, period = 4 steps)")
    text = text.replace("update = every 4 steps", "update = every period")
    text = text.replace("Middle(dim, hidden))", "Bottom(dim, hidden, 2 steps))").replace(
        "Top, Middle,", "Top,"
    )
    assert codes(text, tmp_path) == []
