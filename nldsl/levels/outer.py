"""Which outer level learns which weights, and by which clock.

A `train` level names what it learns, or takes the `rest`. What has a clock of its own (a level of a
chain) keeps it: so one `train` level can give several outer levels, which differ in their clocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nldsl.levels.costs import stage
from nldsl.levels.graph import Clock
from nldsl.records import record
from nldsl.resolve.expanded import (
    Adaptive,
    Apply,
    BlockInstance,
    ChainInstance,
    ChainLevel,
    Expanded,
    Flow,
    Line,
    MemoryInstance,
    Persistent,
    Repeat,
    TrainLevel,
    Use,
)
from nldsl.resolve.primitives import PRIMITIVES

LEARNED = ("weighted", "weighted softmax", "gated")
"""Combinations of independent levels that have weights of their own."""


@record
class Weights:
    """Weights that an outer level learns: their spec path, whose they are, and their own clock if they have
    one.

    `holder` is the memory, chain level, block line or model they belong to; `copies` how often they occur.
    """

    path: str
    holder: MemoryInstance | ChainLevel | BlockInstance | None
    owner: BlockInstance | MemoryInstance | ChainInstance | None
    copies: int
    depth: int
    kind: str  # "start", "projections", "chain level", "chain start", "combine", "weights"
    flows: tuple[Flow, ...] = ()
    clock: Clock | None = None


@record
class OuterLevel:
    """Weights with one clock and one rule, that begin alike and return there alike.

    `start` is `learned in NAME` or `copy of NAME`, `reset` is `with NAME` or `every N steps`, NAME an outer
    level; "" where the weights are what is learned, and never return.
    """

    name: str
    declared: TrainLevel
    clock: Clock
    reduce: str
    weights: tuple[Weights, ...]
    start: str = ""
    reset: str = ""
    plastic: bool = False


@dataclass(slots=True)
class Assignment:
    """Outer levels, and what went wrong on the way: checks turn it into findings."""

    levels: list[OuterLevel] = field(default_factory=list)
    unlearned: list[Weights] = field(default_factory=list)
    twice: list[tuple[Weights, TrainLevel, TrainLevel]] = field(default_factory=list)
    unmatched: list[tuple[TrainLevel, int]] = field(default_factory=list)
    two_clocks: list[tuple[TrainLevel, Weights]] = field(default_factory=list)


def all_weights(expanded: Expanded) -> list[Weights]:
    """Every set of weights an outer level can learn, in depth order."""
    if expanded.model is None:
        return []
    found: list[Weights] = []
    for line in expanded.model.lines:
        _line(line, expanded.model.name, None, 1, found)
    return _united(found)


def _line(line: Line, path: str, owner: BlockInstance | None, copies: int, found: list[Weights]) -> None:
    here = f"{path}.{line.label}" if line.label else path
    parts = [n for n in line.flow.walk() if isinstance(n, Apply) and n.primitive in PRIMITIVES]
    for node in line.flow.walk():
        if isinstance(node, Apply) and node in parts:
            found.append(
                Weights(f"{here}.{node.primitive}", owner, owner, copies, len(found), "weights", (node,))
            )
        elif isinstance(node, Persistent):
            found.append(Weights(node.path, owner, owner, copies, len(found), "weights", (node,)))
        elif isinstance(node, Use) and node.name is None:
            _instance(node.instance, copies, found)
        elif isinstance(node, Repeat):
            for instance in node.instances:
                _instance(instance, copies * int(node.count), found)


def _instance(
    instance: BlockInstance | MemoryInstance | ChainInstance, copies: int, found: list[Weights]
) -> None:
    if isinstance(instance, BlockInstance):
        for one in instance.every_name():
            _instance(one.instance, copies, found)
        for line in instance.every_line():
            _line(line, instance.path, instance, copies, found)
    elif isinstance(instance, ChainInstance):
        for level in instance.levels:
            if level.memory is not None:
                _instance(level.memory, copies, found)
                continue
            # Weights of each sequence keep their clock inside it; what is learned outside is their start.
            clock = level.clock if instance.scope == "shared" else None
            found.append(Weights(level.path, level, instance, copies, len(found), "chain level", (), clock))
            if level.start == "learned in" and instance.scope == "shared":
                start = f"{level.path}.start"
                found.append(Weights(start, level, instance, copies, len(found), "chain start"))
        if instance.combine in LEARNED and instance.variant == "independent":
            where = f"{instance.path}.combine"
            found.append(Weights(where, None, instance, copies, len(found), "combine"))
    else:
        flows = tuple(f for _, f in (*instance.locals, *instance.flows.items()))
        found.append(
            Weights(
                f"{instance.path}.projections", instance, instance, copies, len(found), "projections", flows
            )
        )
        if instance.start == "learned" and instance.core.map.kind != "cache":
            found.append(Weights(instance.path, instance, instance, copies, len(found), "start"))
        for name, node in instance.adaptives():
            found.append(
                Weights(
                    f"{instance.path}.{name}.adaptive",
                    instance,
                    instance,
                    copies,
                    len(found),
                    "start",
                    (node,),
                )
            )


def _united(found: list[Weights]) -> list[Weights]:
    """Weights with one path and one owner shape are copies of each other."""
    paths: dict[str, list[Weights]] = {}
    for one in found:
        paths.setdefault(one.path, []).append(one)
    return [_one(several) for several in paths.values()]


def _one(several: list[Weights]) -> Weights:
    """Weights of one path as one: copies where all are alike, else the sum of all of them."""
    kinds: list[tuple[Weights, int]] = []
    for one in several:
        known = next((n for n, (other, _) in enumerate(kinds) if _alike(other, one)), len(kinds))
        count = one.copies + (kinds[known][1] if known < len(kinds) else 0)
        kinds[known : known + 1] = [(kinds[known][0] if known < len(kinds) else one, count)]
    copies = math.gcd(*(count for _, count in kinds))
    flows = tuple(flow for one, count in kinds for _ in range(count // copies) for flow in one.flows)
    return replace(several[0], copies=copies, flows=flows)


def _alike(one: Weights, other: Weights) -> bool:
    """Whether two sets of weights with one path have as much to learn and the same owner."""
    if one.kind != "weights":
        return True
    return [*map(stage, one.flows)] == [*map(stage, other.flows)] and one.owner == other.owner


def matches(pattern: str, path: str) -> bool:
    """Whether the parts of `pattern` stand side by side in `path`: `Continuum.slow` in
    `HopeBlock.store.Continuum.slow`.

    >>> matches("Continuum.slow", "HopeBlock.store.Continuum.slow"), matches("slow.x", "a.slow")
    (True, False)
    """
    wanted, parts = pattern.split("."), path.split(".")
    return any(parts[i : i + len(wanted)] == wanted for i in range(len(parts) - len(wanted) + 1))


def target(name: str, one: Weights, weights: list[Weights], trained: Sequence[TrainLevel]) -> Weights | str:
    """What a start or reset of the chain level `one` names: a level of its chain, one of another chain, or a
    level of the `train` block (its name); "" where there is none.
    """
    levels = [w for w in weights if w.kind == "chain level"]
    beside = one.owner.path if one.owner is not None else ""
    found = [w for w in levels if w.path == f"{beside}.{name}" and isinstance(one.owner, ChainInstance)]
    if not found and any(level.name == name for level in trained):
        return name
    found = found or [w for w in levels if matches(name, w.path)]
    return found[0] if found else ""


@record
class _Key:
    """What weights have in common that change together."""

    trained: str
    clock: Clock
    reduce: str = "mean"
    start: tuple[str, _Key | str] = ("", "")
    reset: tuple[str, _Key | str] = ("", "")
    plastic: bool = False
    alone: str = ""  # the path of what another level copies: its weights stand for themselves


class _Groups:
    """Weights into outer levels."""

    def __init__(
        self, weights: list[Weights], owners: dict[str, TrainLevel], trained: Sequence[TrainLevel]
    ) -> None:
        self.weights, self.owners, self.trained = weights, owners, trained
        self.by_name = {level.name: level for level in trained}
        self.keys: dict[str, _Key] = {}
        self.visiting: list[str] = []
        holders = [(w, w.holder) for w in weights if w.kind == "chain level"]
        copied = [
            self._named(w, h.teacher)
            for w, h in holders
            if isinstance(h, ChainLevel) and h.start == "copy of"
        ]
        self.copied = {one.path for one in copied if isinstance(one, Weights)}

    def levels(self) -> list[OuterLevel]:
        """One level for each key, the fastest first."""
        groups: dict[_Key, list[Weights]] = {}
        for one in self.weights:
            if one.path in self.owners:
                groups.setdefault(self.key(one), []).append(one)
        names = self._names(groups)
        made = [
            OuterLevel(
                names[key],
                self.by_name[key.trained],
                key.clock,
                key.reduce,
                tuple(group),
                self._said(key.start, names),
                self._said(key.reset, names),
                key.plastic,
            )
            for key, group in groups.items()
        ]
        return sorted(made, key=lambda x: (x.clock.unit != "token", x.clock.period))

    def key(self, one: Weights) -> _Key:
        """What `one` shares with the weights that it changes with."""
        if one.path not in self.keys:
            self.visiting.append(one.path)
            self.keys[one.path] = self._key(one)
            self.visiting.pop()
        return self.keys[one.path]

    def _key(self, one: Weights) -> _Key:
        level = self.owners[one.path]
        holder = one.holder
        if one.kind == "chain start" and isinstance(holder, ChainLevel):
            taught = self._key_of(one, holder.teacher)
            if isinstance(taught, _Key):
                return taught
        if one.clock is None or not isinstance(holder, ChainLevel):
            return self._plain(level)
        reset: tuple[str, _Key | str] = ("", "")
        if holder.reset_with is not None:
            reset = ("with", self._key_of(one, holder.reset_with))
        elif holder.reset is not None:
            reset = ("", str(holder.reset))
        taught = self._key_of(one, holder.teacher) if holder.teacher is not None else ""
        return _Key(
            level.name,
            replace(one.clock, partial="") if one.clock.partial == "carry" else one.clock,
            level.reduce or holder.reduce,
            (holder.start, taught) if taught else ("", ""),
            reset if reset[1] else ("", ""),
            holder.plastic,
            one.path if one.path in self.copied else "",
        )

    def _own(self, level: TrainLevel) -> Clock:
        return level.clock if level.clock.unit != "always" else Clock(1, "step")

    def _named(self, one: Weights, name: str | None) -> Weights | str:
        return target(name, one, self.weights, self.trained) if name else ""

    def _key_of(self, one: Weights, name: str | None) -> _Key | str:
        """The key of what a start or reset names; "" of what is not there, or waits for `one` itself."""
        found = self._named(one, name)
        if isinstance(found, str):
            return self._of(self.by_name[found]) if found else ""
        if found.path in self.visiting or found.path not in self.owners:
            return ""
        return self.key(found)

    def _of(self, level: TrainLevel) -> _Key:
        """The key of the weights that have a `train` level's own clock, or of the first that it learns."""
        mine = [w for w in self.weights if self.owners.get(w.path) is level and w.kind != "chain start"]
        mine = [w for w in mine if w.path not in self.visiting]
        if any(w.clock is None for w in mine) or not mine:
            return self._plain(level)
        return self.key(mine[0])

    def _plain(self, level: TrainLevel) -> _Key:
        return _Key(level.name, self._own(level), level.reduce or "mean")

    def _said(self, part: tuple[str, _Key | str], names: dict[_Key, str]) -> str:
        word, other = part
        name = names.get(other, "") if isinstance(other, _Key) else other
        return f"{word} {name}".strip() if name else ""

    # ------------------------------------------------------------------ names

    def _names(self, groups: dict[_Key, list[Weights]]) -> dict[_Key, str]:
        """The name of the `train` level; with those of the weights where it learns several groups."""
        names: dict[_Key, str] = {}
        tails: dict[_Key, str] = {}
        for key, group in groups.items():
            level = self.by_name[key.trained]
            several = sum(other.trained == key.trained for other in groups) > 1
            tails[key] = "" if not several or key == self._plain(level) else f"_{_short(group, 1)}"
        wanted = {key: f"{key.trained}{tail}" for key, tail in tails.items()}
        for key, group in groups.items():
            if list(wanted.values()).count(wanted[key]) > 1 and tails[key]:
                names[key] = f"{key.trained}_{_short(group, 2)}"
            else:
                names[key] = wanted[key]
        taken: set[str] = set()
        for key, name in names.items():
            fresh, count = name, 1
            while fresh in taken:
                count += 1
                fresh = f"{name}_{count}"
            taken.add(fresh)
            names[key] = fresh
        return names


def _short(group: Sequence[Weights], parts: int) -> str:
    own = [one for one in group if one.kind != "chain start"] or group
    return "_".join(dict.fromkeys("_".join(one.path.split(".")[-parts:]) for one in own))


def assign(expanded: Expanded) -> Assignment:
    """Give every set of weights to one outer level."""
    result = Assignment()
    weights = all_weights(expanded)
    if expanded.training is None:
        return result
    claims: dict[str, TrainLevel] = {}
    for level in expanded.training.levels:
        for index, pattern in enumerate(level.learns):
            if pattern == "rest":
                continue
            mine = [w for w in weights if w.kind != "chain start" and matches(pattern, w.path)]
            if not mine:
                result.unmatched.append((level, index))
            for one in mine:
                other = claims.get(one.path)
                if other is not None and other is not level:
                    result.twice.append((one, other, level))
                claims[one.path] = level
    rest = [level for level in expanded.training.levels if "rest" in level.learns]
    for extra in rest[1:]:
        result.twice.append((weights[0], rest[0], extra))
    owners: dict[str, TrainLevel] = {}
    for one in weights:
        level = claims.get(one.path) or (rest[0] if rest else None)
        if level is None:
            result.unlearned.append(one)
            continue
        owners[one.path] = level
        if one.clock is not None and level.clock.unit != "always" and one.path in claims:
            result.two_clocks.append((level, one))
    result.levels = _Groups(weights, owners, expanded.training.levels).levels()
    return result


__all__ = ["Adaptive", "Assignment", "OuterLevel", "Weights", "all_weights", "assign", "matches", "target"]
