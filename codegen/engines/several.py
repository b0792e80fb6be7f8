"""Several writes for each token, by any engine that writes at every token.

A token with n pairs (k_1, v_1, e_1), ..., (k_n, v_n, e_n) writes them one after the other.  Retention is
applied once, before the first, and the token reads after the last (DeltaProduct, n Householder factors for
each token).  So the memory runs over a sequence n times as long, in which retention is 1 for every write
but the first of a token, and reads are kept where a token ends:

    W_{t,i} = r_{t,i} W_{t,i-1} + write(k_i, v_i, e_i),   r_{t,1} = r_t,  r_{t,i} = 1
    y_t     = map(W_{t,n}; q_t)

With `read = before` a token reads W_{t,0}.  Momentum is that of writes: it is applied at each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def in_turn(x: Tensor, writes: int) -> Tensor:
    """`[B, H * n, T, ...]` to `[B, H, T * n, ...]`: what a token writes, one after the other."""
    return x.unflatten(1, (-1, writes)).transpose(2, 3).flatten(2, 3)


def several(
    engine: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    writes: int,
    retain: Tensor | None = None,
    momentum: Tensor | None = None,
    read: str = "after",
    **settings: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run an engine over `writes` pairs for each token.

    Args:
        engine: a function with the calling convention of `reference.token_loop`.
        query: `[B, H, T, Dk]`.
        key: `[B, H, T * n, Dk]`, the n of a token side by side; see `in_turn`.
        value: `[B, H, T * n, Dv]`.
        writes: n.
        retain: `[B, H, T]` or `[B, H, T, Dk]`, applied once for each token.
        momentum: as `retain`, applied at each write.
        read: `after` the last write of the token, or `before` its first.
        settings: the engine's own; `rate` and `erase` have T * n tokens, `objective_parameter` T.

    Returns:
        The read `[B, H, T, Dv]`, and the engine's state.
    """
    if retain is not None:
        first = retain.unsqueeze(3)
        others = torch.ones_like(first).repeat_interleave(writes - 1, dim=3)
        settings["retain"] = torch.cat((first, others), dim=3).flatten(2, 3)
    if momentum is not None:
        settings["momentum"] = momentum.repeat_interleave(writes, dim=2)
    given = settings.get("objective_parameter")
    if isinstance(given, Tensor):
        settings["objective_parameter"] = given.repeat_interleave(writes, dim=2)
    if isinstance(given, tuple):
        settings["objective_parameter"] = tuple(p.repeat_interleave(writes, dim=2) for p in given)
    if read != "after":
        settings["read"] = read
    longer, state = engine(query.repeat_interleave(writes, dim=2), key, value, **settings)
    return longer[:, :, (0 if read == "before" else writes - 1) :: writes], state
