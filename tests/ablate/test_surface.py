"""Costs as functions of two widths, and the narrowing of one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nldsl.ablate.search import neighbours
from nldsl.ablate.surface import Surface

small = st.integers(0, 9)


@given(st.lists(small, min_size=6, max_size=6), st.integers(1, 60), st.integers(1, 60))
def test_a_polynomial_is_met_everywhere(terms: list[int], rows: int, columns: int) -> None:
    def amount(a: int, b: int) -> int:
        cubic = terms[4] * a * b * b + terms[5] * (a**3 + b**3)
        return terms[0] + terms[1] * a + terms[2] * a * b + terms[3] * b * b + cubic

    first, second = range(4, 4 + 4 * rows, 4), range(3, 3 + columns)
    surface = Surface.fit(amount, first, second)
    assert surface is not None
    for row in (0, rows // 2, rows - 1):
        for column in (0, columns // 3, columns - 1):
            wanted = amount(first[row], second[column])
            assert abs(surface.at(row, column) - wanted) <= 1e-9 * max(wanted, 1)


def test_the_curve_passes_the_goal_between_two_columns() -> None:
    first, second = range(4, 40, 4), range(1, 50)
    surface = Surface.fit(lambda a, b: a * b, first, second)
    assert surface is not None
    found = surface.curve(120)
    assert (0.0, 4, 30) in found
    assert (0.0, 24, 5) in found
    assert {a for _, a, _ in found} == set(first)


def test_of_many_rows_some_are_asked_up_to_the_last_ones() -> None:
    surface = Surface.fit(lambda a, b: a + b, range(1, 3501), range(1, 5))
    assert surface is not None
    rows = sorted({a for _, a, _ in surface.curve(9)})
    assert (rows[0], len(rows), rows[-1]) == (1, 875, 3497)


def test_no_surface_where_a_value_has_none() -> None:
    assert Surface.fit(lambda a, b: None if a == 4 else a * b, range(4, 40, 4), range(1, 50)) is None


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=80),
    st.integers(0, 3000),
    st.sets(st.integers(0, 79), max_size=6),
)
def test_neighbours_are_on_both_sides_of_the_goal(steps: list[int], goal: int, holes: set[int]) -> None:
    amounts = [sum(steps[: i + 1]) for i in range(len(steps))]
    valid = [i for i in range(len(steps)) if i not in holes]
    asked: list[int] = []

    def amount(index: int) -> int | None:
        asked.append(index)
        return None if index in holes else amounts[index]

    found = neighbours(amount, range(len(steps)), goal)
    if not valid:
        assert found == []
        return
    nearest = min(abs(amounts[i] - goal) for i in valid)
    assert min(abs(amounts[i] - goal) for i in found) == nearest
    assert len(asked) <= 3 * len(holes) + 2 + 2 * 7


def test_where_the_middle_has_no_amount_what_is_beside_it_is_asked() -> None:
    assert neighbours(lambda n: None if 48 <= n <= 52 else n, range(101), 50) == [47, 53]
