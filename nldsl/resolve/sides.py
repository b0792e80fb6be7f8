"""The two sides of a memory that is read and written apart: what each computes from its own input."""

from __future__ import annotations

from collections.abc import Iterable

from nldsl.resolve.expanded import Flow, MemoryInstance, Variable

ASKED = ("query", "out")


def sides(instance: MemoryInstance) -> tuple[dict[str, Flow], dict[str, Flow]]:
    """The pipelines of a write and those of a read, by name, in order; what both name stands in both."""
    flows = inner_flows(instance)
    asked = reached(flows, ASKED)
    written = reached(flows, [n for n in instance.flows if n not in ASKED])
    return (
        {n: f for n, f in flows.items() if n in written},
        {n: f for n, f in flows.items() if n in asked},
    )


def inner_flows(instance: MemoryInstance) -> dict[str, Flow]:
    """Every pipeline of a memory by name, local ones too."""
    return {**dict(instance.locals), **instance.flows}


def reads(flow: Flow) -> set[str]:
    """The names that a flow reads."""
    return {node.name for node in flow.walk() if isinstance(node, Variable)}


def reached(flows: dict[str, Flow], names: Iterable[str]) -> set[str]:
    """Those of these pipelines that there are, and what they read in turn."""
    seen: set[str] = set()
    waiting = [n for n in names if n in flows]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [n for n in reads(flows[name]) if n in flows]
    return seen
