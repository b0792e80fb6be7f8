"""Edges of one kind that say the same thing together, gathered so that they can share a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nldsl.levels.graph import Edge, EdgeKind

Side = Literal["above", "below"]


@dataclass(frozen=True, slots=True)
class Net:
    """Every one of `hubs` joined to every one of `spokes`.

    The hubs stand in one row and are the sources of all `edges`, or the targets of all.  The spokes lie all
    `above` that row (or in it) or all `below`.
    """

    kind: EdgeKind
    hubs: tuple[str, ...]
    spokes: tuple[str, ...]
    side: Side
    edges: tuple[Edge, ...]


def nets_of(edges: Sequence[Edge], rows: Mapping[str, int]) -> list[Net]:
    """Nets that cover every edge once, the largest taken first; edges to oneself are left out.

    `rows` counts from the top.
    """
    left = list(dict.fromkeys(e for e in edges if e.source != e.target))
    nets: list[Net] = []
    while left:
        largest = max(_candidates(left, rows), key=lambda net: len(net.edges))
        nets.append(largest)
        left = [e for e in left if e not in largest.edges]
    return nets


def _candidates(edges: Sequence[Edge], rows: Mapping[str, int]) -> list[Net]:
    """All stars, those with equal spokes and hubs in one row united."""
    stars: dict[tuple[EdgeKind, str, str, Side], list[Edge]] = {}
    for edge in edges:
        for end, hub, spoke in (("target", edge.target, edge.source), ("source", edge.source, edge.target)):
            side: Side = "below" if rows[spoke] > rows[hub] else "above"
            stars.setdefault((edge.kind, end, hub, side), []).append(edge)
    united: dict[tuple[EdgeKind, str, int, Side, frozenset[str]], Net] = {}
    for (kind, end, hub, side), star in stars.items():
        spokes = tuple(e.source if end == "target" else e.target for e in star)
        key = (kind, end, rows[hub], side, frozenset(spokes))
        # A hub that is a spoke too would be joined to itself.
        if key in united and hub not in spokes:
            before = united[key]
            united[key] = Net(kind, (*before.hubs, hub), before.spokes, side, (*before.edges, *star))
        else:
            united.setdefault(key, Net(kind, (hub,), spokes, side, tuple(star)))
    return list(united.values())
