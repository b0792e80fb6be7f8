"""What the pictures of a report show: order, direction, and what lies inside of them."""

from __future__ import annotations

from typing import Any

import pytest

from nldsl.ablate.report import plots

from . import simulated


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are painted from now on."""
    from matplotlib.figure import Figure

    figures: list[Any] = []

    def svg(paint: Any, **_: float) -> str:
        figures.append(Figure())
        paint(figures[-1])
        return "<svg>"

    monkeypatch.setattr(plots, "svg", svg)
    return figures


def test_the_worst_effect_is_at_the_top_and_the_axis_says_which_way_is_better(drawn: list[Any]) -> None:
    facts = simulated.study()
    assert plots.effects(facts)
    (axes,) = drawn[0].axes
    numbers = [int(label.get_text().split()[0]) for label in axes.get_yticklabels()]
    means = {line.number: line.effects["loss"].mean for line in facts.others}
    assert numbers == sorted(means, key=lambda number: -means[number])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is at the top
    assert "(lower is better)" in axes.get_xlabel()
    shown = [line.get_color() for line in axes.lines if line.get_marker() == "o"]
    assert (shown[0], shown[-1]) == (plots.WORSE, plots.BETTER)


def test_what_is_worse_grows_above_the_baseline_and_its_end_lies_inside(drawn: list[Any]) -> None:
    facts = simulated.study()
    assert plots.differences(facts)
    axes = drawn[0].axes[0]  # without momentum: worse
    ends = [line.get_ydata()[-1] for line in axes.lines[1:]]
    assert min(ends) > 0
    assert axes.lines[-1].get_color() == plots.WORSE
    assert plots._bound([0.1] * 100, [2.0]) == 2.5


def test_curves_leave_out_the_fall_at_the_start(drawn: list[Any]) -> None:
    facts = simulated.study()
    assert plots.curves(facts)
    top = drawn[0].axes[0].get_ylim()[1]
    curves = [one.curve for line in facts.lines for one in line.outcomes]
    assert all(curve[1][1] < top < curve[0][1] for curve in curves)


def test_the_variants_furthest_from_the_baseline_have_colours() -> None:
    facts = simulated.study(variants=18)
    ends = [2.0] + [2.0 + 0.1 * number for number in range(1, 19)]
    found = [(line, ((0, 4.0), (100, end))) for line, end in zip(facts.lines, ends, strict=True)]
    assert set(plots._coloured(found, facts)) == {0, *range(12, 19)}
