"""The engines, one file for each family; the first row that fits is taken, so cheaper ones stand first."""

from __future__ import annotations

from nldsl.codegen.plan.engine import Engine
from nldsl.codegen.plan.rows import (
    attention,
    channels,
    deep,
    delta,
    hebbian,
    momentum,
    ridge,
    standing,
    windows,
)

ENGINES: tuple[Engine, ...] = (
    *attention.ROWS,
    *hebbian.ROWS,
    *delta.ROWS,
    *windows.ROWS,
    *channels.ROWS,
    *deep.ROWS,
    *momentum.ROWS,
    *ridge.ROWS,
    *standing.ROWS,
)
