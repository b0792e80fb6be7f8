"""The two sides of a memory that is read and written apart: what each computes from its own input."""

from __future__ import annotations

from nldsl.resolve.expanded import Flow, MemoryInstance, Variable

ASKED = ("query", "out")


def sides(instance: MemoryInstance) -> tuple[dict[str, Flow], dict[str, Flow]]:
    """The pipelines of a write and those of a read, by name, in order; what both name stands in both."""
    flows: dict[str, Flow] = {**dict(instance.locals), **instance.flows}
    asked = _reached(flows, [n for n in ASKED if n in flows])
    written = _reached(flows, [n for n in instance.flows if n not in ASKED])
    return (
        {n: f for n, f in flows.items() if n in written},
        {n: f for n, f in flows.items() if n in asked},
    )


def _reached(flows: dict[str, Flow], names: list[str]) -> set[str]:
    """These pipelines and those that they read in turn."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        read = {node.name for node in flows[name].walk() if isinstance(node, Variable)}
        waiting += [n for n in read if n in flows]
    return seen
