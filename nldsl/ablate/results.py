"""A study folder, finished or not, read as values: what every trial measured, and what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nldsl.ablate.asked import Asked
from nldsl.ablate.rows import Row, State, Trial
from nldsl.ablate.statistics import Sample
from nldsl.ablate.study import LOST, Study
from nldsl.diagnostics.model import Diagnostic
from nldsl.run.files import reason

if TYPE_CHECKING:
    from nldsl.ablate.statistics import Array

Curve = tuple[tuple[int, float], ...]
"""Steps, and the held-out loss after them."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A held-out document (or window, or item): its tokens that count, mean loss in nats, share right."""

    name: str
    tokens: int
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one trial.

    Attributes:
        trial: who it is, and its state.
        measures: of the final held-out measurement; empty where there is none.
        units: the same by document; `unit` is what they are.
        tasks: what `results.json` of a run of tasks says.
        parameters, seconds, cpu_seconds, tokens_per_second: what it took.
        curve: its held-out losses on the way.
        place: its folder, from the study's folder on, with `/`.
        torch, nldsl: their versions.
    """

    trial: Trial
    measures: Mapping[str, float] = field(default_factory=dict)
    units: tuple[Unit, ...] = ()
    unit: str = "document"
    tasks: Mapping[str, Any] | None = None
    parameters: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    tokens_per_second: float = 0.0
    curve: Curve = ()
    place: str = ""
    torch: str = ""
    nldsl: str = ""

    @property
    def done(self) -> bool:
        """It was trained to its end."""
        return self.trial.state == "done"

    def measure(self, name: str) -> float | None:
        """A measure of the whole run; `accuracy.forgetting` and the like are of tasks.  None if not there."""
        kind, _, summary = name.partition(".")
        if summary:
            return ((self.tasks or {}).get("summary", {}).get(kind) or {}).get(summary)
        if name == "accuracy" and name not in self.measures and self.units:
            return sum(u.tokens * u.accuracy for u in self.units) / sum(u.tokens for u in self.units)
        if name == "perplexity" and "loss" in self.measures:
            return math.exp(min(self.measures["loss"], 700.0))
        return self.measures.get(name)


@dataclass(frozen=True)
class Results:
    """All trials of a study that are asked for.

    Attributes:
        folder: of the study.
        asked: what the study asks.
        found: its trials, variant by variant in the study's order, and by seed.
        warnings: what is missing or damaged in the folder.
    """

    folder: Path
    asked: Asked
    found: tuple[Found, ...]
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """The variants that are asked for."""
        return tuple(row for row in self.asked.rows if row.name not in self.asked.left)

    @property
    def baseline(self) -> str:
        """The name of the variant with which the others are compared."""
        return self.asked.baseline

    @property
    def measures(self) -> tuple[str, ...]:
        """What is compared, the first above all."""
        return self.asked.measures

    @property
    def unit(self) -> str:
        """What held-out text was measured by: `document`, `window` or `item`."""
        return next((one.unit for one in self.found if one.units), "document")

    def of(self, variant: str) -> tuple[Found, ...]:
        """The trials of a variant, by seed."""
        return tuple(one for one in self.found if one.trial.variant == variant)

    def done(self, variant: str) -> tuple[Found, ...]:
        """Those that were trained to the end."""
        return tuple(one for one in self.of(variant) if one.done)

    def in_state(self, *states: State) -> tuple[Trial, ...]:
        """The trials in any of these states."""
        return tuple(one.trial for one in self.found if one.trial.state in states)

    def documents(self, variant: str) -> tuple[str, ...]:
        """The documents that every trial of a variant that is done was measured on, in order."""
        done = self.done(variant)
        if not done:
            return ()
        shared = frozenset.intersection(*(frozenset(u.name for u in one.units) for one in done))
        return tuple(u.name for u in done[0].units if u.name in shared)

    def losses(self, variant: str) -> Array:
        """`[seeds, documents]` in nats per token: of the trials that are `done`, on their `documents`."""
        return self._table(variant, "loss")

    def weights(self, variant: str) -> Array:
        """The same shape: the tokens of each document."""
        return self._table(variant, "tokens")

    def sample(self, variant: str, measure: str) -> Sample | None:
        """What the trials of a variant that are done measured; None where none did.

        Losses, accuracies and bits per byte are by document, others have one number for a run.
        """
        import numpy as np

        done = self.done(variant)
        documents = self.documents(variant)
        if measure in ("loss", "accuracy", "bits_per_byte") and documents:
            values = self._table(variant, "accuracy" if measure == "accuracy" else "loss")
            if measure == "bits_per_byte":
                rates = [_bits_per_nat(one) for one in done]
                if None in rates:
                    return None
                values = values * np.array(rates, dtype=float)[:, None]
            seeds = tuple(one.trial.seed for one in done)
            return Sample(values, self.weights(variant), seeds, documents)
        known = [(one.trial.seed, value) for one in done if (value := one.measure(measure)) is not None]
        if not known:
            return None
        column = np.array([[value] for _, value in known], dtype=float)
        return Sample(column, np.ones_like(column), tuple(seed for seed, _ in known))

    def _table(self, variant: str, name: str) -> Array:
        import numpy as np

        documents = self.documents(variant)
        places = [{u.name: u for u in one.units} for one in self.done(variant)]
        rows = [[getattr(units[document], name) for document in documents] for units in places]
        return np.array(rows, dtype=float).reshape(len(rows), len(documents))


def read(folder: Path | str) -> Results:
    """What the study in `folder` has found so far.

    A trial whose result is lost or damaged is one that waits, and `warnings` says so.

    Raises:
        RunError: there is no study (NL0902), or it is damaged (NL0904) or cannot be used.
    """
    study = Study.open(folder)
    warnings = list(study.warnings)
    order = {row.name: place for place, row in enumerate(study.runnable)}
    trials = [trial for trial in study.trials() if trial.variant in order]
    trials.sort(key=lambda trial: (order[trial.variant], trial.seed))
    found = tuple(_found(study, trial, warnings) for trial in trials)
    results = Results(study.folder, study.asked, found)
    return replace(results, warnings=(*warnings, *_differing(results), *_unmeasured(results)))


# --------------------------------------------------------------------------- one trial


def _found(study: Study, trial: Trial, warnings: list[Diagnostic]) -> Found:
    """What a trial left; adds to `warnings`."""
    place = study.folder_of(trial)
    one = Found(trial, seconds=trial.seconds, place=place.relative_to(study.folder).as_posix())
    one = replace(one, curve=_curve(place / "log.jsonl", trial, warnings))
    path = place / "result.json"
    ended = trial.state in ("done", "diverged", "stopped")
    try:
        return _with_result(one, path, study.row(trial.variant).digest)
    except FileNotFoundError:
        why = "it is missing"
    except OSError as error:
        why = f"it cannot be read: {reason(error)}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"it holds no result ({type(error).__name__}: {error})"
    if not ended and not path.exists():
        return one
    warnings.append(
        Diagnostic(
            "NL0940",
            f"the result of trial `{trial.name}` is lost: {why}",
            notes=(f"{path}",),
            help="run the study again: the trial is done anew, from its checkpoint where that is there",
            severity="warning",
        )
    )
    lost: State = "waiting" if ended else trial.state
    return replace(one, trial=replace(trial, state=lost, problem=LOST))


def _with_result(one: Found, path: Path, digest: str) -> Found:
    """`one` with what `result.json` says; raises `OSError`, `ValueError`, `KeyError` or `TypeError`."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if data["format"] != 1:
        raise ValueError(f"its format is {data['format']!r}")
    if (data["digest"], data["seed"]) != (digest, one.trial.seed):
        raise ValueError("it is of another spec or seed")
    state: State = data["state"]
    if state not in ("done", "diverged", "stopped"):
        raise ValueError(f"its state is {state!r}")
    units = tuple(
        Unit(str(u["name"]), int(u["tokens"]), float(u["loss"]), float(u["accuracy"]))
        for u in data["documents"]
    )
    measures = {str(name): float(value) for name, value in data["measures"].items()}
    if state == "done" and "loss" not in measures:
        raise ValueError("it has no loss")
    numbers = [*measures.values(), *(u.loss for u in units), *(u.accuracy for u in units)]
    if not all(map(math.isfinite, numbers)) or any(u.tokens < 1 for u in units):
        raise ValueError("it has numbers that are none")
    if len({u.name for u in units}) != len(units):
        raise ValueError("it has a document twice")
    trial = replace(one.trial, state=state, step=int(data["steps"]), problem=str(data["problem"]))
    return replace(
        one,
        trial=trial,
        measures=measures,
        units=units,
        unit=str(data["unit"]),
        tasks=_tasks(data["tasks"]),
        parameters=int(data["parameters"]),
        seconds=float(data["seconds"]),
        cpu_seconds=float(data["cpu_seconds"]),
        tokens_per_second=float(data["tokens_per_second"]),
        torch=str(data["torch"]),
        nldsl=str(data["nldsl"]),
    )


def _tasks(data: Any) -> Mapping[str, Any] | None:
    """The matrix of tasks, if it is whole: as many columns as tasks in each row."""
    if data is None:
        return None
    size = len(data["tasks"])
    for row in data["rows"]:
        if len(row["loss"]) != size or len(row["accuracy"]) != size:
            raise ValueError("its matrix of tasks is not whole")
    return {**data, "summary": dict(data["summary"])}


def _curve(path: Path, trial: Trial, warnings: list[Diagnostic]) -> Curve:
    """The held-out losses on the way; of a step that was done twice, the last."""
    found: dict[int, float] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return ()
    except OSError as error:
        warnings.append(_cut(path, trial, f"it cannot be read: {reason(error)}"))
        return ()
    # What follows the last line end is a line that is being written.
    for number, line in enumerate(lines[:-1], start=1):
        if '"evaluate"' not in line:
            continue
        try:
            event = json.loads(line)
            if event["event"] == "evaluate":
                found[int(event["step"])] = float(event["loss"])
        except (ValueError, KeyError, TypeError):
            warnings.append(_cut(path, trial, f"line {number} is damaged"))
            break
    return tuple(sorted(found.items()))


def _cut(path: Path, trial: Trial, why: str) -> Diagnostic:
    return Diagnostic(
        "NL0941",
        f"the learning curve of trial `{trial.name}` is not whole: {why}",
        notes=(f"{path}",),
        severity="warning",
    )


def _bits_per_nat(one: Found) -> float | None:
    """What turns the nats per token of a run into its bits per byte; None where it did not measure them."""
    bits, nats = one.measures.get("bits_per_byte"), one.measures.get("loss")
    return bits / nats if bits is not None and nats else None


# --------------------------------------------------------------------------- the whole


def _differing(results: Results) -> list[Diagnostic]:
    """Variants that were measured on other documents than the baseline."""
    base = set(results.documents(results.baseline))
    said: list[Diagnostic] = []
    for row in results.rows:
        own = set(results.documents(row.name))
        if not base or not own or own == base:
            continue
        shared = len(own & base)
        rest = f"the {shared} that both have are compared" if shared else "whole runs are compared"
        said.append(
            Diagnostic(
                "NL0942",
                f"`{row.name}` was measured on other {results.unit}s than `{results.baseline}`",
                notes=(rest,),
                severity="warning",
            )
        )
    return said


def _unmeasured(results: Results) -> list[Diagnostic]:
    """Measures that are asked for and that no trial has."""
    done = [one for one in results.found if one.done]
    return [
        Diagnostic(
            "NL0943",
            f"no trial has measured `{name}`",
            help=f"write `eval every N steps {{ {name} }}` in the run that the study changes",
            severity="warning",
        )
        for name in results.measures
        if done and all(one.measure(name) is None for one in done)
    ]
