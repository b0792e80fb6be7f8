"""Which weights of a model are what files of pre-trained models call by customary names.

A class notes the names of its own modules while it is written (`of_attention`, `of_lines`, ...); the tree of
classes then gives one table for the model, from patterns over parameter names to names in such a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from nldsl.codegen.emit.classes import Written
from nldsl.resolve.expanded import Apply, ChainInstance, Expanded, Flow, Line, MemoryInstance, Pretrained, Use
from nldsl.resolve.pretrained import (
    ATTENTION,
    EMBEDDING,
    FEED_FORWARD,
    HEAD,
    LAYER,
    NORM,
    NORMS,
    customary,
    is_customary,
)

Made = dict[tuple[int, str], str]
Names = list[tuple[str, str]]

NORMALISERS = ("rmsnorm", "layernorm")


def of_attention(flows: dict[str, Flow], made: Made) -> Names:
    """The linear maps of softmax attention; a field with two of them has no customary name."""
    found: Names = []
    for field, name in ATTENTION.items():
        walked = flows[field].walk() if field in flows else ()
        maps = [n for n in walked if isinstance(n, Apply) and n.primitive == "linear"]
        if len(maps) == 1 and (id(maps[0]), "") in made:
            found.append((_attribute(maps[0], made), name))
    return found


def of_feed_forward(module: str) -> Names:
    """The matrices of the `SwiGLU` that stands at `module`."""
    return [(f"{module.removeprefix('self.')}.{own}", name) for own, name in FEED_FORWARD.items()]


def of_lines(lines: Iterable[Line], made: Made) -> Names:
    """The norms in front of attention and of feed-forward layers, and stages that are such layers."""
    found: Names = []
    for node in _nodes(lines):
        kind = _kind(node)
        if kind is None:
            continue
        if isinstance(node, Apply):
            found += of_feed_forward(_attribute(node, made))
        before = node.input if isinstance(node, Apply | Use) else None
        if isinstance(before, Apply) and before.primitive in NORMALISERS:
            found.append((_attribute(before, made), NORMS[kind]))
    return found


def of_model(lines: Iterable[Line], made: Made) -> Names:
    """The embedding, the last norm and the head."""
    found: Names = []
    for node in _nodes(lines):
        if not isinstance(node, Apply) or node.primitive not in ("embed", "unembed"):
            continue
        if node.primitive == "embed":
            found.append((_attribute(node, made), EMBEDDING))
            continue
        if (id(node), "") in made:
            found.append((_attribute(node, made), HEAD))
        if isinstance(node.input, Apply) and node.input.primitive in NORMALISERS:
            found.append((_attribute(node.input, made), NORM))
    return found


def _nodes(lines: Iterable[Line]) -> Iterator[Flow]:
    for line in lines:
        yield from line.flow.walk()


def _attribute(node: Apply, made: Made) -> str:
    return made[id(node), ""].removeprefix("self.")


def _kind(node: Flow) -> str | None:
    """Which half of a block a stage is."""
    if isinstance(node, Apply):
        return "feed forward" if node.primitive == "swiglu" else None
    if not isinstance(node, Use):
        return None
    instance = node.instance
    if isinstance(instance, MemoryInstance):
        return "attention" if instance.core.map.kind == "cache" else None
    return "feed forward" if isinstance(instance, ChainInstance) else None


# --------------------------------------------------------------------------- tables


def customary_names(model: Written) -> dict[str, str]:
    """What a file of the Llama family calls the weights of a model, by pattern over parameter names.

    Where two modules of one block would be called the same, neither has a name.
    """
    found: Names = list(model.customary)
    for attribute, child in model.children:
        if attribute.startswith("blocks"):
            below = _below(child, f"{attribute}.")
            counts = Counter(name for _, name in below)
            found += [(own, f"{LAYER}.{name}") for own, name in below if counts[name] == 1]
    return dict(found)


def _below(made: Written, prefix: str) -> Names:
    found = [(f"{prefix}{own}", name) for own, name in made.customary]
    for attribute, child in made.children:
        if not attribute.startswith("blocks"):  # blocks of blocks are no blocks of the file
            found += _below(child, f"{prefix}{attribute}.")
    return found


def starts(
    expanded: Expanded, patterns: dict[str, list[str]], names: dict[str, str]
) -> list[tuple[Pretrained, dict[str, str]]]:
    """Every start from a file, levels first, with what it takes: patterns over parameters to names there."""
    found: list[tuple[Pretrained, dict[str, str]]] = []
    levels: dict[str, Pretrained] = {}
    for instance, _ in expanded.instances():
        for level in instance.levels if isinstance(instance, ChainInstance) else ():
            if level.pretrained is not None and level.path not in levels:
                start = levels[level.path] = level.pretrained
                found.append((start, _of_level(level.map.kind, start, patterns[level.path])))
    whole = expanded.training.start if expanded.training is not None else None
    if whole is None:
        return found
    taken = {own for _, table in found for own in table}
    table = {own: customary(name, whole.rename) for own, name in names.items() if own not in taken}
    own = {first: second for first, second in whole.rename if not is_customary(first)}
    return [*found, (whole, table | own)]


def _of_level(kind: str, start: Pretrained, modules: list[str]) -> dict[str, str]:
    """The weights of one level of a chain, by the customary names of their last part or by those given."""
    pairs = dict(start.rename)
    parts = {own: name.rpartition(".")[2] for own, name in FEED_FORWARD.items()} if kind == "swiglu" else {}
    table: dict[str, str] = {}
    for module in modules:
        if not parts and not pairs:
            table[module] = start.path or ""
        for own, name in parts.items():
            table[f"{module}.{own}"] = f"{start.path}.{pairs.get(name, pairs.get(own, name))}"
        for own, name in pairs.items():
            if own not in parts and own not in parts.values():
                table[f"{module}.{own}"] = f"{start.path}.{name}"
    return table
