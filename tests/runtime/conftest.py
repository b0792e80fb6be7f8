"""A small build folder, made by hand, with the runtime's files as they are."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.api.rules import library_rule
from nldsl.codegen.emit import rules
from nldsl.codegen.runtime import FILES
from nldsl.run.folder import Build, load
from tests.runtime.streaming import letters, small_model, two_levels

HERE = Path(__file__).parent
RUNTIME = HERE.parent.parent / "codegen" / "runtime"
TOY_RULES: list[tuple[str, dict[str, object]]] = [
    *((name, {}) for name in ("gd", "momentum", "nesterov", "adamw", "muon", "dgd")),
    ("m3", {"divide": "relative"}),
]
WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew")

RULES = rules.write(
    [library_rule(name, rate=0.01, **options) for name, options in TOY_RULES], "The rules of the toy."
)

torch.set_num_threads(1)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """`make_folder(name)`: a build folder of its own, with a text of 4,000 bytes."""

    def make(name: str = "build") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in FILES:
            shutil.copy(RUNTIME / file, folder)
        (folder / "rules.py").write_text(RULES, encoding="utf-8")
        for path in (HERE / "toy").glob("*.py"):
            shutil.copy(path, folder)
        chance = random.Random(0)
        text = " ".join(chance.choice(WORDS) for _ in range(800))[:4000]
        (folder / "letters.txt").write_text(text, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    """One such folder."""
    return make_folder()


@pytest.fixture
def build(folder: Path) -> Build:
    """The folder, loaded."""
    return load(folder)


@pytest.fixture
def model(build: Build) -> torch.nn.Module:
    """What streams read with, in float64."""
    return small_model(build)


@pytest.fixture
def text() -> torch.Tensor:
    """What streams read."""
    return letters()


@pytest.fixture
def two(build: Build) -> Any:
    """Two levels of different clocks that learn on in a stream."""
    return two_levels(build)
