"""From the trials of the study to its tables and its plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bench.continual.plan import RATES, TUNING, Arm, Study, Trial, trials_of

COLUMNS = ("average", "learned", "forgetting", "backward", "forward")
BEGIN, END = "<!-- made: continual -->", "<!-- end -->"
COLOURS = {"Hope,": "#b5452c", "Hope-Attention,": "#2c6fb5", "Transformer,": "#555555"}


def summary(study: Study, arm: Arm, trial: Trial, out: Path) -> dict[str, float] | None:
    """What a trial gave by the study's measure; None where it has not been run."""
    found = _read(out / "trials" / trial.name)
    if found is None:
        return None
    return found["frozen" if arm.way == "frozen" else "summary"][study.measure]


def tuned(study: Study, arm: Arm, seed: int, out: Path) -> Trial:
    """The trial of `seed` with the rate (and strength) whose final average on the seed of tuning is best."""
    best: tuple[float, Trial] | None = None
    for trial in trials_of(study, arm, TUNING, RATES):
        found = summary(study, arm, trial, out)
        if found is None:
            continue
        value = -found["average"] if study.lower_is_better else found["average"]
        if best is None or value > best[0]:
            best = (value, trial)
    assert best is not None, f"{study.name}, {arm.name} has not been tuned"
    return replace(best[1], seed=seed)


def results(study: Study, arm: Arm, out: Path) -> tuple[Trial, list[dict[str, float]]]:
    """The chosen trial of an arm, and what it gave with each seed that has been run."""
    chosen = [tuned(study, arm, seed, out) for seed in study.seeds]
    found = [summary(study, arm, trial, out) for trial in chosen]
    return chosen[0], [one for one in found if one is not None]


def _tried(study: Study, arm: Arm, out: Path) -> bool:
    return all((out / "trials" / trial.name).is_file() for trial in trials_of(study, arm, TUNING, RATES))


def write(studies: Sequence[Study], arms: Sequence[Arm], out: Path) -> str:
    """Write `continual.md` and `continual.svg` into `out`; returns the tables as Markdown."""
    made = [study for study in studies if any(_tried(study, arm, out) for arm in arms)]
    text = "\n\n".join(table(study, arms, out) for study in made) + "\n"
    (out / "continual.md").write_text(text, encoding="utf-8")
    plot(studies, arms, out, out / "continual.svg")
    return text


def document(out: Path, docs: Path) -> None:
    """Put the tables and the plot of `out` into `docs/continual.md`."""
    page = docs / "continual.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest[rest.index(END) :]
    tables = (out / "continual.md").read_text(encoding="utf-8")
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n{after}", encoding="utf-8")
    (docs / "pictures" / "continual.svg").write_bytes((out / "continual.svg").read_bytes())


def table(study: Study, arms: Sequence[Arm], out: Path) -> str:
    """A table of one study: mean and standard deviation over seeds."""
    lines = [
        f"| {study.name}, by {study.said} | parameters | rate | seeds | {' | '.join(COLUMNS)} |",
        f"|---|{'---|' * (3 + len(COLUMNS))}",
    ]
    for arm in arms:
        if not _tried(study, arm, out):
            continue
        trial, found = results(study, arm, out)
        content = _read(out / "trials" / trial.name) or {}
        asked = COLUMNS if arm.way != "joint" else COLUMNS[:1]  # without an order nothing is forgotten
        cells = [spread([one[column] for one in found]) if column in asked else "" for column in COLUMNS]
        rate = f"{trial.rate:g}" + (f", penalty {trial.strength:g}" if trial.strength else "")
        sizes = f"{content.get('parameters', 0):,} | {rate} | {len(found)}"
        lines.append(f"| {arm.name} | {sizes} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation.

    >>> spread([0.5, 0.25, 0.75]), spread([0.5])
    ('0.500 ± 0.250', '0.500')
    """
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def plot(studies: Sequence[Study], arms: Sequence[Arm], out: Path, target: Path) -> None:
    """Final average and forgetting of every arm, a dot for each seed and a line at their mean."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "nldsl"
    from matplotlib import pyplot as plt

    studies = [study for study in studies if any(_tried(study, arm, out) for arm in arms)]
    shown = [arm for arm in arms if any(_tried(study, arm, out) for study in studies)]
    figure, axes = plt.subplots(
        len(studies),
        2,
        figsize=(9.5, 0.6 + 0.27 * (len(shown) + 2) * len(studies)),
        squeeze=False,
        sharey=True,
    )
    for row, study in zip(axes, studies, strict=True):
        for axis, column in zip(row, ("average", "forgetting"), strict=True):
            for place, arm in enumerate(shown):
                found = results(study, arm, out)[1] if _tried(study, arm, out) else []
                values = [one[column] for one in found]
                if not values or (arm.way == "joint" and column != "average"):
                    continue
                colour = next(c for head, c in COLOURS.items() if arm.name.startswith(head))
                axis.plot(values, [place] * len(values), "o", color=colour, alpha=0.45, markersize=4, mew=0)
                axis.plot([mean(values)], [place], "|", color=colour, markersize=11, markeredgewidth=2)
            better = "lower" if column == "forgetting" or study.lower_is_better else "higher"
            what = f"{study.said}, mean of all at the end" if column == "average" else "forgetting"
            axis.set_title(f"{study.name}: {what}\n{better} is better", fontsize=8, loc="left")
            axis.set_yticks(range(len(shown)), [arm.name for arm in shown], fontsize=7)
            axis.tick_params(axis="x", labelsize=7)
            axis.grid(axis="x", color="#dddddd", linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
