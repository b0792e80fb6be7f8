"""What the language can say and no code can be made for yet, as findings."""

from __future__ import annotations

from nldsl.codegen.plan import still
from nldsl.codegen.plan.projections import all_obstacles
from nldsl.diagnostics.model import Diagnostic, Label
from nldsl.resolve.expanded import Expanded, MemoryInstance


def findings(expanded: Expanded) -> list[Diagnostic]:
    """One finding for each memory that has no lowering at all.

    Non-goals: memories without an engine; the token loop serves them, and `explain` says so.
    """
    found: list[Diagnostic] = []
    seen: set[str] = set()
    for instance, _ in expanded.instances():
        if not isinstance(instance, MemoryInstance) or instance.path in seen:
            continue
        seen.add(instance.path)
        obstacles = [*all_obstacles(instance), *still.obstacles(instance)]
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
