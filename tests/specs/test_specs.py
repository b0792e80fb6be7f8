"""Every spec of the gallery, made tiny: compiled, checked, and run by what its folder holds alone."""

from __future__ import annotations

import json
import math
import os
import re
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
GALLERY = ["deltanet", "hope", "hope_attention", "retnet", "titans", "transformer"]
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
runs = " ".join(sys.argv[1:]).split(" --then ")
for run in runs:
    sys.argv = ["train.py", *run.split()]
    try:
        runpy.run_path("train.py", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""


def _train(folder: Path, *runs: list[str]) -> None:
    """Run `train.py` in its folder, once for each list of arguments, in one process without nldsl."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
        "OMP_NUM_THREADS": "1"
    }
    command = [sys.executable, "-I", "-c", ALONE]
    for index, arguments in enumerate(runs):
        command += [*(["--then"] if index else []), "--device=cpu", "--set=sample.tokens=0", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def _events(folder: Path, run: str) -> list[dict[str, Any]]:
    lines = (folder / "runs" / run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _losses(folder: Path, run: str) -> list[float]:
    return [event["loss"] for event in _events(folder, run) if event["event"] == "step"]


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
def test_the_same_spec_gives_the_same_bytes_anywhere(
    name: str, builds: dict[str, Path], elsewhere: Path
) -> None:
    nldsl.load(f"{name}.nl", variant="Tiny").compile(elsewhere / "build")
    assert _contents(elsewhere / "build") == _contents(builds[name])
    assert str(ROOT) not in (builds[name] / "model.py").read_text(encoding="utf-8")


def test_builds_pass_the_formatter_and_linter(builds: dict[str, Path]) -> None:
    root = next(iter(builds.values())).parent
    for command in (["format", "--check"], ["check", "--select", "E,F,I,B,UP", "--output-format", "concise"]):
        done = subprocess.run([TOOLS / "ruff", *command, root], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", GALLERY)
def test_a_build_learns_without_nldsl(name: str, builds: dict[str, Path]) -> None:
    few = ["--set=evaluate_every=1000", "--set=evaluate_windows=1", "--set=data.batch=4"]
    _train(builds[name], ["--steps=30", "--out=runs/short", *few])
    losses = _losses(builds[name], "short")
    assert len(losses) == 30
    assert losses[0] < math.log(256) + 0.5
    assert sum(losses[-3:]) / 3 < math.log(256) - 0.5


def _slower(folder: Path) -> list[str]:
    """The levels whose clock is longer than a short run."""
    text = (folder / "settings.py").read_text(encoding="utf-8")
    found = re.findall(r'Level\(\s*"(\w+)".*?clock=Clock\((\d+), "step"', text, re.DOTALL)
    return [name for name, period in found if int(period) > 1]


@pytest.mark.parametrize("name", GALLERY)
def test_a_run_is_repeated_and_resumed_exactly(name: str, builds: dict[str, Path]) -> None:
    folder = builds[name]
    small = ["--set=data.batch=2", "--set=data.length=32", "--set=evaluate_windows=1"]
    small += [f"--set=levels.{level}.clock.period=2" for level in _slower(folder)]
    whole, cut = ["--steps=6", *small], ["--out=runs/cut", *small]
    _train(folder, [*whole, "--out=runs/one"], [*cut, "--steps=3"])
    _train(folder, [*whole, "--out=runs/two"], [*cut, "--steps=6", "--resume"])
    assert len(_losses(folder, "one")) == 6
    assert _losses(folder, "two") == _losses(folder, "one")
    assert _losses(folder, "cut") == _losses(folder, "one")


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_a_build_beats_the_counts_of_its_text(name: str, builds: dict[str, Path]) -> None:
    _train(builds[name], ["--steps=200", "--out=runs/long"])
    events = _events(builds[name], "long")
    measured = [event for event in events if event["event"] == "evaluate"][-1]
    print(f"{name}: held-out loss {measured['loss']:.3f}, baselines {measured['baselines']}")
    assert measured["loss"] < measured["baselines"]["unigram"]
