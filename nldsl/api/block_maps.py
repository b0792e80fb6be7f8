"""A block as the map of a core: its function, run from the text that a build would hold."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nldsl.resolve.expanded import Map, MemoryInstance

if TYPE_CHECKING:
    from torch import Tensor


def block_settings(one: Map) -> dict[str, Any]:
    """The map as engines take it: `function(weights, x)` and the shapes of its weights."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    from nldsl.codegen.emit.classes import ClassWriter
    from nldsl.codegen.emit.maps import MapWriter
    from nldsl.codegen.emit.printer import statement

    assert one.block is not None
    owner = ClassWriter({})
    _, function = MapWriter(owner, one.block).write("block_map")
    text = "\n".join(["from __future__ import annotations", *statement(function)])
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "F": functional, "Any": Any, "Tensor": Tensor}
    for name, file in owner.kernels.items():
        scope[name] = getattr(import_module(f"nldsl.codegen.engines.{file}"), name)
    exec(compile(text, f"<{one.call}>", "exec"), scope)  # noqa: S102 -- text of our own making
    return {"kind": "block", "function": scope["block_map"], "shapes": block_shapes(one)}


def block_shapes(one: Map) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of one head, by name."""
    return {weight.name: tuple(int(size) for size in weight.shape) for weight in one.fast}


def block_starts(memory: MemoryInstance, start: Any, key: Tensor) -> dict[str, Tensor]:
    """The start of a block's weights, by name: as given, zeros, or drawn with a fixed seed.

    Raises `ValueError` for a start that the memory cannot have.
    """
    import torch

    one, heads = memory.core.map, key.shape[1]
    shapes = block_shapes(one)
    if start is None:
        drawn = torch.Generator().manual_seed(0)
        made = {}
        for weight in one.fast:
            shape = shapes[weight.name]
            if weight.begins is None:
                value = torch.randn(heads, *shape, generator=drawn, dtype=torch.float64) / shape[-1] ** 0.5
            else:
                value = torch.full((heads, *shape), weight.begins, dtype=torch.float64)
            made[weight.name] = (value * (memory.start == "learned")).to(key)
        return made
    given = start if isinstance(start, dict) else dict(zip(shapes, start, strict=False))
    if set(given) != set(shapes):
        raise ValueError(
            f"`start` holds {_listed(given)}, and the map `{one.call}` has {_listed(shapes)}; "
            "give one for each"
        )
    for name, shape in shapes.items():
        found = tuple(given[name].shape)
        lead = found[: len(found) - len(shape)]
        if found[len(lead) :] != shape or lead not in ((heads,), tuple(key.shape[:2])):
            raise ValueError(
                f"`start` holds the shape {list(found)} for `{name}`; "
                f"give {[heads, *shape]}, or that for each sequence"
            )
    return given


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"
