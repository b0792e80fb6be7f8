"""Reading a memory without writing it: every token at the weights as they are (Titans, M*).

The weights are the state that an engine or the token loop left, or the start where there is none yet:

    y_t = map(W; q_t),    divided by z . q_t under `normalise`

With `boundary` the visible weights are those of the open period's start.  A cache answers by softmax
attention over its pairs, and with zeros while it is empty.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nldsl.codegen.engines.constraints import weights_at_start
from nldsl.codegen.engines.maps import map_settings, traced, weight_shapes


def recall(
    query: Tensor,
    state: dict[str, Tensor] | None = None,
    start: Any = None,
    *,
    map: str | dict[str, Any] = "matrix",
    width: int | None = None,
    boundary: bool = False,
    normalise: bool = False,
) -> Tensor:
    """What the memory answers to queries, all of them at the same weights.

    Args:
        query: `[B, H, T, Dk]`.
        state: of an engine, see `token_loop`; None before the first write.
        start: the weights before the first token, as for `token_loop`; zeros where not given.
        map: see `maps`.
        width: features of a value, as many as of a key where not given.
        boundary: whether reads of this memory see the weights of the period's start.
        normalise: whether a read is divided by the sum of what was written.

    Returns:
        The read `[B, H, T, Dv]`.
    """
    batch, heads, tokens, features = query.shape
    width = width or features
    if map_settings(map)["kind"] == "cache":
        if state is None or state["key"].shape[2] == 0:
            return query.new_zeros(batch, heads, tokens, width)
        key, value = state["key"], state["value"]
        grouped = key.shape[1] != heads
        return F.scaled_dot_product_attention(query, key, value, scale=1.0, enable_gqa=grouped)
    shapes = weight_shapes(map, features, width)
    seen = weights_at_start(start, shapes, query) if state is None else _seen_weights(state, shapes, boundary)

    def one(weights: dict[str, Tensor], z: Tensor) -> Tensor:
        return traced(map, weights, z)[0]

    over_tokens = torch.func.vmap(one, in_dims=(None, 0))
    read = torch.func.vmap(torch.func.vmap(over_tokens))(seen, query)
    if not normalise or state is None:
        return read
    total = state["z_start"] if boundary and "z_start" in state else state["z"]
    divisor = (query @ total.unsqueeze(-1)).to(read)
    return read / torch.where(divisor == 0, torch.ones_like(divisor), divisor)


def _seen_weights(
    state: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], boundary: bool
) -> dict[str, Tensor]:
    """The weights that a token would read now, by name."""
    names = {n: f"{n}_start" if boundary and f"{n}_start" in state else n for n in shapes}
    return {n: state[name] for n, name in names.items()}
