"""Which widths a search takes where several hold a budget, with a formula in place of a spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from nldsl.ablate import search
from nldsl.ablate.search import FAR, NEAR, Search
from nldsl.ablate.widths import Width

Given = dict[str, int]
Amount = Callable[[Given], int | None]
Widths = Mapping[str, tuple[int, str]]
"""Each width with its value and a letter for every component that it touches."""


class Formula:
    """What a spec costs by a formula of its widths, as `nldsl.ablate.widths.Measured` says it."""

    def __init__(self, values: Given, amount: Amount) -> None:
        self.values, self.formula = values, amount

    def amount(self, given: Given) -> int | None:
        return self.formula(self.values | given)

    at = amount

    def resolved(self, given: Given) -> Given:
        return given


def searched(amount: Amount, widths: Widths, goal: int, within: float = 0.0) -> tuple[Search, list[Width]]:
    measured = Formula({path: value for path, (value, _) in widths.items()}, amount)
    chosen = [Width(path, value, frozenset(touched)) for path, (value, touched) in widths.items()]
    return Search(measured, {}, within, goal), chosen  # type: ignore[arg-type]


def taken(amount: Amount, widths: Widths, goal: int, within: float = 0.0) -> Given | None:
    one, chosen = searched(amount, widths, goal, within)
    return one.best(chosen)


def total(**weights: int) -> Amount:
    """The sum of the widths, each so many times."""
    return lambda values: sum(weight * values[path] for path, weight in weights.items())


@pytest.fixture(autouse=True)
def unsound(monkeypatch: pytest.MonkeyPatch) -> list[Given]:
    """Widths that a test puts here have an error of the checks beside that of the variant."""
    found: list[Given] = []
    old, new = {("NL0000", "wrong already")}, {("NL0001", "wrong")}
    monkeypatch.setattr(search, "errors_of", lambda spec: old | (new if spec in found else set()))
    return found


# --------------------------------------------------------------------------- one width


def test_the_smallest_change_is_that_of_the_share() -> None:
    assert taken(total(a=6, b=1), {"a": (10, "x"), "b": (100, "y")}, 190) == {"b": 130}  # and not a = 15


def test_fewer_components_count_more_than_a_small_change() -> None:
    assert taken(total(a=10, b=9), {"a": (10, "x"), "b": (100, "xy")}, 1090) == {"a": 19}  # and not b = 110


def test_a_width_near_its_value_counts_more_than_fewer_components() -> None:
    assert taken(total(a=5, b=2), {"a": (10, "x"), "b": (100, "xy")}, 350) == {"b": 150}  # and not a = 30
    assert taken(total(a=5), {"a": (10, "x")}, 150) == {"a": 30}


def test_two_widths_near_their_values_count_more_than_one_far_away() -> None:
    def amount(values: Given) -> int | None:
        return 4 * values["a"] + values["b"] if values["b"] % 40 == 0 else None

    assert taken(amount, {"a": (10, "x"), "b": (120, "y")}, 244) == {"a": 11, "b": 200}  # and not a = 31


def test_of_two_values_that_are_as_near_the_smaller_change_is_taken() -> None:
    assert taken(total(a=10), {"a": (10, "x")}, 145, 0.04) == {"a": 14}
    assert taken(total(a=10), {"a": (20, "x")}, 145, 0.04) == {"a": 15}


def test_no_width_is_more_than_eight_times_or_less_than_an_eighth() -> None:
    assert taken(total(a=1), {"a": (10, "x")}, 100) == {"a": 80}
    assert taken(total(a=1), {"a": (80, "x")}, 1) == {"a": 10}


def test_a_width_goes_up_to_its_bounds_in_its_own_steps() -> None:
    one, (width,) = searched(total(a=1), {"a": (10, "x")}, 1)
    assert one.values(width, NEAR) == range(5, 21)
    one, (width,) = searched(total(a=1), {"a": (1, "x")}, 1)
    assert one.values(width, FAR) == range(1, 9)
    one, (width,) = searched(lambda v: v["a"] if v["a"] % 6 == 0 else None, {"a": (18, "x")}, 1)
    assert one.values(width, NEAR) == range(12, 37, 6)
    one, (width,) = searched(lambda v: v["a"] if v["a"] == 18 else None, {"a": (18, "x")}, 1)
    assert list(one.values(width, NEAR)) == [18, 36]  # nothing else is known of it


def test_the_bound_is_a_share_of_the_goal_and_holds_to_the_last_number() -> None:
    one, _ = searched(total(a=1), {"a": (1, "x")}, 100, 0.29)  # 0.29 * 100 is less than 29
    assert [one.meets(amount) for amount in (70, 71, 129, 130, None)] == [False, True, True, False, False]


def test_what_has_an_error_is_not_taken(unsound: list[Given]) -> None:
    unsound.append({"a": 15})
    assert taken(total(a=10), {"a": (10, "x")}, 148, 0.06) == {"a": 14}


# --------------------------------------------------------------------------- two widths


def test_of_two_widths_the_values_that_change_least_are_taken(unsound: list[Given]) -> None:
    wide = {"a": (1000, "x"), "b": (100, "y")}
    assert taken(total(a=1, b=10), wide, 3505) == {"a": 1755, "b": 175}
    unsound.append({"a": 1755, "b": 175})
    assert taken(total(a=1, b=10), wide, 3505) == {"a": 1745, "b": 176}


def test_within_the_bound_less_change_counts_more_than_what_is_nearest() -> None:
    two = {"a": (20, "x"), "b": (100, "y")}
    assert taken(total(a=3, b=10), two, 1265, 0.0016) == {"a": 22, "b": 120}  # 1; b = 119 has a = 25 and 0
    low = total(a=3, b=10)  # the same where the least values have errors
    assert taken(lambda v: low(v) if v["b"] >= 60 else None, two, 1265, 0.0016) == {"a": 22, "b": 120}


def test_the_two_that_touch_the_fewest_components_together_are_taken() -> None:
    four = {"a": (10, "u"), "b": (10, "xy"), "c": (10, "xy"), "d": (10, "zw")}
    assert taken(total(a=2, b=3, c=2, d=3), four, 101) == {"b": 11, "c": 9}


def test_two_widths_may_both_be_at_their_bounds() -> None:
    assert taken(total(a=3, b=5), {"a": (10, "x"), "b": (10, "y")}, 160) == {"a": 20, "b": 20}


def test_where_nothing_holds_the_nearest_of_all_is_taken() -> None:
    two = {"a": (20, "x"), "b": (100, "y")}
    found = taken(total(a=6, b=10), two, 1325)
    assert found is not None
    assert len(found) == 2
    amount = total(a=6, b=10)(dict.fromkeys(two, 0) | {"a": 20, "b": 100} | found)
    assert amount is not None
    assert abs(amount - 1325) == 1
