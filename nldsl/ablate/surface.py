"""A cost as a function of two widths, from ten values of it.

Parameters are a polynomial in the widths of a spec, and FLOPs nearly so: products of two widths, or of three
where a matrix is made orthogonal.  Ten values fix one of degree three (Newton's forward differences); that
one is asked at every pair of widths, and what it says is nearest is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

DEGREE = 3
MOST_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Surface:
    """A polynomial in the places of two values in their ranges.

    `terms[i][j]` is the i-th difference along the first and the j-th along the second, `strides` the places
    between the values that were asked for.
    """

    rows: range
    columns: range
    strides: tuple[int, int]
    terms: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, amount: Callable[[int, int], int | None], rows: range, columns: range) -> Surface | None:
        """The surface through ten values; None where one of them is no sound spec."""
        strides = (max(1, (len(rows) - 1) // DEGREE), max(1, (len(columns) - 1) // DEGREE))
        reach = (
            min(DEGREE, (len(rows) - 1) // strides[0]),
            min(DEGREE, (len(columns) - 1) // strides[1]),
        )
        values: dict[tuple[int, int], float] = {}
        for i, j in product(range(reach[0] + 1), range(reach[1] + 1)):
            if i + j <= DEGREE:
                found = amount(rows[i * strides[0]], columns[j * strides[1]])
                if found is None:
                    return None
                values[i, j] = found
        return cls(rows, columns, strides, _differences(values))

    def at(self, row: float, column: float) -> float:
        """The cost at two places (not values) of the ranges."""
        across = _binomials(column / self.strides[1])
        return sum(
            up * sum(term * along for term, along in zip(line, across, strict=False))
            for line, up in zip(self.terms, _binomials(row / self.strides[0]), strict=False)
        )

    def curve(self, goal: float) -> list[tuple[float, int, int]]:
        """Along the rows, the two columns between which the cost passes `goal`: how far each is from it, and
        the two values.  Of many rows some thousand, evenly spread.
        """
        found: list[tuple[float, int, int]] = []
        for row in range(0, len(self.rows), len(self.rows) // MOST_ROWS + 1):
            low, high = 0, len(self.columns) - 1
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if self.at(row, middle) <= goal else (low, middle)
            found += [
                (abs(self.at(row, column) - goal), self.rows[row], self.columns[column])
                for column in sorted({low, high})
            ]
        return found


def _differences(values: dict[tuple[int, int], float]) -> tuple[tuple[float, ...], ...]:
    """Forward differences at the origin, along both axes."""
    terms: list[tuple[float, ...]] = []
    for i in range(max(row for row, _ in values) + 1):
        line = [
            sum(
                (-1) ** (i + j - p - q) * _choose(i, p) * _choose(j, q) * values[p, q]
                for p, q in product(range(i + 1), range(j + 1))
            )
            for j in range(max(column for row, column in values if row == i) + 1)
        ]
        terms.append(tuple(line))
    return tuple(terms)


def _choose(n: int, k: int) -> int:
    made = 1
    for one in range(k):
        made = made * (n - one) // (one + 1)
    return made


def _binomials(place: float) -> tuple[float, float, float, float]:
    """`place` over 0, 1, 2 and 3."""
    return (
        1.0,
        place,
        place * (place - 1) / 2,
        place * (place - 1) * (place - 2) / 6,
    )
