"""The meaning of `ridge`, token by token: two sums and the solution of a linear system for each read."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def ridge_loop(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None,
    retain: Tensor | None,
    state: dict[str, Tensor] | None,
    start: Tensor | None,
    *,
    map: str,
    objective: Any,
    strength: float | None,
    update: int,
    read: str,
    gradient: str | tuple[str, int],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a ridge memory over a sequence; see `reference.token_loop`.

        V_t = r_t V_{t-1} + e_t v_t k_t^T,    K_t = r_t K_{t-1} + e_t k_t k_t^T
        y_t = V_t (K_t + a I)^{-1} q_t

    Systems of half precision are solved in float32.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, 1 where not given.
        retain: `[B, H, T]`, 1 where not given.
        state: `W`, which is V, and `K`; with periods `..._start` and `phase`.
        start: the weights that are read before the first token, `[H, Dv, Dk]` or `[B, H, Dv, Dk]`: V_0 is a
            times these, K_0 is 0.
        map: has to be `matrix`.
        objective: has to be `l2`.
        strength: a, above 0.
        update: tokens between updates of what is read.
        read: `after`, `before` or `boundary`.
        gradient: see `token_loop`.
    """
    if map != "matrix" or objective != "l2" or strength is None:
        raise ValueError("`ridge` is for a matrix and l2, with its parameter")
    ones = key.new_ones(key.shape[:3])
    rate, retain = ones if rate is None else rate, ones if retain is None else retain
    dim_k, dim_v = key.shape[-1], value.shape[-1]
    if state is None:
        begun = key.new_zeros(*key.shape[:2], dim_v, dim_k)
        begun = begun if start is None else strength * start.expand_as(begun)
        now: dict[str, Tensor] = {"W": begun, "K": key.new_zeros(*key.shape[:2], dim_k, dim_k)}
    else:
        now = {n: state[n] for n in ("W", "K")}
    started = now if state is None else {n: state.get(f"{n}_start", x) for n, x in now.items()}
    count = int(state["phase"]) if state is not None and "phase" in state else 0
    cut_every = gradient[1] if isinstance(gradient, tuple) else 0
    wide = torch.promote_types(key.dtype, torch.float32)
    eye = torch.eye(dim_k, dtype=wide, device=key.device)

    outputs = []
    for t in range(key.shape[2]):
        started = now if count % update == 0 else started
        before = now
        entries: dict[str, Any] = {"W": value[:, :, t], "K": key[:, :, t]}
        now = {}
        for n, x in entries.items():
            added = rate[:, :, t, None, None] * x.unsqueeze(-1) * key[:, :, t].unsqueeze(-2)
            added = added.detach() if gradient == "stop" else added
            now[n] = retain[:, :, t, None, None] * before[n] + added
        count += 1
        chosen = started if update > 1 else {"after": now, "before": before}.get(read, before)
        system, asked = chosen["K"].to(wide) + strength * eye, query[:, :, t].unsqueeze(-1)
        solved = torch.linalg.solve(system, asked.to(wide)).to(asked.dtype)
        outputs.append((chosen["W"] @ solved).squeeze(-1))
        if cut_every and count % cut_every == 0:
            now = {n: x.detach() for n, x in now.items()}

    started = now if count % update == 0 else started
    new = dict(now)
    if update > 1:
        new |= {f"{n}_start": x for n, x in started.items()}
    cycle = math.lcm(update, cut_every or 1)
    if cycle > 1:
        new["phase"] = torch.tensor(count % cycle, dtype=torch.int64)
    return torch.stack(outputs, dim=2) if outputs else torch.zeros_like(value), new
