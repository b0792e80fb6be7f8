"""The package list, the data patterns and the links say the same as the tree."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest

from nldsl import codegen, grammar

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOMES = {"nldsl": "nldsl", "nldsl.codegen": "codegen", "nldsl.grammar": "grammar"}


def packages_in_tree() -> list[str]:
    """Dotted names of all folders that hold an `__init__.py`; the links inside nldsl/ are not followed."""
    found = {
        ".".join([name, *init.parent.relative_to(ROOT / folder).parts])
        for name, folder in HOMES.items()
        for init in (ROOT / folder).rglob("__init__.py")
        if not any(parent.is_symlink() for parent in init.parents)
    }
    return sorted(found)


def test_every_package_is_listed() -> None:
    expected = packages_in_tree()
    listed = SETTINGS["tool"]["setuptools"]["packages"]
    lines = "\n".join(f'  "{name}",' for name in expected)
    assert sorted(listed) == expected, f"run `make packages`; pyproject.toml should list\n{lines}"


def test_every_folder_with_modules_is_a_package() -> None:
    """A folder without `__init__.py` works in a checkout and is absent from the wheel."""
    orphans = {
        path.parent.relative_to(ROOT).as_posix()
        for folder in HOMES.values()
        for path in (ROOT / folder).rglob("*.py")
        if not path.with_name("__init__.py").exists()
    }
    assert orphans == set()


def test_mapping_matches_the_links() -> None:
    assert HOMES == SETTINGS["tool"]["setuptools"]["package-dir"]


@pytest.mark.parametrize("module", [codegen, grammar])
def test_linked_packages_come_from_this_tree(module: object) -> None:
    file = getattr(module, "__file__", None)
    assert file is not None
    name = Path(file).parent.name
    assert Path(file).resolve() == ROOT / name / "__init__.py"


@pytest.mark.parametrize("name", ["codegen", "grammar"])
def test_links_are_relative_links(name: str) -> None:
    link = ROOT / "nldsl" / name
    if not link.is_symlink():
        # A checkout without symbolic links holds the target's name as text; the mapping serves it.
        assert link.read_text(encoding="utf-8").strip() == f"../{name}"
        return
    assert link.readlink().as_posix() == f"../{name}"


def test_torchvision_is_absent() -> None:
    """Its wheels are built for CUDA; beside a CPU torch they break whatever imports them."""
    assert importlib.util.find_spec("torchvision") is None
    assert "torchvision" not in (ROOT / "constraints.txt").read_text(encoding="utf-8")
