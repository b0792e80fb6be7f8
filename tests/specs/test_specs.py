"""Every spec of the gallery, made tiny: compiled, checked, and run by what its folder holds alone."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nldsl

ROOT = Path(__file__).parents[2]
SPECS = sorted(path.stem for path in (ROOT / "specs").glob("*.nl"))
TOOLS = Path(sys.executable).parent

# Refuses nldsl, whatever the path; flushes denormal numbers, which slow closed gates down; one thread.
ALONE = """
import sys, importlib.abc, runpy

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("nldsl", "codegen"):
            raise ImportError(f"a build folder must not need {name}")
        return None

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, ".")
import torch
torch.set_num_threads(1)
torch.set_flush_denormal(True)
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


def _train(folder: Path, *arguments: str, steps: int) -> list[dict[str, Any]]:
    """Run `train.py` in its folder without nldsl; the events of its log."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", ALONE, f"--steps={steps}", "--device=cpu", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    out = next(a for a in arguments if a.startswith("--out=")).removeprefix("--out=")
    return [json.loads(line) for line in (folder / out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def _losses(events: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in events if event["event"] == "step"]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("builds")
    for name in SPECS:
        nldsl.load(ROOT / "specs" / f"{name}.nl", variant="Tiny").compile(root / name)
    return {name: root / name for name in SPECS}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the specs at another place, which is also the working directory."""
    folder = tmp_path / "a place with spaces"
    shutil.copytree(ROOT / "specs", folder)
    monkeypatch.chdir(folder)
    return folder  # type: ignore[return-value]


@pytest.mark.parametrize("name", SPECS)
def test_the_same_spec_gives_the_same_bytes_anywhere(name: str, builds: dict[str, Path], elsewhere: Path) -> None:
    nldsl.load(f"{name}.nl", variant="Tiny").compile(elsewhere / "build")
    assert _contents(elsewhere / "build") == _contents(builds[name])
    assert str(ROOT) not in (builds[name] / "model.py").read_text(encoding="utf-8")


def test_builds_pass_the_formatter_and_linter(builds: dict[str, Path]) -> None:
    root = next(iter(builds.values())).parent
    for command in (["format", "--check"], ["check", "--select", "E,F,I,B,UP", "--output-format", "concise"]):
        done = subprocess.run([TOOLS / "ruff", *command, root], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SPECS)
def test_a_build_learns_without_nldsl(name: str, builds: dict[str, Path]) -> None:
    losses = _losses(_train(builds[name], "--out=runs/short", "--set=evaluate_every=1000", steps=30))
    assert len(losses) == 30
    assert losses[0] < math.log(256) + 0.5
    assert sum(losses[-3:]) / 3 < math.log(256) - 0.5


@pytest.mark.parametrize("name", SPECS)
def test_a_run_is_repeated_and_resumed_exactly(name: str, builds: dict[str, Path]) -> None:
    folder, small = builds[name], ("--set=data.batch=2", "--set=data.length=64")
    whole = _losses(_train(folder, "--out=runs/whole", *small, steps=6))
    half = _losses(_train(folder, "--out=runs/half", *small, "--set=evaluate_every=3", "--seed=0", steps=6))
    assert half == whole
    _train(folder, "--out=runs/cut", *small, "--set=evaluate_every=3", steps=3)
    cut = _losses(_train(folder, "--out=runs/cut", *small, "--set=evaluate_every=3", "--resume", steps=6))
    assert len(whole) == 6
    assert cut == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_a_build_beats_the_counts_of_its_text(name: str, builds: dict[str, Path]) -> None:
    events = _train(builds[name], "--out=runs/long", steps=200)
    measured = [event for event in events if event["event"] == "evaluate"][-1]
    print(f"{name}: held-out loss {measured['loss']:.3f}, baselines {measured['baselines']}")
    assert measured["loss"] < measured["baselines"]["unigram"]
