"""All comparisons with other people's code."""

from __future__ import annotations

from tests.oracles import attention, deep, matrices, rewriting
from tests.oracles.compare import Case

CASES: tuple[Case, ...] = (*matrices.CASES, *deep.CASES, *rewriting.CASES, *attention.CASES)
