"""What a report tells, as plain values: one line for each variant, with its trials and its effects."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nldsl.ablate.rows import Keep, Row, State

if TYPE_CHECKING:
    from nldsl.ablate.statistics import Effect

Curve = tuple[tuple[int, float], ...]
"""Steps and the held-out loss after them."""

Tasks = tuple[tuple[float, ...], ...]
"""What task j gets after i tasks, in row i and column j; row 0 is before the first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one trial ended, or how far it is.

    `measures` are of the final held-out measurement; empty where there is none.  `seconds` are of processor
    time where that is known.  `tasks` and `summary` are of `Facts.asked`, where a run learns tasks in turn.
    `begun` is whether its folder is there.
    """

    seed: int
    state: State
    problem: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    curve: Curve = ()
    tasks: Tasks = ()
    summary: Mapping[str, float] = field(default_factory=dict)
    begun: bool = True

    @property
    def done(self) -> bool:
        """It was trained to its end."""
        return self.state == "done"


@dataclass(frozen=True, slots=True)
class Line:
    """One variant: `number` is its place in the report; `effects` are by measure, empty for the baseline."""

    number: int
    row: Row
    outcomes: tuple[Outcome, ...] = ()
    effects: Mapping[str, Effect] = field(default_factory=dict)

    @property
    def done(self) -> tuple[Outcome, ...]:
        """The trials that were trained to their end."""
        return tuple(one for one in self.outcomes if one.done)

    def values(self, measure: str) -> list[float]:
        """What the trials that are done measured, by seed."""
        return [one.measures[measure] for one in self.done if measure in one.measures]

    def mean(self, measure: str) -> float | None:
        """The mean over seeds; None where no trial is done."""
        values = self.values(measure)
        return statistics.fmean(values) if values else None

    def spread(self, measure: str) -> float | None:
        """The standard deviation over seeds; None for fewer than two."""
        values = self.values(measure)
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def seconds(self) -> float | None:
        """Processor seconds of a trial, the median over those done; None where none is."""
        values = [one.seconds for one in self.done if one.seconds > 0]
        return statistics.median(values) if values else None

    def in_state(self, state: State) -> tuple[int, ...]:
        """The seeds whose trials are in a state."""
        return tuple(one.seed for one in self.outcomes if one.state == state)


@dataclass(frozen=True, slots=True)
class Facts:
    """A study, finished or not.

    Attributes:
        name, base, block: of the study, of the run that it changes, and the `ablate` block as text.
        seeds, measures: what every variant is trained with, and what is compared, the first above all.
        unit: what a loss counts: "byte", "token" or "item".
        baseline: the line with which the others are compared.
        lines: the variants that can be run, in the order of the study, the baseline first.
        broken: the rows that cannot be made, each with its problem.
        documents: held-out units that each trial is measured on; `kind` is what they are called.
        about: facts on how it was run, as pairs of words: torch, machine, data.
        notes: sentences of the statistics on the study as a whole.
        warnings: what is lost or damaged in its folder.
        asked: what tasks are asked for, "accuracy" or "loss"; "" where the runs learn no tasks.
    """

    name: str
    base: str
    seeds: tuple[int, ...]
    measures: tuple[str, ...]
    baseline: Line
    lines: tuple[Line, ...]
    block: str = ""
    unit: str = "token"
    keep: Keep | None = None
    broken: tuple[Row, ...] = ()
    documents: int = 0
    kind: str = "document"
    about: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    asked: str = ""

    @property
    def others(self) -> tuple[Line, ...]:
        """All lines but the baseline."""
        return tuple(line for line in self.lines if line is not self.baseline)

    @property
    def measure(self) -> str:
        """What is compared above all."""
        return self.measures[0]

    @property
    def trials(self) -> tuple[Outcome, ...]:
        """Every trial, variant by variant."""
        return tuple(one for line in self.lines for one in line.outcomes)
