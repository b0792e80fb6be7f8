"""Run the study of continual learning, and write its tables and plot: `python -m bench.continual`.

Every trial is a process with one thread.  One whose result is there is not run again, so that a study which
was stopped goes on.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nldsl
from bench.continual import report
from bench.continual.languages import fetch
from bench.continual.plan import ARMS, RATES, SPECS, STUDIES, TUNING, Arm, Study, Trial, trials_of

SMOKE_STEPS = 2
FEW = 3
DOCS = Path(__file__).resolve().parents[2] / "docs"


def main() -> int:
    """Run what is asked for; everything by default."""
    parser = argparse.ArgumentParser(prog="python -m bench.continual", description=__doc__)
    names = tuple(study.name for study in STUDIES)
    parser.add_argument("studies", nargs="*", help=f"some of {', '.join(names)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("build/continual"))
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument(
        "--arms", default="", metavar="WORDS", help="only arms whose names hold one; | between"
    )
    parser.add_argument("--smoke", action="store_true", help="two arms, two steps a task: does it run?")
    parser.add_argument("--report", action="store_true", help="only write tables and plot of what is there")
    parser.add_argument("--docs", action="store_true", help="put tables and plot into docs/ as well")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.studies if name not in names]
    if unknown:
        parser.error(f"there is no study `{unknown[0]}`; there is {', '.join(names)}")
    studies = [study for study in STUDIES if study.name in (chosen.studies or names)]
    arms = tuple(arm for arm in ARMS if any(word in arm.name for word in chosen.arms.split("|")))
    if chosen.smoke:
        digits = next(study for study in STUDIES if study.name == "digits")
        studies, arms = [replace(digits, seeds=(TUNING,))], (ARMS[6], ARMS[-4], ARMS[-3])
    each = SMOKE_STEPS if chosen.smoke else None
    if not chosen.report:
        for study in studies:
            build(study, arms, chosen.out)
        for last in (FEW, None):  # a few seeds of everything before many of anything
            for study in studies:
                tuning = [trial for arm in arms for trial in trials_of(study, arm, TUNING, RATES)]
                run(tuning, chosen.out, chosen.jobs, each)
                for seed in study.seeds[:last]:
                    wanted = [report.tuned(study, arm, seed, chosen.out) for arm in arms]
                    run(wanted, chosen.out, chosen.jobs, each)
    print(report.write(studies, arms, chosen.out))
    if chosen.docs:
        report.document(chosen.out, DOCS)
    return 0


def build(study: Study, arms: Iterable[Arm], out: Path) -> None:
    """Compile the study's spec with the model of each arm."""
    specs = out / "specs"
    specs.mkdir(parents=True, exist_ok=True)
    for path in SPECS.glob("*.nl"):
        shutil.copy(path, specs)
    if study.name == "languages":
        fetch(specs)
    for model in dict.fromkeys(arm.model for arm in arms):
        folder = out / "folders" / study.name / model
        spec = nldsl.load(specs / f"{study.name}.nl", set=[f"model = {model}(vocab = {study.vocabulary})"])
        spec.compile(folder, force=True)


def run(trials: Iterable[Trial], out: Path, jobs: int, each: int | None) -> None:
    """Run what has no result yet, `jobs` at a time; raises `CalledProcessError` for the first that fails."""
    wanted = [trial for trial in dict.fromkeys(trials) if not (out / "trials" / trial.name).is_file()]
    with ThreadPoolExecutor(jobs) as pool:
        for number, trial in enumerate(pool.map(lambda one: _run(one, out, each), wanted), start=1):
            print(f"{number} of {len(wanted)}: {trial.name}", flush=True)


def _run(trial: Trial, out: Path, each: int | None) -> Trial:
    target = out / "trials" / trial.name
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "bench.continual.trial",
        str(out / "folders" / trial.study / trial.model),
    ]
    command += [str(target), "--rate", str(trial.rate), "--seed", str(trial.seed), "--way", trial.way]
    command += ["--strength", str(trial.strength), *(["--each", str(each)] if each else [])]
    subprocess.run(command, check=True)
    return trial


if __name__ == "__main__":
    sys.exit(main())
