"""Simulate studies with known effects, and print how often intervals and verdicts are right.

`python scripts/simulate_studies.py` prints the tables of `docs/studies.md`: the lengths of documents are
those that the corpus of the library holds out, and what differs by chance is spread over seeds, documents and
single runs as the rows say.  Widths are in standard errors of the effect; 1.96 and 2.73 would be those of a
known spread.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from nldsl.ablate.statistics import ALPHA, Sample, effects, spread_of
from nldsl.data.corpus import load

CASES = {
    "seeds": (0.9, 0.05, 0.05),
    "documents": (0.05, 0.9, 0.05),
    "single runs": (0.05, 0.05, 0.9),
    "seeds and documents": (0.5, 0.5, 0.0),
    "all three": (0.34, 0.33, 0.33),
    "all three, heavy tails": (0.34, 0.33, 0.33),
}
VARIANTS = 8


def tokens() -> np.ndarray:
    """The lengths of the corpus' held-out documents: `[documents]`."""
    return np.array([document.size for document in load("sotu").documents if document.held_out], dtype=float)


def drawn(chance: np.random.Generator, case: str, seeds: int, weights: np.ndarray, count: int) -> np.ndarray:
    """Deviations `[count, seeds, documents]` whose mean by `weights` has variance 1."""
    effective = weights.sum() ** 2 / (weights**2).sum()
    shape = {"seeds": (count, seeds, 1), "documents": (count, 1, len(weights))}
    sizes = [
        math.sqrt(s * n) for s, n in zip(CASES[case], (seeds, effective, seeds * effective), strict=True)
    ]
    found = np.zeros((count, seeds, len(weights)))
    for size, of in zip(sizes, (*shape.values(), found.shape), strict=True):
        heavy = case.endswith("heavy tails")
        found += size * (chance.standard_t(3, of) / math.sqrt(3) if heavy else chance.standard_normal(of))
    return found


def sample(values: np.ndarray, weights: np.ndarray) -> Sample:
    """Values `[seeds, documents]` as what a variant measured."""
    seeds, documents = values.shape
    names = tuple(f"{number:03}" for number in range(documents))
    return Sample(values, np.tile(weights, (seeds, 1)), tuple(range(seeds)), names)


def coverage(case: str, seeds: int, level: float, studies: int) -> tuple[float, float]:
    """How often an interval covers the truth, and how far it reaches in the mean."""
    chance, weights = np.random.default_rng([7, seeds]), tokens()
    hits, width = 0, 0.0
    for _ in range(studies):
        values = drawn(chance, case, seeds, weights, 1)[0]
        half = spread_of(sample(values, weights), sample(np.zeros_like(values), weights)).reach(level)
        hits += abs(np.average(values, axis=1, weights=weights).mean()) <= half
        width += half
    return hits / studies, width / studies


def verdicts(case: str, seeds: int, real: int, studies: int) -> dict[str, float]:
    """Of studies of eight variants, `real` of which are worse by six standard errors: how many say anything
    false, how many would without a correction, in how many all intervals cover, and what is found.
    """
    chance, weights = np.random.default_rng([11, seeds]), tokens()
    names = [f"v{number}" for number in range(VARIANTS)]
    truth = [6.0 if number < real else 0.0 for number in range(VARIANTS)]
    counts = dict.fromkeys(("false", "false without correction", "all covered", "found"), 0.0)
    for _ in range(studies):
        # The baseline is one of them, so that effects are correlated.
        values = drawn(chance, case, seeds, weights, VARIANTS + 1) / math.sqrt(2)
        given = {name: sample(values[i] + truth[i], weights) for i, name in enumerate(names)}
        found = effects(given | {"base": sample(values[-1], weights)}, "base", names)
        told = [effect.verdict in ("worse", "better") for effect in found]
        wrong = [t and (i >= real or found[i].mean < 0) for i, t in enumerate(told)]
        counts["false"] += any(wrong)
        counts["false without correction"] += any(effect.p <= ALPHA for effect in found[real:])
        counts["all covered"] += all(e.low <= m <= e.high for e, m in zip(found, truth, strict=True))
        counts["found"] += sum(told[:real]) / max(1, real)
    return {name: count / studies for name, count in counts.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    options = parser.parse_args()
    print(f"| what differs by chance | {' | '.join(f'{s} seeds' for s in options.seeds)} |")
    print(f"|---|{'---|' * len(options.seeds)}")
    for case in CASES:
        cells: list[str] = []
        for seeds in options.seeds:
            found = [coverage(case, seeds, level, options.studies) for level in (ALPHA, ALPHA / VARIANTS)]
            cells.append(", ".join(f"{100 * hit:.1f} % ({width:.2f})" for hit, width in found))
        print(f"| {case} | {' | '.join(cells)} |", flush=True)
    for case in CASES:
        for seeds in (s for s in options.seeds if s >= 5):
            for real in (0, VARIANTS):
                said = verdicts(case, seeds, real, options.studies)
                words = ", ".join(f"{name} {100 * share:.1f} %" for name, share in said.items())
                print(f"{case}, {seeds} seeds, {real} real: {words}", flush=True)


if __name__ == "__main__":
    main()
