"""The numbers of a report for other programs: a row for each trial, and one for each effect."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

from nldsl.ablate.report.facts import Facts

RUNS = ("variant", "words", "seed", "state", "step", "steps")
COSTS = ("parameters", "flops_per_token", "state_bytes", "cpu_seconds", "tokens_per_second")
PLACES = ("digest", "spec", "run", "problem")
EFFECTS = ("scale", "mean", "low", "high", "level", "p", "adjusted", "seeds", "documents", "verdict")


def runs(facts: Facts) -> str:
    """A row for each trial, with its final measures, its costs, its spec and its folder in the study."""
    head = (*RUNS, *facts.measures, *COSTS, *PLACES)
    rows = [
        (
            *(line.row.name, line.row.words, one.seed, one.state, one.step, one.steps),
            *(one.measures.get(measure) for measure in facts.measures),
            *(line.row.parameters, line.row.flops_per_token, line.row.state_bytes),
            *(one.seconds or None, one.tokens_per_second or None, line.row.digest),
            *(f"variants/{line.row.name}/spec.nl", f"runs/{line.row.name}/seed-{one.seed}", one.problem),
        )
        for line in facts.lines
        for one in line.outcomes
    ]
    return _written(head, rows)


def effects(facts: Facts) -> str:
    """A row for each variant and measure."""
    head = ("variant", "words", "measure", "baseline", *EFFECTS, "digest", "spec", "runs")
    rows = [
        (
            *(line.row.name, line.row.words, measure, facts.baseline.row.name),
            *(getattr(effect, name) for name in EFFECTS),
            *(line.row.digest, f"variants/{line.row.name}/spec.nl", f"runs/{line.row.name}"),
        )
        for line in facts.others
        for measure, effect in line.effects.items()
    ]
    return _written(head, rows)


def _written(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_shown(value) for value in row] for row in rows)
    return text.getvalue()


def _shown(value: object) -> object:
    """Numbers in full; what is not known or not finite is empty."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(value) if isinstance(value, float) else value
