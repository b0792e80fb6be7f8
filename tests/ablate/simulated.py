"""Facts of studies with simulated outcomes, to look at reports of them: none of this was measured."""

from __future__ import annotations

import math
import random
import statistics

from nldsl.ablate.report.facts import Facts, Line, Outcome
from nldsl.ablate.rows import Row, State
from nldsl.ablate.statistics import ENOUGH, Effect, Verdict

EFFECTS = {
    "without Simulated.momentum": 0.08,
    "Simulated.rule = gd": 0.0,
    "without Simulated.retain": -0.06,
    "replace Simulated.store by mlp(2 * dim) |> f_1": 0.0,
}


def study(
    *, variants: int = 4, seeds: int = 5, states: dict[tuple[int, int], State] | None = None, tasks: int = 0
) -> Facts:
    """A study of `variants` with `seeds`; `states` by (number of a variant, seed) are other than done."""
    draw = random.Random(7)
    names = [*EFFECTS, *(f"Simulated.width = {size}" for size in range(8, 8 + variants))][:variants]
    truth = [0.0, *(EFFECTS.get(name, 0.0) for name in names)]
    shared = [draw.gauss(0, 0.03) for _ in range(seeds)]
    rows = [Row("base", "Simulated", digest="0" * 64, parameters=1000, flops_per_token=5000, steps=100)]
    rows += [
        Row(f"v{i}", name, digest=f"{i:02x}" * 32, parameters=1000 + 10 * i, flops_per_token=5000, steps=100)
        for i, name in enumerate(names, start=1)
    ]
    outcomes = [
        tuple(
            _outcome(seed, (states or {}).get((i, seed), "done"), 2 + shared[seed] + effect, draw, tasks)
            for seed in range(seeds)
        )
        for i, effect in enumerate(truth)
    ]
    lines = [Line(i, row, outcomes[i]) for i, row in enumerate(rows)]
    lines[1:] = [Line(x.number, x.row, x.outcomes, {"loss": _effect(x, lines[0])}) for x in lines[1:]]
    return Facts(
        "Simulated_study",
        "Simulated",
        tuple(range(seeds)),
        ("loss",),
        lines[0],
        tuple(lines),
        unit="byte",
        documents=23,
        asked="accuracy" if tasks else "",
    )


def _outcome(seed: int, state: State, loss: float, draw: random.Random, tasks: int) -> Outcome:
    noisy = loss + draw.gauss(0, 0.005)
    if state != "done":
        return Outcome(seed, state, "the loss is not finite" if state == "diverged" else "", steps=100)
    curve = tuple((step, noisy + 3 * math.exp(-step / 20)) for step in (0, 25, 50, 75, 100))
    matrix = (
        tuple(tuple(0.9 if j < i else 0.5 for j in range(tasks)) for i in range(tasks + 1)) if tasks else ()
    )
    summary = {"average": 0.9, "learned": 0.9, "forgetting": 0.0} if tasks else {}
    return Outcome(seed, "done", "", {"loss": noisy}, 100, 100, 9.0, 500.0, curve, matrix, summary)


def _effect(line: Line, base: Line) -> Effect:
    theirs = {one.seed: one.measures["loss"] for one in base.done}
    found = [one.measures["loss"] - theirs[one.seed] for one in line.done if one.seed in theirs]
    if not found:
        return Effect(line.row.name, "loss")
    mean = statistics.fmean(found)
    reach = 3 * statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    verdict: Verdict = "too few seeds"
    if len(found) >= ENOUGH:
        verdict = "worse" if mean > reach else "better" if mean < -reach else "nothing can be told"
    return Effect(
        line.row.name,
        "loss",
        mean,
        mean - reach,
        mean + reach,
        seeds=len(found),
        documents=23,
        verdict=verdict,
    )
