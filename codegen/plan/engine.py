"""What an engine is to the planner: what it asks of a memory's algebra, and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from nldsl.records import record
from nldsl.resolve.expanded import Core

Obstacles = list[str]
Setting = str | int | bool | float | tuple[str, int]
GATES = ("rate", "retain", "momentum")


@record
class Engine:
    """`function` lives in `nldsl.codegen.engines.<file>`; `reference` names its row of REF c.1."""

    name: str
    function: str
    file: str
    reference: str
    summary: str
    obstacles: Callable[[Core], Obstacles]
    keywords: Callable[[Core], dict[str, Setting]]
    inputs: tuple[str, ...]


@record
class Choice:
    """The engine of one memory: how to call it, and what kept the engines before it away."""

    engine: Engine
    keywords: dict[str, Setting]
    inputs: tuple[str, ...]
    missed: tuple[tuple[Engine, tuple[str, ...]], ...] = field(default=())
