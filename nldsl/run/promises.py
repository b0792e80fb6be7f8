"""Hold a compiled folder to what the front end promised in `levels.json` and `settings.py`.

The model is traced with fake tensors, forward and backward, so nothing is computed and nothing allocated.
Every promise is one small function of `Promised` that gives whether it is kept and both numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from nldsl.codegen.runtime.schedule import matches
from nldsl.levels.graph import Clock
from nldsl.levels.schedule import updates
from nldsl.run.subject import Finding, Probe, Subject, attempt, listed, open_folder, quietly
from nldsl.run.tracing import Trace, Work, ancestors, dead, depending, operation, placeholders, trace, work

# How far the FLOPs that a trace counts may lie from the graph's figure.  Layers are counted alike, up to what
# works number by number, which the trace takes for free.  A memory's figure is that of one token at a time,
# the cheapest exact form; an engine does more, so that it can work on a tile of tokens at once: in a small
# model tens of times more, which is held against the whole model's work.  What tokens of a tile have with
# each other does not shrink with the width of a head: it is allowed for each head's matrices in a state.
LAYERS_WITHIN = 1.5
MEMORIES_WITHIN = 32.0
OF_TILES = 4 * 64**2  # FLOPs a token: rows of two products of decays, in tiles of 64
LEAST_OF_MEMORIES = 0.5
SIMULATED = 20_000  # steps of a run whose clocks are simulated

CLOCK = ("period", "unit", "offset", "partial")
LAYERS = ("weights", "chain level", "frozen")
INNER = ("memory", "cache", "projection")


@dataclass(frozen=True)
class Promised:
    """A subject, and what was traced of it; each trace is made once, when a promise first asks."""

    subject: Subject

    @cached_property
    def length(self) -> int:
        """Tokens that are traced: two periods and a little more, so that each write is read."""
        longest = max(self.subject.periods, default=8)
        return min(self.subject.length, 2 * longest + 3)

    @cached_property
    def traced(self) -> Trace:
        return trace(self.subject, self.length)

    @cached_property
    def worked(self) -> Work:
        return work(self.subject, self.whole)

    @cached_property
    def whole(self) -> int:
        """Tokens over which work is counted: a sequence, or less where every token costs the same."""
        caches = any(c["kind"] == "cache" for c in self.subject.components)
        enough = max(128, 2 * max(self.subject.periods, default=1))
        return self.subject.length if caches else min(self.subject.length, enough)

    @cached_property
    def model(self) -> nn.Module:
        """The model with fake weights, for its names and shapes."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            return self.subject.fresh()

    @property
    def learns_within(self) -> bool:
        """Whether levels learn from the task inside the sequence, by gradients that a forward pass takes."""
        return any(c["per_sequence"] and c["learns_from"] == "the task" for c in self.subject.components)

    def named(self, path: str) -> dict[str, nn.Parameter]:
        """The parameters of a spec path."""
        patterns = self.subject.graph["weights"].get(path, [])
        return {n: p for n, p in self.model.named_parameters() if any(matches(n, one) for one in patterns)}

    def flops(self, kinds: tuple[str, ...]) -> int:
        """FLOPs of a token that the graph gives for components of `kinds`."""
        found = (c for c in self.subject.components if c["kind"] in kinds)
        return sum(c["flops_per_token"] * c["copies"] for c in found)

    def owners(self) -> dict[str, list[str]]:
        """The levels of `settings.py` that claim each parameter; `frozen` for what is left as it is."""
        settings = self.subject.settings
        found: dict[str, list[str]] = {}
        for name, _ in self.model.named_parameters():
            if any(matches(name, one) for one in settings.frozen):
                found[name] = ["frozen"]
                continue
            claims = [one.name for one in settings.levels if any(matches(name, p) for p in one.learns)]
            rest = [one.name for one in settings.levels if "rest" in one.learns]
            found[name] = claims or rest
        return found


def promises(folder: Path | str) -> list[Probe]:
    """Compare the model in `folder` with what its `levels.json` and `settings.py` promise.

    Returns:
        One `Probe` for each promise.  A model that cannot be traced gives a failed probe.

    Raises:
        RunError: there is no such folder (NL0801), or it is damaged (NL0802).
    """
    with quietly():
        promised = Promised(open_folder(folder))
        begin = attempt("traces", traces, promised)
        if not begin.ok:
            return [begin]
        return [begin, *(attempt(name, promise, promised) for name, promise in PROMISES)]


def traces(promised: Promised) -> Finding:
    """The model can be traced, forward and backward."""
    traced = promised.traced
    forward, joint = len(traced.forward.nodes), len(traced.joint.nodes)
    return True, f"{forward:,} nodes forward, {joint:,} with backward, on {traced.tokens} tokens"


# --------------------------------------------------------------------------- weights


def sizes(promised: Promised) -> Finding:
    """Each component has as many parameters as the level graph says, and all of them have a component."""
    seen: Counter[str] = Counter()
    wrong = []
    for component in promised.subject.components:
        found = promised.named(component["path"])
        seen.update(list(found))
        has = sum(p.numel() for p in found.values())
        said = component["parameters"] * component["copies"]
        if has != said:
            wrong.append(f"`{component['path']}` has {has:,}, not {said:,}")
    every = dict(promised.model.named_parameters())
    lost = [name for name in every if name not in seen]
    twice = [name for name, count in seen.items() if count > 1]
    total, said = sum(p.numel() for p in every.values()), promised.subject.graph["parameters"]
    if wrong:
        return False, "; ".join(wrong[:3])
    if lost or twice:
        where = "no component" if lost else "two components"
        return False, f"in {where} of the level graph: {listed(lost or twice)}"
    return (
        total == said,
        f"{total:,} parameters in the model, {said:,} in the level graph, component by component",
    )


def claims(promised: Promised) -> Finding:
    """Each parameter is learned by the one level that the level graph names, or is frozen there."""
    if promised.subject.settings is None:
        return True, "the folder has no run"
    owners = promised.owners()
    for name, levels in owners.items():
        if len(levels) != 1:
            what = f"the levels {listed(levels)}" if levels else "no level"
            return False, f"`{name}` is learned by {what}"
    for component in promised.subject.components:
        teacher = "frozen" if component["kind"] == "frozen" else component["taught_by"]
        for name in promised.named(component["path"]):
            if owners[name] != [teacher]:
                return False, f"`{name}` is learned by `{owners[name][0]}`; the level graph says `{teacher}`"
    counts = Counter(levels[0] for levels in owners.values())
    return True, ", ".join(f"`{level}` {count}" for level, count in counts.items())


# --------------------------------------------------------------------------- gradients


def reached(promised: Promised) -> Finding:
    """The loss reaches every learned parameter of every level: autograd finds a way back."""
    traced = promised.traced
    owners = promised.owners() if promised.subject.settings is not None else {}
    found = {name: gradient for name, gradient in traced.gradients.items() if gradient is not None}
    felt = depending(traced.joint, traced.inputs, found)
    missing = [name for name in traced.gradients if name not in felt and owners.get(name) != ["frozen"]]
    if missing:
        levels = sorted({level for name in missing for level in owners.get(name, [])})
        where = f" of {listed(levels)}" if levels else ""
        return False, f"the loss does not reach {listed(missing)}{where}"
    levels = {level for name in owners for level in owners[name]} - {"frozen"}
    told = f" of {len(levels)} level{'s' * (len(levels) != 1)}" if levels else ""
    return True, f"the loss reaches {len(traced.gradients)} parameters{told}"


def stopped(promised: Promised) -> Finding:
    """Gradients are stopped where a memory's `gradient` says so, and nowhere else."""
    traced = promised.traced
    cuts = sum(operation(node) == "detach" for node in traced.forward.nodes)
    stops = {path: kind for path, kind in promised.subject.graph["gradients"].items() if kind != "through"}
    if cuts and not stops and not promised.learns_within:  # inner gradients leave some where they end
        return False, f"{cuts} detach where every memory promises `gradient = through`"
    if stops and not cuts:
        path, kind = next(iter(stops.items()))
        return False, f"nothing is detached, though `{path}` promises `gradient = {kind}`"
    live = ancestors([traced.logits], gradient=True)
    lost = [name for name, node in traced.parameters.items() if node not in live]
    if lost and not stops and not promised.learns_within:
        return False, f"no path without a detach leads from the logits to {listed(lost)}"
    memories = len(promised.subject.graph["gradients"])
    return True, f"{cuts} detach; {memories - len(stops)} of {memories} kinds of memory promise `through`"


def nothing_dead(promised: Promised) -> Finding:
    """Every parameter is used, and everything that the forward pass computes goes into logits or state."""
    traced = promised.traced
    live = ancestors([traced.logits])
    unused = [name for name, node in traced.parameters.items() if node not in live]
    if unused:
        return False, f"the logits do not depend on {listed(unused)}"
    if not set(placeholders(traced.forward)[len(traced.parameters) :]) & live:
        return False, "the logits do not depend on the tokens"
    if promised.learns_within:
        return True, "every parameter and token is used; inner gradients are not looked at node by node"
    wasted = Counter(operation(node) for node in dead(traced.forward))
    if wasted:
        told = ", ".join(f"{count} {name}" for name, count in wasted.most_common(3))
        return False, f"{sum(wasted.values())} operations compute what nothing needs: {told}"
    return True, f"all {len(traced.forward.nodes):,} nodes lead to logits or state"


# --------------------------------------------------------------------------- costs


def layer_work(promised: Promised) -> Finding:
    """The FLOPs of linear maps and convolutions are those of the level graph."""
    counted, said = promised.worked.layers, promised.flops(LAYERS)
    factor = counted / max(said, 1)
    told = f"{counted:,.0f} FLOPs a token counted, {said:,} in the level graph"
    return (
        1 / LAYERS_WITHIN <= factor <= LAYERS_WITHIN,
        f"{told} (factor {factor:.2f}, {LAYERS_WITHIN:g} allowed)",
    )


def memory_work(promised: Promised) -> Finding:
    """The FLOPs of memories are no fewer than half the level graph's, and not out of all proportion."""
    counted, said = promised.worked.memories, promised.flops(INNER)
    if not said and not counted:
        return True, "no memory works inside the sequence"
    most = MEMORIES_WITHIN * (said + promised.flops(LAYERS)) + OF_TILES * promised.worked.matrices
    told = f"{counted:,.0f} FLOPs a token counted, {said:,} in the level graph"
    return LEAST_OF_MEMORIES * said <= counted <= most, f"{told} (factor {counted / max(said, 1):.2f})"


def state_held(promised: Promised) -> Finding:
    """What one sequence holds at run time is what the level graph says, to the byte."""
    held = promised.worked.held
    said = sum(c["state_bytes"] * c["copies"] for c in promised.subject.components if c["per_sequence"])
    again = promised.worked.again
    told = f"{held:,} bytes after {promised.whole} tokens, {said:,} in the level graph"
    told += f"; {again:,} once more, to read the open segment again" if again else ""
    loose = [c for c in promised.subject.components if c["kind"] in LAYERS and c["path"].endswith(".conv")]
    if loose and held >= said:
        return True, f"{told}; convolutions of blocks carry the rest"
    return held == said, told


# --------------------------------------------------------------------------- clocks


def outer_clocks(promised: Promised) -> Finding:
    """Simulated over the run, each level is due as often as its clock in the level graph says."""
    settings = promised.subject.settings
    if settings is None:
        return True, "the folder has no run"
    steps = min(settings.steps, SIMULATED)
    counted = simulated(promised.subject, steps)
    told = []
    for level in settings.levels:
        clock = _clock(promised.subject, level) or _data(level.clock)
        expected = arithmetic(clock, steps, settings.data.length)
        if counted[level.name] != expected:
            said = f"{clock['period']} {clock['unit']}s promise {expected}"
            return False, f"level `{level.name}` changes {counted[level.name]} times in {steps} steps; {said}"
        told.append(f"`{level.name}` {expected}")
    return True, f"updates in {steps} steps: {', '.join(told)}"


def simulated(subject: Subject, steps: int) -> dict[str, int]:
    """How often each level of `settings.py` is due in `steps` steps, by the folder's own `due`."""
    settings, schedule = subject.settings, subject.build.schedule
    length = settings.data.length
    counts = dict.fromkeys((level.name for level in settings.levels), 0)
    for step in range(steps):
        for end in schedule.cuts(settings, step):
            position, ends = step * length + end, step + 1 == steps
            for level in settings.levels:
                counts[level.name] += schedule.due(level.clock, position, length, ends=ends)
    return counts


def arithmetic(clock: dict[str, Any], steps: int, length: int) -> int:
    """How many updates fit into a run, by division: what `nldsl train --plan` says.

    >>> arithmetic({"period": 4, "unit": "step", "offset": 1, "partial": "carry"}, 10, 64)
    3
    """
    return updates(Clock(**{name: clock[name] for name in CLOCK}), steps, length)


def _clock(subject: Subject, level: Any) -> dict[str, Any] | None:
    """The clock that the level graph gives a level: of weights that it learns, or of its rule's memories, the
    fastest of which comes first.
    """
    for component in subject.components:
        own = component["taught_by"] == level.name and component["kind"] in LAYERS
        if own or component["path"].startswith(f"{level.name}.{level.rule}."):
            return component["clock"]
    return None


def _data(clock: Any) -> dict[str, Any]:
    return {name: getattr(clock, name) for name in CLOCK}


PROMISES: tuple[tuple[str, Callable[[Promised], Finding]], ...] = (
    ("parameters of each component", sizes),
    ("one level for each parameter", claims),
    ("the loss reaches each level", reached),
    ("gradients stop where promised", stopped),
    ("nothing dead", nothing_dead),
    ("work of layers", layer_work),
    ("work of memories", memory_work),
    ("state of a sequence", state_held),
    ("outer clocks", outer_clocks),
)

__all__ = ["PROMISES", "Promised", "arithmetic", "promises", "simulated"]
