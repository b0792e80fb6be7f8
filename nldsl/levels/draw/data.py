"""The level graph as JSON: what `graph --format json` prints and a build's `levels.json` holds.

Version 1.  Keys:

- `version`, `name`, `steps` (optimizer steps of the run, or null), `facts` (tokens in each declared unit),
  `parameters` (learned numbers, copies included);
- `levels`: fastest first, each with `rank`, `clocks` (words) and `components` (paths);
- `components`: one object each.  `clock` has `words`, `period`, `unit`, `offset`, `partial`.
  `tokens_per_update` is null for weights that never change and 0 for a cache;
  `updates_per_token` is 0 for the former and null (unbounded) for the latter.
  `state_bytes`, `parameters` and `flops_per_token` are those of one of the `copies`.
  `start` and `reset` say where the weights of a level of a chain begin and when they return there, else
  null; `plastic` weights are shared and go on learning at test time; `span` is `file:line` or null;
- `edges`: `source`, `target`, `kind`; knowledge flows from source to target.

In a build, `weights` gives the parameter names of each path, as patterns, and `gradients` how the loss flows
through the updates of each memory; `layers` says what each component holds in weights, cache or context, what
that learns from, when it changes, how long it lives and who sees it (`nldsl/levels/layers.py`).

A key is only ever added; a change of meaning raises the version.
"""

from __future__ import annotations

import json
import math

from nldsl.levels.draw.words import level_clocks, where
from nldsl.levels.graph import Component, LevelGraph

VERSION = 1


def as_json(graph: LevelGraph) -> str:
    """The graph as indented JSON text (see the module's description of the keys)."""
    return json.dumps(as_data(graph), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_data(graph: LevelGraph) -> dict[str, object]:
    """The graph as plain dicts, lists, strings and finite numbers."""
    return {
        "version": VERSION,
        "name": graph.name,
        "steps": graph.steps,
        "facts": dict(sorted(graph.facts.items())),
        "parameters": graph.parameters,
        "levels": [
            {
                "rank": level[0].rank,
                "clocks": [str(clock) for clock, _ in level_clocks(level)],
                "components": [c.path for c in level],
            }
            for level in graph.levels
        ],
        "components": [component_data(c) for c in graph.components],
        "edges": [{"source": e.source, "target": e.target, "kind": e.kind} for e in graph.edges],
    }


def component_data(component: Component) -> dict[str, object]:
    """One component, every field of it."""
    clock = component.clock
    return {
        "path": component.path,
        "kind": component.kind,
        "rank": component.rank,
        "clock": {
            "words": str(clock),
            "period": clock.period,
            "unit": clock.unit,
            "offset": clock.offset,
            "partial": clock.partial or ("drop" if component.per_sequence else "carry"),
        },
        "tokens_per_update": _finite(component.tokens_per_update),
        "updates_per_token": _finite(component.frequency),
        "learns_from": component.learns_from,
        "rule": component.rule,
        "taught_by": component.taught_by,
        "parameters": component.parameters,
        "state_bytes": component.state_bytes,
        "per_sequence": component.per_sequence,
        "flops_per_token": component.flops_per_token,
        "copies": component.copies,
        "depth": component.depth,
        "start": component.start or None,
        "reset": component.reset or None,
        "plastic": component.plastic,
        "span": where(component),
    }


def _finite(number: float) -> int | float | None:
    if math.isinf(number):
        return None
    return int(number) if float(number).is_integer() else float(number)
