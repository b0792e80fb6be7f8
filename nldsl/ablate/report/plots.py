"""The pictures of a report: effects, curves, cost against quality, and what is left of each task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from nldsl.ablate.report import words as w
from nldsl.ablate.report.facts import Curve, Facts, Line, Outcome
from nldsl.ablate.statistics import Effect, higher_is_better
from nldsl.run.look import COLOURS, GREY, svg

WORSE, BETTER, BASE = COLOURS[1], COLOURS[2], COLOURS[0]
NAMED = 8
"""Variants that get a colour of their own in one panel; where there are more, they are grey but for these."""


def effects(facts: Facts, measure: str | None = None) -> str:
    """Effects with their intervals, the worst first, and the difference of each seed; "" for none."""
    measure = measure or facts.measure
    found = [(line, effect) for line in facts.others if _told(effect := line.effects.get(measure))]
    if not found:
        return ""
    worse = -1 if higher_is_better(measure) else 1
    found.sort(key=lambda pair: -worse * pair[1].mean)
    digits = w.digits_for(effect for _, effect in found)

    def paint(canvas: Any) -> None:
        axes = canvas.add_subplot()
        axes.patch.set_alpha(0)
        axes.axvline(0, color=GREY, linewidth=1)
        for place, (line, effect) in enumerate(found):
            _one_effect(axes, place, line, effect, facts, measure)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_yticks(
            range(len(found)), [f"{line.number}  {w.short(line.row.words, 48)}" for line, _ in found]
        )
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        unit = "%" if found[0][1].scale == "relative" else w.unit_of(measure, facts)
        which = "higher" if worse < 0 else "lower"
        axes.set_xlabel(
            f"{w.title_of(measure)} less the baseline's{f', {unit}' if unit else ''} ({which} is better)"
        )
        axes.margins(x=0.06)
        right = axes.get_yaxis_transform()
        for place, (_, effect) in enumerate(found):
            label = w.shift(effect.mean, effect, digits)
            axes.text(1.01, place, label, transform=right, va="center", ha="left", fontsize=9)

    return svg(paint, height=1.0 + 0.3 * len(found))


def _told(effect: Effect | None) -> TypeGuard[Effect]:
    return effect is not None and math.isfinite(effect.mean)


def _one_effect(axes: Any, place: int, line: Line, effect: Effect, facts: Facts, measure: str) -> None:
    colour = {"worse": WORSE, "better": BETTER}.get(effect.verdict, GREY)
    relative = effect.scale == "relative"
    scale = 100 if relative else 1
    differences = [scale * value for _, value in paired(line, facts.baseline, measure, relative=relative)]
    axes.plot(
        differences,
        [place] * len(differences),
        marker="|",
        markersize=7,
        markeredgewidth=0.8,
        linestyle="none",
        color=colour,
        alpha=0.55,
    )
    if w.has_interval(effect):
        axes.plot(
            [scale * effect.low, scale * effect.high],
            [place, place],
            color=colour,
            linewidth=2.2,
            solid_capstyle="butt",
        )
    hollow = effect.verdict == "too few seeds"
    face = "none" if hollow else colour
    axes.plot(
        scale * effect.mean, place, marker="o", markersize=6, color=colour, markerfacecolor=face, zorder=3
    )


def paired(line: Line, base: Line, measure: str, *, relative: bool = False) -> list[tuple[int, float]]:
    """(seed, difference from the baseline, or its share of it) of the seeds with which both are done."""
    theirs = {one.seed: one.measures[measure] for one in base.done if measure in one.measures}
    pairs = [(one.seed, one.measures[measure]) for one in line.done if measure in one.measures]
    return [
        (seed, (value - theirs[seed]) / (theirs[seed] if relative else 1.0))
        for seed, value in pairs
        if seed in theirs
    ]


# --------------------------------------------------------------------------- curves


def curves(facts: Facts) -> str:
    """The held-out loss of every variant while it learns, mean over seeds; "" where there is no curve."""
    found = [(line, mean_curve([one.curve for one in settled(line.outcomes)])) for line in facts.lines]
    found = [(line, curve) for line, curve in found if len(curve) > 1]
    if not found:
        return ""
    coloured = _coloured(found, facts)

    def paint(canvas: Any) -> None:
        axes = canvas.add_subplot()
        axes.patch.set_alpha(0)
        for line, curve in found:
            colour = coloured.get(line.number)
            for one in line.outcomes if colour else ():
                if len(one.curve) > 1:
                    axes.plot(*zip(*one.curve, strict=True), color=colour, linewidth=0.6, alpha=0.3)
            axes.plot(
                *zip(*curve, strict=True),
                color=colour or GREY,
                linewidth=2.4 if line is facts.baseline else 1.5 if colour else 0.6,
                alpha=1 if colour else 0.5,
                zorder=3 if line is facts.baseline else 2 if colour else 1,
                label=f"{line.number}  {w.short(line.row.words, 34)}" if colour else None,
            )
        _focus(axes, [curve for _, curve in found])
        axes.set_xlabel("step")
        axes.set_ylabel(f"held-out loss, nats per {facts.unit}")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, labelcolor=GREY)

    return svg(paint, width=10.5, height=3.8)


def _focus(axes: Any, shown: Sequence[Curve]) -> None:
    """Leave out the fall at the start: it is the same for all, and hides what differs."""
    last = [curve[-1][1] for curve in shown]
    end = max(curve[-1][0] for curve in shown)
    later = [loss for curve in shown for step, loss in curve if step >= 0.2 * end] or last
    low, high = min(last), max(later)
    pad = 0.06 * (high - low or 1.0)
    axes.set_ylim(low - pad, high + pad)


def _coloured(found: Sequence[tuple[Line, Curve]], facts: Facts) -> dict[int, str]:
    """Colours by number: the baseline, and the variants that ended furthest from it."""
    base = next((curve[-1][1] for line, curve in found if line is facts.baseline), 0.0)
    others = [(line, curve) for line, curve in found if line is not facts.baseline]
    far = sorted(others, key=lambda pair: -abs(pair[1][-1][1] - base))[: NAMED - 1]
    numbers = sorted(line.number for line, _ in far)
    return {facts.baseline.number: BASE} | dict(zip(numbers, (*COLOURS[1:],) * 2, strict=False))


def settled(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The trials of which a mean is shown: those that are done, or all that have curves where none is.

    What has just begun, or has diverged, would end the curve of the whole variant.
    """
    known = [one for one in outcomes if len(one.curve) > 1]
    return [one for one in known if one.done] or known


def mean_curve(some: Sequence[Curve]) -> Curve:
    """The mean over the curves, at the steps that all of them have.

    >>> mean_curve([((1, 2.0), (2, 1.0)), ((1, 4.0),)])
    ((1, 3.0),)
    """
    known = [dict(curve) for curve in some if curve]
    if not known:
        return ()
    steps = sorted(set.intersection(*(set(curve) for curve in known)))
    return tuple((step, statistics.fmean(curve[step] for curve in known)) for step in steps)


def differences(facts: Facts) -> str:
    """How the difference from the baseline grew, a panel for each variant: each seed, and their mean."""
    base = {one.seed: dict(one.curve) for one in facts.baseline.outcomes}
    panels: list[tuple[Line, list[Curve], Curve]] = []
    for line in facts.others:
        paired = [
            replace(one, curve=tuple((i, x - base[one.seed][i]) for i, x in one.curve if i in base[one.seed]))
            for one in line.outcomes
            if one.seed in base
        ]
        lines = [one.curve for one in paired if len(one.curve) > 1]
        if lines:
            panels.append((line, lines, mean_curve([one.curve for one in settled(paired)])))
    if not panels:
        return ""
    columns = 5 if len(panels) > 16 else 4 if len(panels) > 6 else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    ends = [mean[-1][1] for _, _, mean in panels if mean]
    bound = _bound([loss for _, some, _ in panels for curve in some for _, loss in curve], ends)

    def paint(canvas: Any) -> None:
        grid = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (line, some, mean) in zip(grid.flat, panels, strict=False):
            axes.patch.set_alpha(0)
            axes.axhline(0, color=BASE, linewidth=1)
            colour = _colour_of(line, facts)
            for curve in some:
                axes.plot(*zip(*curve, strict=True), color=colour, linewidth=0.7, alpha=0.45)
            if mean:
                axes.plot(*zip(*mean, strict=True), color=colour, linewidth=1.9)
            axes.set_title(
                f"{line.number}  {w.short(line.row.words, 26)}", fontsize=9, color=GREY, loc="left"
            )
            axes.set_ylim(-bound, bound)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        canvas.supxlabel("step", fontsize=10, color=GREY)
        of = "\n" if rows == 1 else " "  # one row is not as high as the words are long
        canvas.supylabel(f"nats per {facts.unit}{of}above the baseline", fontsize=10, color=GREY)

    return svg(paint, width=10.5, height=0.7 + 1.5 * rows)


def _bound(values: Sequence[float], ends: Sequence[float]) -> float:
    """Where the panels end: what came out lies inside, and single excesses at the start need not."""
    sizes = sorted(abs(value) for value in values if math.isfinite(value))
    most = sizes[int(0.97 * (len(sizes) - 1))] if sizes else 0.8
    return 1.25 * max(most, *(abs(end) for end in ends if math.isfinite(end)), 1e-6)


def _colour_of(line: Line, facts: Facts) -> str:
    effect = line.effects.get(facts.measure)
    return {"worse": WORSE, "better": BETTER}.get(effect.verdict, GREY) if effect is not None else GREY


# --------------------------------------------------------------------------- cost, tasks


def costs(facts: Facts, measure: str | None = None) -> str:
    """The measure against each cost in which the variants differ; the numbers are those of the table."""
    measure = measure or facts.measure
    lines = [line for line in facts.lines if line.mean(measure) is not None]
    kinds = [
        ("parameters", {line.number: float(line.row.parameters) for line in lines}),
        ("FLOPs a token", {line.number: float(line.row.flops_per_token) for line in lines}),
        ("CPU seconds a trial", {line.number: line.seconds or 0.0 for line in lines}),
    ]
    kinds = [(name, cost) for name, cost in kinds if len({round(c, 6) for c in cost.values() if c}) > 1]
    if len(lines) < 2 or not kinds:
        return ""

    def paint(canvas: Any) -> None:
        from matplotlib.ticker import EngFormatter, MaxNLocator

        grid = canvas.subplots(1, len(kinds), sharey=True, squeeze=False)
        for axes, (name, cost) in zip(grid.flat, kinds, strict=True):
            axes.patch.set_alpha(0)
            for line in lines:
                if cost[line.number]:
                    _one_cost(axes, line, cost[line.number], facts, measure)
            axes.set_xlabel(name)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            if "seconds" not in name:
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.margins(x=0.12, y=0.1)
        unit = w.unit_of(measure, facts)
        grid.flat[0].set_ylabel(f"{w.title_of(measure)}{f', {unit}' if unit else ''}")

    return svg(paint, width=10.5, height=3.4)


def _one_cost(axes: Any, line: Line, cost: float, facts: Facts, measure: str) -> None:
    mean, spread = line.mean(measure), line.spread(measure)
    colour = BASE if line is facts.baseline else _colour_of(line, facts)
    axes.errorbar(
        cost, mean, yerr=spread, color=colour, marker="o", markersize=5.5, elinewidth=1, linestyle="none"
    )
    axes.annotate(
        str(line.number), (cost, mean), xytext=(5, 4), textcoords="offset points", fontsize=9, color=colour
    )


def forgetting(facts: Facts) -> str:
    """What each task gets while later ones are learned, a panel a variant; "" for no tasks."""
    lines = [line for line in facts.lines if any(len(one.tasks) > 1 for one in line.done)]
    if not lines:
        return ""
    columns = min(4, len(lines))
    rows = math.ceil(len(lines) / columns)

    def paint(canvas: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        grid = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, line in zip(grid.flat, lines, strict=False):
            axes.patch.set_alpha(0)
            matrices = [one.tasks for one in line.done if len(one.tasks) > 1]
            for task in range(len(matrices[0][0])):
                after = range(task + 1, len(matrices[0]))
                means = [statistics.fmean(matrix[i][task] for matrix in matrices) for i in after]
                colour = COLOURS[task % len(COLOURS)]
                axes.plot(list(after), means, color=colour, marker="o", markersize=3, linewidth=1.4)
                for matrix in matrices:
                    axes.plot(
                        list(after), [matrix[i][task] for i in after], color=colour, linewidth=0.5, alpha=0.4
                    )
            axes.set_title(
                f"{line.number}  {w.short(line.row.words, 28)}", fontsize=9, color=GREY, loc="left"
            )
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in grid.flat[len(lines) :]:
            axes.set_visible(False)
        canvas.supxlabel("tasks learned", fontsize=10, color=GREY)
        canvas.supylabel(facts.asked, fontsize=10, color=GREY)

    return svg(paint, width=10.5, height=0.8 + 1.9 * rows)
