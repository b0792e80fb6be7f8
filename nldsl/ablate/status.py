"""How far a study is, as text for people and as JSON for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Container, Sequence
from dataclasses import asdict, replace
from shlex import quote

from nldsl.ablate.ledger import ENDED
from nldsl.ablate.progress import seconds_left
from nldsl.ablate.rows import Trial
from nldsl.ablate.study import LOST, WITH_RESULT, Study, listed
from nldsl.ablate.table import WIDTH, duration

STATES = ("done", "running", "waiting", "diverged", "stopped", "failed")


def as_text(study: Study, *, jobs: int = 1, width: int = WIDTH) -> str:
    """What is done of a study, by variant, what went wrong, and how it goes on."""
    trials = standing(study)
    head = f"{study.name} of {study.base}: {_counts(trials)}; {study.folder}"
    by_variant = {row.name: [t for t in trials if t.variant == row.name] for row in study.runnable}
    words = {row.name: "base" if row.name == "base" else row.words for row in study.rows}
    cells = [(words[name], _counts(own), _progress(own)) for name, own in by_variant.items() if own]
    wide = min(max((len(w) for w, _, _ in cells), default=0), max(width - 40, 24))
    states = max((len(s) for _, s, _ in cells), default=0)
    lines = [*textwrap.wrap(head, width, subsequent_indent="  "), ""]
    for name, told, share in cells:
        first, *more = textwrap.wrap(name, wide, subsequent_indent="  ")
        lines += [f"{first:<{wide}}  {told:<{states}}  {share}".rstrip(), *more]
    troubles = [f"{t.name} {t.state}: {t.problem}" for t in trials if t.problem and t.state != "waiting"]
    troubles += [f"{row.words} cannot be run: {row.problem}" for row in study.rows if row.problem is not None]
    troubles += _lost(trials)
    if troubles:
        lines += ["", *(w for t in troubles for w in textwrap.wrap(t, width, subsequent_indent="  "))]
    return "\n".join([*lines, "", *_going_on(study, trials, jobs)])


def as_json(study: Study, *, jobs: int = 1) -> str:
    """The same for programs; keys may be added within a version."""
    trials = standing(study)
    whole = {
        "version": 1,
        "name": study.name,
        "base": study.base,
        "folder": str(study.folder),
        "seeds": list(study.seeds),
        "measures": list(study.measures),
        "baseline": study.baseline,
        "states": {state: sum(t.state == state for t in trials) for state in STATES},
        "trials": [asdict(trial) | {"folder": str(study.folder_of(trial))} for trial in trials],
        "seconds_left": _left(study, trials, jobs),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False)


def standing(study: Study) -> list[Trial]:
    """The trials as they stand: one whose process is dead or whose result is lost waits for the next runner.

    Whether results are there is seen; what is in them is not read, and nothing is changed.
    """
    free = {trial.name for trial in study.ledger.free()}
    return [_as_it_stands(study, trial, free) for trial in study.trials()]


def _as_it_stands(study: Study, trial: Trial, free: Container[str]) -> Trial:
    if trial.name in free:
        return replace(trial, state="waiting")
    if trial.state not in WITH_RESULT or (study.folder_of(trial) / "result.json").is_file():
        return trial
    return replace(trial, state="waiting", step=0, problem=LOST)


def _lost(trials: Sequence[Trial]) -> list[str]:
    """A sentence on the trials whose results are lost, and what mends it."""
    names = [trial.name for trial in trials if trial.state == "waiting" and trial.problem == LOST]
    if not names:
        return []
    which, them = ("results are", "them") if len(names) > 1 else ("result is", "it")
    mended = f"the next `--run` makes {them} anew, from a checkpoint where one is there"
    return [f"{len(names)} {which} lost, of {listed(names)}: {mended}"]


def _counts(trials: Sequence[Trial]) -> str:
    states = [trial.state for trial in trials]
    told = [f"{states.count(state)} {state}" for state in STATES if state in states]
    return f"{', '.join(told)} of {len(trials)}" if len(told) > 1 else ", ".join(told) or "no trials"


def _progress(trials: Sequence[Trial]) -> str:
    """The steps of those that are under way."""
    begun = [t for t in trials if t.state not in ENDED and t.step]
    return ", ".join(f"seed {t.seed} at step {t.step:,} of {t.steps:,}" for t in begun)


def _left(study: Study, trials: Sequence[Trial], jobs: int) -> float | None:
    return seconds_left(trials, {row.name: float(row.flops_per_token) for row in study.rows}, jobs)


def _going_on(study: Study, trials: Sequence[Trial], jobs: int) -> list[str]:
    if not trials:
        return ["there is nothing to run or to report"]
    if all(trial.state in ENDED for trial in trials):
        return [f"every trial has ended; the report: nldsl ablate {quote(str(study.folder))} --report"]
    left = _left(study, trials, jobs)
    known = f"about {duration(left)} left with {jobs} at a time; " if left else ""
    if any(trial.state == "running" for trial in trials):
        return [f"{known}a runner is at work"]
    return [f"{known}it goes on with: nldsl ablate {quote(str(study.folder))} --run"]
