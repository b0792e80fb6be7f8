"""The wheel holds every package and every data file, and runs from an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOMES = {"nldsl": "nldsl", "codegen": "nldsl/codegen", "grammar": "nldsl/grammar"}
JUNK = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*_cache")


def run(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`; its output is kept, and shown when an assertion fails."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "COLUMNS"}}
    return subprocess.run(
        arguments, cwd=folder, env={**kept, **environment}, capture_output=True, text=True, check=False
    )


def files_in(tree: Path) -> set[str]:
    """Paths inside the wheel that a tree's package files should have; links are not followed."""
    return {
        f"{home}/{path.relative_to(tree / folder).as_posix()}"
        for folder, home in HOMES.items()
        for path in (tree / folder).rglob("*")
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is made from, without a build/ whose stale files could slip in."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in HOMES:
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=JUNK)
    for file in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / file, tree)
    return tree


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline."""
    target = tmp_path_factory.mktemp("dist")
    done = run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(target)], tree)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    done = run([*command, "--target", str(target), str(wheel)], target)
    assert done.returncode == 0, done.stderr
    return target


def test_wheel_holds_the_tree(wheel: Path, tree: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == files_in(tree)


@pytest.mark.parametrize(
    "needed",
    [
        "nldsl/py.typed",
        "nldsl/grammar/nl.lark",
        "nldsl/data/sotu/sotu.txt.xz",
        "nldsl/data/sotu/manifest.json",
    ],
)
def test_wheel_holds_what_the_compiler_reads(wheel: Path, needed: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert needed in archive.namelist()


@pytest.mark.parametrize(
    ("folder", "suffix"),
    [("nldsl/lib/", ".nl"), ("nldsl/diagnostics/explain/", ".md"), ("nldsl/codegen/runtime/", ".py")],
)
def test_wheel_holds_each_kind_of_part(wheel: Path, folder: str, suffix: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    found = [name for name in names if name.startswith(folder) and name.endswith(suffix)]
    assert [name for name in found if not name.endswith("__init__.py")]


def run_installed(arguments: list[str], site: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder` with the installed wheel, and this environment's libraries behind it.

    `-S` keeps the environment's `.pth` files away: an editable install would lend its checkout.
    """
    libraries = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    path = os.pathsep.join([str(site), *libraries])
    return run([sys.executable, "-S", *arguments], folder, PYTHONPATH=path)


def test_installed_package_is_the_wheel(site: Path, tmp_path: Path) -> None:
    program = (
        "import nldsl, nldsl.codegen, nldsl.grammar\n"
        "from nldsl.data.corpus import load\n"
        "print(nldsl.__file__, nldsl.codegen.__file__, nldsl.grammar.__file__, len(load('sotu').texts()))\n"
    )
    done = run_installed(["-c", program], site, tmp_path)
    home = site / "nldsl"
    files = [home / "__init__.py", home / "codegen" / "__init__.py", home / "grammar" / "__init__.py"]
    assert done.stdout.split() == [*map(str, files), "237"], done.stderr


def test_installed_command_says_its_version(site: Path, tmp_path: Path) -> None:
    done = run_installed(["-m", "nldsl", "--version"], site, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0.1.0" in done.stdout


def test_installed_command_checks_a_spec(site: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "specs" / "hope.nl", tmp_path)
    done = run_installed(["-m", "nldsl", "check", "hope.nl"], site, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
