"""A study folder as the facts of its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nldsl.ablate.report import words as w
from nldsl.ablate.report.facts import Facts, Line, Outcome
from nldsl.ablate.results import Found, Results, read
from nldsl.ablate.rows import Row
from nldsl.ablate.statistics import Effect, Reach, compare, reach


def gather(folder: Path | str) -> Facts:
    """What is known of the study in `folder`, finished or not; raises `RunError` where there is none."""
    return of_results(read(folder))


def of_results(results: Results) -> Facts:
    """The facts of a study that was read."""
    by_measure = {m: compare(results, m) for m in results.measures}
    asked = results.asked
    rows = [row for row in results.rows if row.problem is None]
    rows.sort(key=lambda row: row.name != results.baseline)  # the baseline first
    task = _asked(results.found)
    lines = tuple(_line(place, row, results, by_measure, task) for place, row in enumerate(rows))
    first = results.measures[0]
    start = _first_event(results)
    return Facts(
        name=asked.name,
        base=asked.base,
        seeds=tuple(asked.seeds),
        measures=tuple(asked.measures),
        baseline=lines[0],
        lines=lines,
        block=asked.block.strip(),
        unit=_unit(start),
        keep=asked.keep,
        broken=tuple(row for row in results.rows if row.problem is not None),
        documents=len(results.documents(results.baseline)),
        kind=results.unit,
        about=_about(results, start),
        notes=tuple(_notes(by_measure[first], reach(by_measure[first]), lines, first)),
        warnings=tuple(dict.fromkeys(found.message for found in results.warnings)),
        asked=task,
    )


def _line(place: int, row: Row, results: Results, effects: Mapping[str, Sequence[Effect]], task: str) -> Line:
    mine = {m: one for m, some in effects.items() for one in some if one.variant == row.name}
    outcomes = tuple(_outcome(results, found, row, task) for found in results.of(row.name))
    return Line(place, row, outcomes, mine)


def _outcome(results: Results, found: Found, row: Row, task: str) -> Outcome:
    trial = found.trial
    known = {m: value for m in results.measures if (value := found.measure(m)) is not None}
    tasks = found.tasks or {}
    return Outcome(
        seed=trial.seed,
        state=trial.state,
        problem=trial.problem,
        measures=known,
        step=trial.step,
        steps=trial.steps or row.steps,
        seconds=found.cpu_seconds or found.seconds,
        tokens_per_second=found.tokens_per_second,
        curve=found.curve,
        tasks=tuple(tuple(one[task]) for one in tasks.get("rows", ())) if task else (),
        summary=dict(tasks.get("summary", {}).get(task) or {}),
        begun=(results.folder / found.place).is_dir(),
    )


def _asked(found: Sequence[Found]) -> str:
    """What tasks are asked for: their accuracy where it says something, else their loss; "" for no tasks."""
    rows = [row for one in found for row in (one.tasks or {}).get("rows", ())]
    if not rows:
        return ""
    text = all(one.unit in ("document", "window") for one in found if one.tasks)
    return "loss" if text else "accuracy"


def _first_event(results: Results) -> Mapping[str, Any]:
    """The `start` of the first trial that has begun; empty where none has."""
    for one in results.found:
        try:
            with (results.folder / one.place / "log.jsonl").open(encoding="utf-8") as file:
                event = json.loads(file.readline())
        except (OSError, ValueError):
            continue  # it has not begun, or is just being written
        if isinstance(event, dict) and event.get("event") == "start":
            return event
    return {}


def _unit(start: Mapping[str, Any]) -> str:
    data = start.get("settings", {}).get("data", {})
    return "byte" if data.get("tokenizer") == "bytes" and not data.get("tasks") else "token"


def _about(results: Results, start: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """On what it was run.  No times of day and no places: the same study gives the same report."""
    data = start.get("settings", {}).get("data", {})
    done = [one for one in results.found if one.done]
    rows = [row for row in results.rows if row.name == results.baseline]
    told = [
        ("data", str(data.get("source", ""))),
        ("a step", f"{data['batch']} x {data['length']} tokens" if "length" in data else ""),
        ("steps", f"{rows[0].steps:,}" if rows and rows[0].steps else ""),
        ("device", f"{start['device']}, {start['precision']}" if start else ""),
        ("torch", w.listed(sorted({one.torch for one in done if one.torch}))),
        ("nldsl", w.listed(sorted({one.nldsl for one in done if one.nldsl}))),
    ]
    return tuple((name, value) for name, value in told if value)


def _notes(effects: Sequence[Effect], seen: Reach | None, lines: Sequence[Line], measure: str) -> list[str]:
    """What the statistics say of the study as a whole."""
    known = [effect for effect in effects if w.has_interval(effect)]
    if not known:
        return []
    drawn = "seeds and documents" if any(effect.documents for effect in known) else "seeds"
    many = w.counted(len(known), "comparison")
    told = [f"Intervals are from a bootstrap over {drawn}, each at the level that belongs to {many}"]
    if seen is None:
        return told
    told[0] += " (Holm)"
    told.append("Where nothing has an effect, at most 5 of 100 studies find one")
    unit = " nats" if measure in ("loss", "perplexity") else ""
    told.append(f"A study of this size finds an effect of {seen.visible:.2g}{unit} in 4 of 5 cases")
    if seen.variant:
        words = next(line.row.words for line in lines if line.row.name == seen.variant)
        size = f"{seen.smallest:.2g}{unit}, of {words}"
        if seen.seeds is None:
            told.append(
                f"No number of seeds would show one as small as the smallest found ({size}) everywhere: "
                "the held-out texts differ too much"
            )
        elif seen.seeds:
            told.append(
                f"It would take {w.counted(seen.seeds, 'seed')} to find one as small as the smallest found "
                f"({size}) wherever nothing can be told"
            )
    return told
