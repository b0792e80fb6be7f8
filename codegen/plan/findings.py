"""What the language can say and no code can be made for yet, as findings."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.codegen.plan.projections import all_obstacles
from nldsl.diagnostics.model import Diagnostic, Label
from nldsl.resolve.expanded import Expanded, MemoryInstance


def findings(expanded: Expanded) -> list[Diagnostic]:
    """One finding for each memory that has no lowering at all.

    Non-goals: memories without an engine; the token loop serves them, and `explain` says so.
    """
    found = list(_rules(expanded))
    seen: set[str] = set()
    for instance, _ in expanded.instances():
        if not isinstance(instance, MemoryInstance) or instance.path in seen:
            continue
        seen.add(instance.path)
        obstacles = all_obstacles(instance)
        if not obstacles:
            continue
        places = [s for s in (instance.span, instance.declared) if s is not None]
        labels = tuple(Label(s, t) for s, t in zip(places, ("used here", "declared here"), strict=False))
        found.append(
            Diagnostic(
                "NL0701",
                f"no code can be made yet for `{instance.name}`: {'; '.join(obstacles)}",
                labels,
                help="change what is named, or leave it out",
            )
        )
    return found


_WRITTEN = (
    *("gd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon", "m3", "delta_momentum"),
)


def _rules(expanded: Expanded) -> Iterator[Diagnostic]:
    """Rules for which no code is written."""
    for level in expanded.training.levels if expanded.training is not None else ():
        algorithm, span = level.rule.algorithm, level.rule.span
        if algorithm is None or algorithm.name in _WRITTEN:
            continue
        labels = tuple(
            Label(s, t)
            for s, t in ((span, "this rule"), (algorithm.declared, "declared here"))
            if s is not None
        )
        yield Diagnostic("NL0701", f"no code can be made yet for the rule `{algorithm.name}`", labels)
