"""Any map whose gradients stand still for a while: the engine for what has no closed form.

Between two boundaries every gradient is taken at the same weights W_b, whatever the map is.  Then with
retention r, momentum b and rate e (Nested Learning reference, engine E5; Titans, eqs. 13-14)

    S_t = b_t S_{t-1} - e_t g_t,    W_t = r_t W_{t-1} + S_t,    g_t = grad objective(W_b; k_t, v_t)

unrolls to W_t = D_t0 W_0 + M_t0 S_0 - sum_{i <= t} M_ti e_i g_i (D, M: see `decay`), and since the gradient
is linear in the objective,

    sum_i M_ti e_i g_i = grad_W sum_i (M_ti e_i) objective_i   at W_b.

So a row of coefficients is one vector that is pulled back through the objectives of a piece of tokens
(`torch.func.vjp`): one row for the weights at the end of the piece, one more for the momentum, and, where
tokens read their own weights, a row for each of them.  No gradient of a single token is formed.

Under a constraint with an accumulator (`softmax`, `lq`) weights stand still between the points where it is
due, so gradients do as well, and only the accumulator follows the lines above (Miras; normalising once for
each chunk of given gradients is exact).

Boundaries are the tokens where the weights of the gradient or of the read change, where a constraint is due,
or where the outer gradient is cut.  Pieces end there, and at the latest after `tile` tokens, so the sequence
needs no padding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.constraints import (
    Constraint,
    Weights,
    beside,
    link_of,
    linked_weights,
    norm_is_due,
    of_unit_norm,
    weights_at_start,
)
from nldsl.codegen.engines.decay import decay_matrix, momentum_matrix
from nldsl.codegen.engines.maps import traced, weight_shapes
from nldsl.codegen.engines.objectives import objective_value


def any_map(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    momentum: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Any = None,
    map: str | dict[str, Any] = "matrix",
    objective: Any = "l2",
    objective_parameter: float | None = None,
    rule: str = "gd",
    update: int = 1,
    anchor: str | int = "retained",
    read: str = "after",
    constrain: tuple[Constraint, ...] = (),
    gradient: str | tuple[str, int] = "through",
    tile: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient steps on any map, gradients taken at the start of each period; see `token_loop` for settings.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, 1 where not given.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        momentum: `[B, H, T]` in [0, 1]; no momentum where not given.
        state: what an earlier call, or one of `token_loop`, returned.
        start: the weights before the first token, as `constraints.weights_at_start` takes them.
        map: see `maps`.
        objective: see `objectives`.
        objective_parameter: the `p` of `lp` or the `delta` of `huber`.
        rule: `gd`.
        update: tokens between updates of the weights that are read.
        anchor: tokens for which the weights of the gradient stand still; `retained` and `current` only under
            a constraint with an accumulator, whose clock it then is.
        read: `after` or `before` the own write, or `boundary`, the start of the update's, else the anchor's
            period.
        constrain: `(name, parameter, N)`, due every N tokens.
        gradient: `through`, `first_order`, `stop`, or `("through", N)`.
        tile: the most tokens worked on at once; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token, as `token_loop` has it.

    Raises:
        ValueError: gradients are wanted at running weights, or by another rule.
    """
    link = link_of(constrain)
    if rule != "gd" or not (isinstance(anchor, int) or link):
        raise ValueError("any map takes gradient steps (`gd`) at weights that stand still for a period")
    objective = objective if objective_parameter is None else (objective, objective_parameter)
    frozen = anchor if isinstance(anchor, int) else 1
    period = update if update > 1 else frozen
    cut = gradient[1] if isinstance(gradient, tuple) else 0
    read = "boundary" if update > 1 else read
    due = tuple(every for _, _, every in constrain)
    bounds = (*due, *(n for n in (update, cut) if n > 1), *((frozen,) if isinstance(anchor, int) else ()))

    shapes = weight_shapes(map, key.shape[-1], value.shape[-1])
    lead, tokens = key.shape[:2], key.shape[2]
    state = _state_at_start(start, shapes, key, link) if state is None else state
    weights = {n: _one_axis(state[n]) for n in shapes}
    moments = {n: _one_axis(state.get(beside("S", n), torch.zeros_like(state[n]))) for n in shapes}
    running = {n: _one_axis(state.get(beside("A", n), state[n])) for n in shapes}
    started = {n: _one_axis(state.get(f"{n}_start", state[n])) for n in shapes}
    anchored = {n: _one_axis(state.get(f"{n}_anchor", state.get(f"{n}_start", state[n]))) for n in shapes}
    count = int(state["phase"]) if "phase" in state else 0

    own = link is None and read != "boundary"  # whether tokens read weights of their own
    longest = tile or (16 if own or gradient == "stop" else 128)
    ones = key.new_ones(key.shape[:3])
    flows = [_one_axis(x) for x in (query, key, value, ones if rate is None else rate)]
    gates = [None if g is None else _one_axis(g) for g in (retain, momentum)]
    reads, begin = [], 0
    while begin < tokens:
        started = weights if count % period == 0 else started
        anchored = weights if count % frozen == 0 else anchored
        end = min(tokens, begin + longest, *(begin + n - count % n for n in bounds))
        q, k, v, e = (x[:, begin:end] for x in flows)
        r, b = (None if g is None else g[:, begin:end] for g in gates)
        at = anchored if isinstance(anchor, int) else weights
        steps = written_steps(map, objective, at, (k, v, e, r, b), running, moments, own, gradient)
        count, begin = count + end - begin, end

        before, (rows, moments) = weights, steps
        running = {n: x[:, -1] for n, x in rows.items()}
        if norm_is_due(constrain, count):
            running = of_unit_norm(running, 1)
        if link is None:
            weights = running
        elif count % link[2] == 0:
            weights = linked_weights(link, running, 1)
        reads.append(_piece_read(map, read, own, (before, rows, weights, started), q))
        if cut and count % cut == 0:
            weights, moments, running = (
                {n: x.detach() for n, x in one.items()} for one in (weights, moments, running)
            )

    if count % period == 0:
        started = weights
    if count % frozen == 0:
        anchored = weights
    kept = dict(weights)
    if momentum is not None:
        kept |= {beside("S", n): s for n, s in moments.items()}
    if link is not None:
        kept |= {beside("A", n): a for n, a in running.items()}
    if period > 1:
        kept |= {f"{n}_start": w for n, w in started.items()}
    if frozen not in (1, period):
        kept |= {f"{n}_anchor": w for n, w in anchored.items()}
    new = {n: x.unflatten(0, lead) for n, x in kept.items()}
    cycle = math.lcm(update, frozen, cut or 1, *due)
    if cycle > 1:
        new["phase"] = torch.tensor(count % cycle, dtype=torch.int64)
    return torch.cat(reads, dim=1).unflatten(0, lead) if reads else torch.zeros_like(value), new


def written_steps(
    spec: str | dict[str, Any],
    objective: Any,
    at: Weights,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    running: Weights,
    moments: Weights,
    every_token: bool,
    gradient: str | tuple[str, int],
) -> tuple[dict[str, Tensor], Weights]:
    """What is retained and written, through a piece of tokens, for M memories.

    Args:
        spec: the map.
        objective: see `objectives`.
        at: the weights of the gradient, `[M, ...]`.
        inputs: key `[M, C, Dk]`, value `[M, C, Dv]`, rate, retain and momentum `[M, C]`.
        running: W_0, `[M, ...]`.
        moments: S_0, `[M, ...]`.
        every_token: weights after each token are wanted, not only those after the last.
        gradient: see `token_loop`.

    Returns:
        The weights after each token, `[M, C, ...]`, or after the last, `[M, 1, ...]`; and the last momentum.
    """
    key, value, rate, retain, momentum = inputs
    decays = decay_matrix(torch.ones_like(rate) if retain is None else retain)
    pushes = None if momentum is None else decay_matrix(momentum)
    rows = slice(1, None) if every_token else slice(-1, None)
    if gradient == "stop":
        # What a token adds is a constant, but retention works on it and is reached: every S_t is needed.
        falls = torch.diag_embed(rate) if pushes is None else pushes[:, 1:, 1:] * rate.unsqueeze(1)
        pulled = _pulled_back(spec, objective, at, key, value, falls)
        carried = {n: 0.0 if pushes is None else _gated_rows(pushes[:, 1:, 0], s) for n, s in moments.items()}
        added = {n: (carried[n] - g).detach() for n, g in pulled.items()}
        made = {
            n: _gated_rows(decays[:, rows, 0], w) + _combined_rows(decays[:, rows, 1:], added[n])
            for n, w in running.items()
        }
        return made, moments if pushes is None else {n: s[:, -1] for n, s in added.items()}

    at = {n: w.detach() for n, w in at.items()} if gradient == "first_order" else at
    reached = decays if pushes is None else momentum_matrix(decays, pushes)
    wanted = reached[:, rows, 1:]
    if pushes is not None:  # one more row: what the momentum holds at the end
        wanted = torch.cat((wanted, pushes[:, -1:, 1:]), dim=1)
    pulled = _pulled_back(spec, objective, at, key, value, wanted * rate.unsqueeze(1))
    made = {n: _gated_rows(decays[:, rows, 0], w) for n, w in running.items()}
    if pushes is None:
        return {n: w - pulled[n] for n, w in made.items()}, moments
    made = {n: w + _gated_rows(reached[:, rows, 0], moments[n]) - pulled[n][:, :-1] for n, w in made.items()}
    last = {n: _gated_rows(pushes[:, -1:, 0], s)[:, 0] - pulled[n][:, -1] for n, s in moments.items()}
    return made, last


def _pulled_back(
    spec: str | dict[str, Any], objective: Any, at: Weights, key: Tensor, value: Tensor, rows: Tensor
) -> dict[str, Tensor]:
    """sum_i rows_ri g_i for every row r, `[M, R, ...]` by name of the weight, for rows `[M, R, C]`."""

    def one(weights: Weights, keys: Tensor, values: Tensor, coefficients: Tensor) -> dict[str, Tensor]:
        def lowered(moving: Weights) -> Tensor:
            def memory(z: Tensor) -> Tensor:
                return traced(spec, moving, z)[0]

            return objective_value(objective, memory, moving, keys, values)

        _, pull = torch.func.vjp(lowered, weights)
        return torch.func.vmap(lambda row: pull(row)[0])(coefficients)

    return torch.func.vmap(one)(at, key, value, rows)


def _piece_read(
    spec: str | dict[str, Any],
    read: str,
    own: bool,
    weights: tuple[Weights, dict[str, Tensor], Weights, Weights],
    query: Tensor,
) -> Tensor:
    """M(q) for the queries of a piece, `[M, C, Dv]`."""
    before, rows, after, started = weights
    if read == "boundary":
        return _read_all(spec, started, query)
    if own:
        # The last token is the only one after which a constraint may be due.
        shifted = (
            {n: torch.cat((rows[n][:, :-1], after[n].unsqueeze(1)), 1) for n in rows}
            if read == "after"
            else {n: torch.cat((before[n].unsqueeze(1), rows[n][:, :-1]), 1) for n in rows}
        )
        flat = {n: w.flatten(0, 1) for n, w in shifted.items()}
        return _read_all(spec, flat, query.flatten(0, 1).unsqueeze(1)).unflatten(0, query.shape[:2])[:, :, 0]
    if read == "before":
        return _read_all(spec, before, query)
    parts = [_read_all(spec, w, x) for w, x in ((before, query[:, :-1]), (after, query[:, -1:]))]
    return torch.cat(parts, dim=1)


def _read_all(spec: str | dict[str, Any], weights: Weights, query: Tensor) -> Tensor:
    """M(q) for queries `[M, C, Dk]`, all C with the same weights."""
    return torch.func.vmap(lambda one, z: traced(spec, one, z)[0])(weights, query)


def _state_at_start(
    start: object, shapes: dict[str, tuple[int, ...]], key: Tensor, link: Constraint | None
) -> dict[str, Tensor]:
    """Under a link, what starts is the accumulator."""
    began = weights_at_start(start, shapes, key)
    if link is None:
        return began
    return linked_weights(link, began, 2) | {beside("A", n): a for n, a in began.items()}


def _one_axis(tensor: Tensor) -> Tensor:
    """`[B, H, ...]` to `[M, ...]`."""
    return tensor.flatten(0, 1)


def _gated_rows(gates: Tensor, content: Tensor) -> Tensor:
    """`[M, R]` times `[M, ...]`: `[M, R, ...]`."""
    return gates.reshape(*gates.shape, *[1] * (content.dim() - 1)) * content.unsqueeze(1)


def _combined_rows(coefficients: Tensor, content: Tensor) -> Tensor:
    """`[M, R, C]` on `[M, C, ...]`: `[M, R, ...]`."""
    return (coefficients @ content.flatten(2)).unflatten(2, content.shape[2:])
