"""Reads divided by the same memory of ones.

z_t = r_t z_{t-1} + e_t k_t is what the memory holds of a value that is always one, so the divisor
z_t . q_t is the read of one more value channel, and z one more row of W (Nested Learning reference,
engine E1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nldsl.codegen.engines.tiles import start_weights


def normalised(
    engine: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    state: dict[str, Tensor] | None,
    start: Tensor | None,
    **gates_and_settings: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run an additive engine on values with a channel of ones, and divide by what it reads there.

    Args:
        engine: takes `query`, `key`, `value`, `state` and `start`, and has the state `W` and `W_start`.
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        state: `W` `[B, H, Dv, Dk]` and `z` `[B, H, Dk]`, for a period also the `_start` of each; `phase`.
        start: weights before the first token; z begins at zero.
        gates_and_settings: what else the engine takes.

    Returns:
        The read `[B, H, T, Dv]`, undivided where the divisor is 0, and the state after the last token.
    """
    extended = None
    if state is not None:
        held = [name for name in state if name.startswith("W")]
        extended = {n: torch.cat((state[n], state[n.replace("W", "z")].unsqueeze(-2)), dim=-2) for n in held}
        extended |= {n: x for n, x in state.items() if n == "phase"}
    both, new = engine(
        query=query,
        key=key,
        value=F.pad(value, (0, 1), value=1.0),
        state=extended,
        start=F.pad(start_weights(start, key, value), (0, 0, 0, 1)),
        **gates_and_settings,
    )
    divisor = both[..., -1:]
    result = both[..., :-1] / torch.where(divisor == 0, torch.ones_like(divisor), divisor)
    weights = {name: rows for name, rows in new.items() if name.startswith("W")}
    split = {name: rows[..., :-1, :] for name, rows in weights.items()}
    split |= {name.replace("W", "z"): rows[..., -1, :] for name, rows in weights.items()}
    return result, split | {name: x for name, x in new.items() if name == "phase"}
