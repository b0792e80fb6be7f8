"""Goldens of this folder: `golden/<name>`, rewritten with `--update-golden` or UPDATE_GOLDEN=1."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def same(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    folder = Path(request.path).parent / "golden"
    update = request.config.getoption("--update-golden", default=False) or os.environ.get("UPDATE_GOLDEN") == "1"

    def compare(name: str, text: str) -> None:
        file = folder / name
        if update:
            folder.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"no golden {file}: run again with UPDATE_GOLDEN=1 and read what it wrote"
        assert text == file.read_text(encoding="utf-8")

    return compare
