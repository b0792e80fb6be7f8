"""The generated code passes the formatter, the linter and the type checker, as code of this project does."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.codegen.building import FEATURES, ROOT, SPECS, feature, gallery, kernels, written

TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.py` and `kernels.py` of every feature and spec, each pair in a folder of its own."""
    root = tmp_path_factory.mktemp("style")
    specs = {f"features/{name}": feature(name) for name in FEATURES}
    specs |= {f"specs/{name}": gallery(name) for name in SPECS}
    for name, spec in specs.items():
        made = written(spec)
        folder = root / name
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(made.text, encoding="utf-8")
        (folder / "kernels.py").write_text(kernels(spec, made), encoding="utf-8")
        (folder / "ruff.toml").write_text("line-length = 110\n", encoding="utf-8")
    return root


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        [str(TOOLS / command[0]), *command[1:]], cwd=cwd, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_formatter(folders: Path) -> None:
    assert _run("ruff", "format", "--check", ".", cwd=folders) == ""


def test_linter(folders: Path) -> None:
    assert (
        _run("ruff", "check", "--select", "E,F,I,B,UP", "--output-format", "concise", ".", cwd=folders) == ""
    )


def test_type_checker(folders: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["basedpyright"]
    unknown = {key: value for key, value in settings.items() if key.startswith("report")}
    config = {
        "typeCheckingMode": settings["typeCheckingMode"],
        "pythonVersion": settings["pythonVersion"],
        **unknown,
    }
    (folders / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    assert _run("basedpyright", "--pythonpath", sys.executable, ".", cwd=folders) == ""
