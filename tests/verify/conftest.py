"""Compiled folders as they are, and copies of them with one fault."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def _builds() -> ModuleType:
    spec = importlib.util.spec_from_file_location("builds", Path(__file__).parents[1] / "builds.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDS = _builds()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`built("hope")`: the folder of the spec's `Tiny` variant."""
    tmp = tmp_path_factory.mktemp("builds")
    return lambda spec: BUILDS.build_folder(spec, "Tiny", tmp)


@pytest.fixture
def broken(built: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """`broken("hope", "model.py", (old, new), ...)`: a copy in which `old`, which is there, reads `new`."""

    def make(spec: str, file: str, *edits: tuple[str, str]) -> Path:
        folder = tmp_path / spec
        shutil.copytree(built(spec), folder, dirs_exist_ok=True)
        path = folder / file
        text = path.read_text(encoding="utf-8")
        for old, new in edits:
            assert old in text, f"{file} of {spec} has no {old!r}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        return folder

    return make
