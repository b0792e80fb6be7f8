"""Studies on the command line: planned, written, run, looked at, reported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nldsl.cli.console import Console
from nldsl.cli.options import check_settings
from nldsl.cli.problem import Problem
from nldsl.run.files import FileProblem, make_folder, read_text, write_text

if TYPE_CHECKING:
    from nldsl.ablate.calibrate import Estimate
    from nldsl.ablate.plan import Plan
    from nldsl.ablate.running import Place
    from nldsl.ablate.study import Study

CALIBRATION = "calibration.json"
"""In a study's folder: seconds of a step by variant, as `keep time` was held with them."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which study of which spec."""

    path: str
    name: str | None = None
    variant: str | None = None
    settings: tuple[str, ...] = ()
    auto: bool = False
    families: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    most: int | None = None
    seeds: int | None = None

    def plan(self, console: Console, seconds: dict[str, float] | None = None) -> Plan:
        """The plan that is wished for; warnings on its base are reported once, where no seconds are given."""
        from nldsl.ablate.plan import plan
        from nldsl.api.studies import load_for_study

        read_text(self.path)  # the file itself may be the problem, and then that is the message
        settings = check_settings(self.settings) or None
        spec = load_for_study(self.path, self.name, variant=self.variant, set=settings, auto=self.auto)
        if seconds is None:
            console.report(spec.diagnostics)
        return plan(
            spec,
            self.name,
            auto=self.auto,
            families=self.families or None,
            only=self.only,
            most=self.most,
            seeds=self.seeds,
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class Running:
    """How a study is run."""

    jobs: int | None = None
    on: Place = "local"
    stop_early: bool = False
    options: Mapping[str, object] = field(default_factory=dict)


# --------------------------------------------------------------------------- plans


def show(
    console: Console, wish: Wish, *, seconds: float, jobs: int | None, as_json: bool, folder: str | None
) -> int:
    """Print the plan, or write it to `folder`; a calibration takes at most `seconds`, 0 for none.

    1 where a variant cannot be made.
    """
    from nldsl.ablate import table

    plan = wish.plan(console)
    estimate = calibrated(console, plan, seconds)
    if plan.keep is not None and plan.keep.what == "time" and estimate is not None:
        plan = wish.plan(console, estimate.per_step)
    at_once = jobs or _cores()
    if folder is not None:
        from nldsl.ablate.write import write

        files = write(plan, folder, estimate, jobs=at_once)
        console.say(f"wrote {folder}: {len(files)} files")
    if as_json:
        console.out(table.as_json(plan, estimate, jobs=at_once))
    elif folder is None:
        console.out(table.as_text(plan, estimate, jobs=at_once, width=console.width))
    console.report(plan.findings)
    return int(any(d.severity == "error" for d in plan.findings))


def show_block(console: Console, wish: Wish) -> int:
    """Print the proposals as an `ablate` block."""
    console.out(wish.plan(console).block)
    return 0


def calibrated(console: Console, plan: Plan, seconds: float) -> Estimate | None:
    """How long the trials of a plan take; None where nothing is to be run."""
    if not seconds or not plan.rows[0].steps:
        return None
    from nldsl.ablate.calibrate import calibrate

    console.say(
        f"timing a few steps of each variant, for {seconds:g} s at most (`--no-calibrate` leaves that out)"
    )
    return calibrate(plan, seconds)


# --------------------------------------------------------------------------- runs


def run(
    console: Console, wish: Wish, running: Running, *, folder: str | None, seconds: float, form: str = "text"
) -> int:
    """Make the study in `folder`, or go on with it, and do its trials; then print the report."""
    from nldsl.ablate.study import Study

    plan = _to_run(console, wish, Path(folder) if folder is not None else None, seconds)
    target = Path(folder) if folder is not None else default_folder(plan)
    return go_on(console, Study.make(target, plan), running, form)


def go_on(console: Console, study: Study, running: Running, form: str = "text") -> int:
    """Do the trials of a study that wait, and print its report when all have ended."""
    from nldsl.ablate.progress import Display
    from nldsl.ablate.running import run as work

    with Display(study, warn=lambda found: console.report([found])) as display:
        code = work(
            study,
            running.on,
            jobs=running.jobs,
            options=running.options,
            stop_early=running.stop_early,
            tell=display,
        )
    if code in (0, 1):
        report(console, study, form)
    return code


def default_folder(plan: Plan) -> Path:
    """Where a study is made unless something else is said.

    `studies/NAME`, NAME that of the block.
    """
    return Path("studies") / plan.name.lower()


def _to_run(console: Console, wish: Wish, folder: Path | None, seconds: float) -> Plan:
    """A plan without problems, its time held by what was measured when the study was made."""
    from nldsl.ablate.running import ready

    plan = wish.plan(console)
    if plan.keep is not None and plan.keep.what == "time" and not plan.findings:
        plan = _timed(console, wish, plan, folder or default_folder(plan), seconds)
    ready(plan)
    return plan


def _timed(console: Console, wish: Wish, plan: Plan, folder: Path, seconds: float) -> Plan:
    """A plan that holds time by the seconds kept in `folder`, or by those of a calibration, kept there."""
    kept = folder / CALIBRATION
    known = _kept(kept)
    if any(row.name not in known for row in plan.runnable):
        estimate = calibrated(console, plan, seconds)
        known = (estimate.per_step if estimate is not None else {}) | known
        new = not folder.exists() or (folder / "study.json").exists() or not any(folder.iterdir())
        if new and all(row.name in known for row in plan.runnable):
            make_folder(folder)
            write_text(kept, json.dumps(known, indent=2) + "\n")
    return wish.plan(console, known)


def _kept(path: Path) -> dict[str, float]:
    """The seconds that a calibration left; nothing where there was none."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return {str(name): float(seconds) for name, seconds in found.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as error:
        raise FileProblem(f"`{path}` is damaged", "make the study in another folder") from error


def options(given: tuple[str, ...]) -> dict[str, object]:
    """`--option key=value`, each once; raises `Problem` for another form.

    >>> options(("cpus=2", "time=1:00:00"))
    {'cpus': '2', 'time': '1:00:00'}
    """
    found: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise Problem(f"`--option {text}` is not of the form `key=value`", "write `--option cpus=2`")
        found[name.strip()] = value.strip()
    return found


# --------------------------------------------------------------------------- study folders


def is_study(path: str) -> bool:
    """Whether `path` names a folder, which `ablate` takes for that of a study."""
    return Path(path).is_dir()


def its_folder() -> str:
    """What to give in place of a spec, with the study of the usual place that was changed last."""
    found = sorted(Path("studies").glob("*/study.json"), key=lambda file: file.stat().st_mtime)
    example = f", as in `nldsl ablate {found[-1].parent} --report`" if found else ""
    return f"give its folder{example}, or add `--run`"


def status(console: Console, study: Study, *, as_json: bool, jobs: int | None) -> int:
    """Print how far a study is."""
    from nldsl.ablate import status as told

    console.report(study.warnings)
    at_once = jobs or _cores()
    if as_json:
        console.out(told.as_json(study, jobs=at_once))
    else:
        console.out(told.as_text(study, jobs=at_once, width=console.width))
    return 0


def report(console: Console, study: Study, form: str) -> int:
    """Write the report of a study, finished or not, and print it in one of its forms."""
    from nldsl.ablate.report import write

    page = write(study.folder)
    names = {"markdown": "report.md", "latex": "report.tex", "csv": "effects.csv", "html": "report.html"}
    if form == "text":
        from nldsl.ablate.report import text

        console.out(text(study.folder, width=console.width))
    else:
        console.out((page.parent / names[form]).read_text("utf-8"))
    console.say(f"wrote {page}")
    return 0


def _cores() -> int:
    from nldsl.ablate.local import cores

    return cores()
