"""The tables of a report as cells, which every output writes in its own way."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from nldsl.ablate.report import words as w
from nldsl.ablate.report.facts import Facts, Line, Outcome

Tone = Literal["", "worse", "better", "soft"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, with what it links to (relative to the folder of the report) and a smaller text after it."""

    text: str
    link: str = ""
    note: str = ""
    tone: Tone = ""
    more: tuple[Cell, ...] = ()

    @property
    def filled(self) -> bool:
        """There is something to be seen."""
        return bool(self.text or self.note or self.more)


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `number` ones are set right.  `long` is its title where there is room."""

    title: str
    long: str = ""
    number: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, and rows of as many cells."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def filled(self) -> Table:
        """The same without columns in which nothing is."""
        used = [i for i in range(len(self.columns)) if any(row[i].filled for row in self.rows)]
        return self.of(used)

    def of(self, places: Sequence[int]) -> Table:
        """Some of the columns, in this order."""
        rows = tuple(tuple(row[i] for i in places) for row in self.rows)
        return Table(tuple(self.columns[i] for i in places), rows)


def digits_of(facts: Facts, measure: str) -> int:
    """Decimals of a measure and of the effects on it."""
    return w.digits_for(line.effects.get(measure) for line in facts.others)


def place_of(line: Line, outcome: Outcome | None = None) -> str:
    """The folder of a variant's runs, or of one, from that of the report; "" where it is not there."""
    folder = f"../runs/{quote(line.row.name)}/"
    if outcome is None:
        return folder if any(one.begun for one in line.outcomes) else ""
    return f"{folder}seed-{outcome.seed}/" if outcome.begun else ""


def spec_of(line: Line) -> str:
    """The complete spec of a variant, from the folder of the report."""
    return f"../variants/{quote(line.row.name)}/spec.nl"


def log_of(line: Line, outcome: Outcome) -> str:
    """The page about a trial that is done."""
    return place_of(line, outcome) + "report.html"


def main_table(facts: Facts, measure: str | None = None) -> Table:
    """Each variant with its effect on a measure, the measure, its trials, and what it costs."""
    measure = measure or facts.measure
    digits = digits_of(facts, measure)
    unit = w.unit_of(measure, facts)
    columns = (
        Column("#"),
        Column("variant", number=False),
        Column("effect", f"effect, {unit}" if unit else "effect"),
        Column("interval"),
        Column("verdict", number=False),
        Column(measure, w.title_of(measure)),
        Column("seeds", number=False),
        Column("parameters"),
        Column("FLOPs", "FLOPs a token"),
        Column("state", "state a sequence"),
        Column("seconds", "CPU time a trial"),
    )
    return Table(columns, tuple(_main_row(line, facts, measure, digits) for line in facts.lines))


def _main_row(line: Line, facts: Facts, measure: str, digits: int) -> tuple[Cell, ...]:
    row, base = line.row, facts.baseline
    named = Cell(row.words, spec_of(line), note="baseline" if line is base else "")
    mean, spread = line.mean(measure), line.spread(measure)
    shown = "" if mean is None else f"{mean:.{digits}f}"
    around = "" if spread is None else f"± {spread:.{digits}f}"
    seeds = Cell("", more=tuple(Cell(str(one.seed), log_of(line, one)) for one in line.done))
    seconds = line.seconds
    return (
        Cell(str(line.number)),
        named,
        *_effect_cells(line, measure, digits),
        Cell(shown, place_of(line), note=around),
        seeds,
        Cell(w.quantity(row.parameters), note=w.change(row.parameters, base.row.parameters)),
        Cell(w.quantity(row.flops_per_token), note=w.change(row.flops_per_token, base.row.flops_per_token)),
        Cell(w.bytes_of(row.state_bytes), note=w.change(row.state_bytes, base.row.state_bytes)),
        Cell("" if seconds is None else w.seconds_of(seconds), note=w.change(seconds, base.seconds)),
    )


def _effect_cells(line: Line, measure: str, digits: int) -> tuple[Cell, Cell, Cell]:
    effect = line.effects.get(measure)
    if effect is None or effect.mean != effect.mean:
        return Cell(""), Cell(""), Cell("" if effect is None else effect.verdict, tone="soft")
    tone: Tone = {"worse": "worse", "better": "better"}.get(effect.verdict, "soft")  # pyright: ignore[reportAssignmentType]
    link = place_of(line)
    return (
        Cell(w.shift(effect.mean, effect, digits), link, tone=tone),
        Cell(w.interval(effect, digits), link),
        Cell(effect.verdict, tone=tone),
    )


def measures_table(facts: Facts) -> Table | None:
    """The measures after the first: mean and spread of each, and the effect on it; None for none."""
    rest = facts.measures[1:]
    if not rest:
        return None
    digits = {m: digits_of(facts, m) for m in rest}
    columns = [Column("#"), Column("variant", number=False)]
    for measure in rest:
        columns += [Column(w.title_of(measure)), Column("effect"), Column("verdict", number=False)]
    rows: list[tuple[Cell, ...]] = []
    for line in facts.lines:
        cells = [Cell(str(line.number)), Cell(line.row.words, spec_of(line))]
        for measure in rest:
            mean, spread = line.mean(measure), line.spread(measure)
            text = "" if mean is None else f"{mean:.{digits[measure]}f}"
            note = "" if spread is None else f"± {spread:.{digits[measure]}f}"
            effect, between, verdict = _effect_cells(line, measure, digits[measure])
            cells += [
                Cell(text, place_of(line), note),
                Cell(effect.text, effect.link, f"({between.text})" if between.text else "", effect.tone),
                verdict,
            ]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def reasons_table(facts: Facts) -> Table | None:
    """What is missing and why; None where nothing is."""
    rows = w.reasons(facts)
    if not rows:
        return None
    columns = (Column("variant", number=False), Column("what", number=False), Column("why", number=False))
    return Table(columns, tuple((Cell(name), Cell(what), Cell(why)) for name, what, why in rows))


def trials_table(line: Line, facts: Facts) -> Table:
    """The trials of a variant, each with its difference from the baseline's trial of the same seed."""
    measure = facts.measure
    base = {one.seed: one.measures[measure] for one in facts.baseline.done if measure in one.measures}
    columns = [Column("seed"), Column("state", number=False)]
    columns += [Column(m, w.title_of(m)) for m in facts.measures]
    columns += [Column("difference"), Column("steps"), Column("CPU"), Column("tokens/s")]
    rows: list[tuple[Cell, ...]] = []
    for one in line.outcomes:
        value = one.measures.get(measure)
        both = value is not None and one.seed in base and line is not facts.baseline and one.done
        cells = [Cell(str(one.seed), place_of(line, one)), Cell(w.STATES[one.state], note=one.problem)]
        cells += [_measured(line, one, m) for m in facts.measures]
        cells += [
            Cell(w.signed((value or 0.0) - base[one.seed], 4) if both else "", log_of(line, one)),
            Cell(f"{one.step:,}", note="" if one.step == one.steps else f"of {one.steps:,}"),
            Cell(w.seconds_of(one.seconds) if one.seconds else ""),
            Cell(f"{one.tokens_per_second:,.0f}" if one.tokens_per_second else ""),
        ]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def _measured(line: Line, one: Outcome, measure: str) -> Cell:
    value = one.measures.get(measure)
    return Cell("") if value is None else Cell(f"{value:.4f}", place_of(line, one) + "result.json")


TASKS = {
    "average": "after the last task",
    "learned": "just after learning",
    "forgetting": "forgotten",
    "backward": "backward transfer",
    "forward": "forward transfer",
}


def tasks_table(facts: Facts) -> Table | None:
    """What runs over tasks keep (`docs/continual.md`), mean and spread over seeds; None for none."""
    lines = [line for line in facts.lines if any(one.summary for one in line.done)]
    if not lines:
        return None
    columns = [Column("#"), Column("variant", number=False), *(Column(title) for title in TASKS.values())]
    rows: list[tuple[Cell, ...]] = []
    for line in lines:
        cells = [Cell(str(line.number)), Cell(line.row.words, spec_of(line))]
        for name in TASKS:
            values = [one.summary[name] for one in line.done if name in one.summary]
            note = f"± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            text = f"{statistics.fmean(values):.3f}" if values else ""
            cells.append(Cell(text, place_of(line), note))
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))
