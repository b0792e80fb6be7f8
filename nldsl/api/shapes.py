"""What a core may be given: names, shapes, ranges, states; and what it starts from when nobody says."""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from nldsl.api.block_maps import block_starts
from nldsl.resolve.expanded import MemoryInstance

if TYPE_CHECKING:
    from torch import Tensor

RANGES: dict[str, tuple[float, float | None]] = {
    "rate": (0.0, None),
    "retain": (0.0, 1.0),
    "momentum": (0.0, 1.0),
    "weight": (0.0, None),
}
_MEND = {
    "rate": "pass it through `softplus` or `sigmoid`",
    "retain": "pass it through `sigmoid`",
    "momentum": "pass it through `sigmoid`",
    "weight": "pass it through `sigmoid`",
}


def check_call(memory: MemoryInstance, inputs: tuple[str, ...], given: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a call; raises a `TypeError` or `ValueError` that says what is wrong."""
    for name in given:
        if name not in inputs:
            near = get_close_matches(name, inputs, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(f'`{i}`' for i in inputs)}"
            raise TypeError(f"`{memory.name}` takes no `{name}`; {hint}")
    missing = [name for name in inputs if name not in given]
    if missing:
        raise TypeError(f"`{memory.name}` needs {', '.join(f'`{m}`' for m in missing)}; see its `inputs`")
    for name, tensor in given.items():
        _floating(name, tensor)
    _one_kind(given)
    _shapes(memory, given)
    asked = memory.core.expression.parameters if memory.core.expression is not None else ()
    own = {one.name for one in asked if not one.field}  # names of the spec's author, which promise nothing
    for name, tensor in given.items():
        _values(f"`{name}`" if name in own else name, tensor)
    return given


def check_sequence(memory: MemoryInstance, x: Any, like: Tensor | None) -> None:
    """Raises where `x` is no input of a core that makes its own projections, with weights such as `like`."""
    import torch

    _floating("x", x)
    width = int(memory.width)
    if x.dim() != 3 or x.shape[-1] != width:
        raise ValueError(
            f"`x` has the shape {_shape(x)}; `{memory.name}` takes [batch, tokens, {width}] features"
        )
    if like is not None and x.device != like.device:
        raise ValueError(f"`x` is on {x.device}, and the weights on {like.device}; bring them to one")
    if like is not None and x.dtype != like.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"`x` has the dtype {x.dtype}, and the weights {like.dtype}; bring `x` or `.module` to the other"
        )
    _values("x", x)


def check_size(name: str, size: Any) -> None:
    """Raises `ValueError` where a size is no whole number of at least 1."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"`{name}` is {size!r}; give a whole number of at least 1")


def _floating(name: str, tensor: Any) -> None:
    import torch

    if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
        return
    kind = str(tensor.dtype) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
    raise TypeError(f"`{name}` is a `{kind}`; give a floating-point tensor")


def _one_kind(given: dict[str, Tensor]) -> None:
    first = given["query"]
    for name, tensor in given.items():
        for what, mine, other in (
            ("dtype", tensor.dtype, first.dtype),
            ("device", tensor.device, first.device),
        ):
            if mine != other:
                raise ValueError(
                    f"`{name}` has the {what} {mine}, and `query` {other}; bring all inputs to one"
                )


def _shapes(memory: MemoryInstance, given: dict[str, Tensor]) -> None:
    core = memory.core
    for name in ("query", "key", "value"):
        if given[name].dim() != 4:
            raise ValueError(
                f"`{name}` has the shape {_shape(given[name])}; give [batch, heads, tokens, features]"
            )
    query, key, value = given["query"], given["key"], given["value"]
    batch, heads, tokens, dim_k = query.shape
    groups = (
        key.shape[1] if core.map.kind == "cache" and key.shape[1] > 0 and heads % key.shape[1] == 0 else heads
    )
    written = tokens * core.writes
    wanted = {"key": (batch, groups, written, dim_k), "value": (batch, groups, written, value.shape[-1])}
    for name, shape in wanted.items():
        if given[name].shape != shape:
            raise ValueError(
                f"`{name}` has the shape {_shape(given[name])}, and `query` {_shape(query)}; "
                f"give {list(shape)}"
            )
    check_widths(memory, dim_k, value.shape[-1])
    asked = core.expression.parameters if core.expression is not None else ()
    own = {one.name: one.kind for one in asked if not one.field}
    for name in list(given)[3:]:
        if name in own:
            length, width = tokens, {"head": (), "value": (value.shape[-1],), "key": (dim_k,)}[own[name]]
            if given[name].shape != (batch, heads, length, *width):
                wanted_shape = [batch, heads, length, *width]
                raise ValueError(f"`{name}` has the shape {_shape(given[name])}; give {wanted_shape}")
            continue
        channel = name in ("erase", "erase_into") or getattr(core, name, "") == "channel"
        length = written if name in ("rate", "erase", "erase_into") else tokens
        shape = (batch, heads, length, dim_k) if channel else (batch, heads, length)
        if given[name].shape != shape:
            raise ValueError(f"`{name}` has the shape {_shape(given[name])}; give {list(shape)}")


def check_widths(memory: MemoryInstance, dim_k: int, dim_v: int) -> None:
    """Raises `ValueError` where the memory's map cannot turn `dim_k` features into `dim_v`."""
    one = memory.core.map
    known = (int(memory.key_width), int(memory.value_width))
    if one.kind == "block" and (dim_k, dim_v) != known:
        raise ValueError(
            f"the map `{one.call}` works on {known[0]} features and gives {known[1]}, "
            f"and keys have {dim_k} and values {dim_v}"
        )
    if (one.residual or one.kind == "vector") and dim_v != dim_k:
        kind = "residual map" if one.residual else "vector"
        raise ValueError(
            f"a {kind} returns what it is given, so keys ({dim_k}) and values ({dim_v}) need one width"
        )


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _named(name: str) -> str:
    return name if name.startswith("`") else f"`{name}`"


def _values(name: str, tensor: Tensor) -> None:
    """NaN, infinity and range; not asked of tensors that have no values, as while tracing or under `vmap`."""
    import torch

    if tensor.numel() == 0 or torch.compiler.is_compiling():
        return
    plain = tensor.detach()
    try:
        low, high = float(plain.min()), float(plain.max())
    except RuntimeError:
        return
    if low != low or high != high:  # NaN spreads through min and max
        raise ValueError(
            f"{_named(name)} holds NaN; look for a division by zero or an overflow in what computes it"
        )
    if math.isinf(low) or math.isinf(high):
        raise ValueError(f"{_named(name)} holds an infinity; look for an overflow in what computes it")
    least, most = RANGES.get(name, (float("-inf"), None))
    if low < least:
        raise ValueError(f"`{name}` goes down to {low:g}, below {least:g}; {_MEND[name]}")
    if most is not None and high > most:
        raise ValueError(f"`{name}` goes up to {high:g}, above {most:g}; {_MEND[name]}")


def check_state(
    name: str, state: Any, tensors: dict[str, Tensor], fresh: Callable[..., dict[str, Tensor]]
) -> None:
    """Raises where a state is not one of this core, or of other sizes."""
    query, key, value = tensors["query"], tensors["key"], tensors["value"]
    sizes = query.shape[0], key.shape[1], query.shape[-1], value.shape[-1]
    compare_states(name, state, fresh(*sizes, dtype=query.dtype, device=query.device))


def compare_states(name: str, state: Any, wanted: dict[str, Any], within: str = "state") -> None:
    """Raises where `state` is not built as `wanted`, a fresh state of the memory `name`.

    Args:
        name: of the memory.
        state: what a caller gave.
        wanted: tensors by name, or dicts and tuples of them.  The pairs of a cache or a window may be longer
            or shorter.
        within: the expression for `state`, for messages.

    Raises:
        TypeError: something is not a dict, a tuple or a tensor where `wanted` has one.
        ValueError: names, sizes, dtypes or devices differ, or a tensor holds NaN or an infinity.
    """
    if not isinstance(state, dict):
        raise TypeError(
            f"`{within}` is a `{type(state).__name__}`; give the dict that a call of this core returned"
        )
    missing, foreign = [n for n in wanted if n not in state], [n for n in state if n not in wanted]
    if missing or foreign:
        lacks = f"lacks {_listed(missing)}" if missing else ""
        has = f"holds {_listed(foreign)}, which `{name}` does not" if foreign else ""
        raise ValueError(
            f"`{within}` {' and '.join(p for p in (lacks, has) if p)}; "
            f"give what a call of this core returned, or its `init_state`"
        )
    for part, like in wanted.items():
        _compared(name, f'{within}["{part}"]', state[part], like, part)


def _compared(name: str, within: str, given: Any, like: Any, part: str) -> None:
    import torch

    if isinstance(like, dict):
        compare_states(name, given, like, within)
        return
    if isinstance(like, tuple | list):
        if not isinstance(given, tuple | list):
            raise TypeError(f"`{within}` is a `{type(given).__name__}`; give {len(like)} tensors")
        if len(given) != len(like):
            raise ValueError(f"`{within}` holds {len(given)} tensors; give {len(like)}")
        for n, both in enumerate(zip(given, like, strict=True)):
            _compared(name, f"{within}[{n}]", *both, part)
        return
    if not isinstance(like, torch.Tensor):
        return
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"`{within}` is a `{type(given).__name__}`; give a tensor")
    free = 2 if part in ("key", "value") or part.startswith("window_") else None  # as long as what was seen
    shapes = [list(x.shape) for x in (given, like)]
    if free is not None and given.dim() == like.dim():
        shapes = [[n for axis, n in enumerate(shape) if axis != free] for shape in shapes]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`{within}` has the shape {_shape(given)}, and these inputs need {_shape(like)}")
    if like.dim() == 0:  # a count, which stays where it was made
        return
    if given.device != like.device:
        raise ValueError(f"`{within}` is on {given.device}, and these inputs need {like.device}")
    if given.dtype != like.dtype and not torch.is_autocast_enabled(like.device.type):
        raise ValueError(f"`{within}` has the dtype {given.dtype}, and these inputs need {like.dtype}")
    if given.is_floating_point():
        _values(f"`{within}`", given)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{n}`" for n in sorted(names))


def drawn_start(memory: MemoryInstance, start: Any, tensors: dict[str, Tensor]) -> Any:
    """What an engine is told to start from; None for the zeros of a matrix.

    Raises `TypeError` or `ValueError` for a start that the memory cannot have.
    """
    import torch

    one = memory.core.map
    key, value = tensors["key"], tensors["value"]
    if one.kind == "cache":
        if start is not None:
            raise TypeError(f"`{memory.name}` keeps pairs and has no weights, so it has no start")
        return None
    if one.kind == "block":
        return block_starts(memory, start, key)
    shapes = _weights(memory, key.shape[-1], value.shape[-1])
    if start is not None:
        parts = start if isinstance(start, tuple | list) else (start,)
        if len(parts) != len(shapes):
            raise ValueError(
                f"`start` holds {len(parts)} tensors, and the map has {len(shapes)} layers; give one for each"
            )
        for part, shape in zip(parts, shapes, strict=True):
            _values("start", part)
            lead = tuple(part.shape[: part.dim() - len(shape)])
            if tuple(part.shape[len(lead) :]) != shape or lead not in (key.shape[1:2], key.shape[:2]):
                raise ValueError(
                    f"`start` holds the shape {_shape(part)}; "
                    f"give {[key.shape[1], *shape]}, or that for each sequence"
                )
        return tuple(parts) if len(shapes) > 1 or one.kind == "mlp" else parts[0]
    if one.kind in ("matrix", "vector"):
        return None
    drawn = torch.Generator().manual_seed(0)
    deep = memory.start == "learned"
    return tuple(
        (torch.randn(key.shape[1], *s, generator=drawn, dtype=torch.float64) * deep / s[-1] ** 0.5).to(key)
        for s in shapes
    )


def _weights(memory: MemoryInstance, dim_k: int, dim_v: int) -> list[tuple[int, ...]]:
    one = memory.core.map
    return [(dim_v,)] if one.kind == "vector" else list(one.weights(dim_k, dim_v))
