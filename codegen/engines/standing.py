"""Memories whose gradients stand still for a while, whatever their map is: periods, clocks and state.

Between two boundaries every gradient is taken at the same weights W_b.  Then with retention r, momentum b
and rate e (Nested Learning reference, engines E5 and E6; Titans)

    S_t = b_t S_{t-1} - e_t g_t,    W_t = r_t W_{t-1} + S_t,    g_t = grad objective(W_b; k_t, v_t)

unrolls to W_t = D_t0 W_0 + M_t0 S_0 - sum_{i <= t} M_ti e_i g_i (D, M: see `decay`).  How the sum is formed
is left to a `Writer`: `layered` never forms a gradient, `any_map` asks nothing of the map.

Under a constraint with an accumulator (`softmax`, `lq`) weights stand still between the points where it is
due, so gradients do as well, and only the accumulator follows the lines above (Miras; normalising once for
each chunk of given gradients is exact).

Boundaries are the tokens where the weights of the gradient or of the read change, where a constraint is
due, or where the outer gradient is cut.  Pieces end there, and at the latest after `tile` tokens, so the
sequence needs no padding.  Batch and heads are one axis here, M.

With a window a piece holds the last pairs before it too, and what a pair adds is spread over the tokens
whose windows it is in (see `windows`).  Orthogonalised steps (see `orthogonal`) go by the momentum of every
token.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nldsl.codegen.engines.constraints import (
    Constraint,
    MapWeights,
    beside,
    link_of,
    linked_weights,
    norm_is_due,
    of_unit_norm,
    weights_at_start,
)
from nldsl.codegen.engines.decay import decay_matrix, momentum_matrix
from nldsl.codegen.engines.maps import weight_shapes
from nldsl.codegen.engines.objectives import parametrised, tokenwise
from nldsl.codegen.engines.tiles import opened_at, tokens_between_cuts
from nldsl.codegen.engines.windows import window_sums


class Piece(NamedTuple):
    """Some tokens between two boundaries: what is written, and what each token's weights hold of it.

    at: the weights of the gradient, `[M, ...]` by name.
    key, value: `[M, P + C, Dk]`, `[M, P + C, Dv]`, with P earlier pairs of a window.
    running, moments: W_0 and S_0, `[M, ...]` by name.
    kept, moved, taken: how much of W_0, of S_0 and of each gradient the weights hold after every token, row 0
        before the first: `[M, C + 1, 1]`, the same or `None`, `[M, C + 1, P + C]`.
    pushed: the same of the last momentum, `[M, 1, 1]` and `[M, 1, P + C]`; `None` without momentum.

    parameters: of the objective, for each pair, `[M, P + C]` or `[M, P + C, n]`.

    Of orthogonalised steps, `taken` counts steps, `[M, C + 1, C]`, and `pushed` has a row for each token.
    """

    at: MapWeights
    key: Tensor
    value: Tensor
    running: MapWeights
    moments: MapWeights
    kept: Tensor
    moved: Tensor | None
    taken: Tensor
    pushed: tuple[Tensor, Tensor] | None
    parameters: tuple[Tensor, ...] = ()


class Writer(Protocol):
    """How a map is written and read."""

    tile: int  # tokens worked on at once where each reads weights of its own

    def read(self, spec: Any, weights: MapWeights, query: Tensor) -> Tensor:
        """M(q) `[M, C, Dv]` for queries `[M, C, Dk]` that all see the same weights."""
        ...

    def write(
        self, spec: Any, objective: Any, piece: Piece, rows: slice, query: Tensor | None
    ) -> tuple[Tensor | None, MapWeights, MapWeights]:
        """What queries read, each with the weights of its row of `rows`; weights and momentum at the end."""
        ...


def standing(
    writer: Writer,
    inputs: tuple[Tensor, Tensor, Tensor],
    gates: tuple[Tensor | None, Tensor | None, Tensor | None],
    state: dict[str, Tensor] | None,
    *,
    start: Any,
    map: str | dict[str, Any],
    objective: Any,
    update: int,
    anchor: str | int,
    read: str,
    constrain: tuple[Constraint, ...],
    gradient: str | tuple[str, int],
    tile: int | None,
    window: int | None = None,
    weight: Tensor | None = None,
    parameter: float | Tensor | tuple[Tensor, ...] | None = None,
    orthogonal: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a memory over a sequence, a piece at a time; settings and state are those of `token_loop`.

    Args:
        writer: how the map is written and read.
        inputs: query and key `[B, H, T, Dk]`, value `[B, H, T, Dv]`.
        gates: rate, retain and momentum, `[B, H, T]`, where given.
        state: what an earlier call, or one of `token_loop`, returned.
        start: see `constraints.weights_at_start`.
        map: see `maps`.
        objective: see `objectives`.
        update: tokens between updates of the weights that are read.
        anchor: tokens for which the weights of the gradient stand still; a word only under a constraint with
            an accumulator, whose clock it then is.
        read: `after` or `before` the own write, or `boundary`.
        constrain: `(name, parameter, N)`, due every N tokens.
        gradient: `through`, `first_order`, `stop`, or `("through", N)`.
        tile: the most tokens worked on at once; never changes the function.
        window: how many of the last tokens a write is for.
        weight: `[B, H, T]`, how much a pair counts in the windows it is in.
        parameter: of the objective; what differs by token is `[B, H, T]` or `[B, H, T, n]`.
        orthogonal: whether `writer` orthogonalises the momentum of every token.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    query, key, value = inputs
    link = link_of(constrain)
    frozen = anchor if isinstance(anchor, int) else 1
    period = update if update > 1 else frozen
    cut = tokens_between_cuts(gradient)
    read = "boundary" if update > 1 else read
    due = tuple(every for _, _, every in constrain)
    bounds = (*due, *(n for n in (update, cut) if n > 1), *((frozen,) if isinstance(anchor, int) else ()))

    shapes = weight_shapes(map, key.shape[-1], value.shape[-1])
    lead, tokens = key.shape[:2], key.shape[2]
    state = _state_at_start(start, shapes, key, link) if state is None else state
    weights = {n: state[n].flatten(0, 1) for n in shapes}
    moments = weights if gates[2] is None and not orthogonal else _moments_of(state, weights)
    running = {n: state.get(beside("A", n), state[n]).flatten(0, 1) for n in shapes}
    started = {n: state.get(f"{n}_start", state[n]).flatten(0, 1) for n in shapes}
    anchored = {n: state.get(f"{n}_anchor", state.get(f"{n}_start", state[n])).flatten(0, 1) for n in shapes}
    count = opened_at(state)

    own = link is None and read != "boundary"  # whether tokens read weights of their own
    longest = tile or (writer.tile if own else 128)
    windowed = weight is not None or (window or 1) > 1
    paired = {"key": key, "value": value}
    if windowed:
        paired["weight"] = key.new_ones(key.shape[:3]) if weight is None else weight
    objective, own_parameters = parametrised(objective, parameter), tokenwise(parameter)
    paired |= own_parameters
    seen = [state.get(f"window_{n}", x[:, :, :0]).flatten(0, 1) for n, x in paired.items()]
    flows = [x.flatten(0, 1) for x in (query, *paired.values())]
    switches = [None if g is None else g.flatten(0, 1) for g in gates]
    reads, begin = [], 0
    while begin < tokens:
        started = weights if count % period == 0 else started
        anchored = weights if count % frozen == 0 else anchored
        end = min(tokens, begin + longest, *(begin + n - count % n for n in bounds))
        q, *pair = (x[:, begin:end] for x in flows)
        pairs = [torch.cat(both, dim=1) for both in zip(seen, pair, strict=True)] if windowed else pair
        known = dict(zip(paired, pairs, strict=True))
        held = tuple(None if g is None else g[:, begin:end] for g in switches)
        at = anchored if isinstance(anchor, int) else weights
        count, begin = count + end - begin, end

        sums = window_sums(pairs[2], seen[2].shape[1], window or 1) if windowed else None
        piece = _pieced(at, (pairs[0], pairs[1], sums), held, running, moments, gradient, orthogonal)
        asked = tuple(_unless_stopped(known[n], gradient) for n in own_parameters)
        piece = piece._replace(parameters=asked)
        seen = [x[:, max(0, x.shape[1] - (window or 1) + 1) :] for x in pairs]
        rows = slice(1, None) if read == "after" else slice(None, -1)
        last = own and read == "after" and norm_is_due(constrain, count)  # reads what the constraint gives
        wanted = None if not own else q[:, :-1] if last else q
        rows = slice(1, -1) if last else rows
        got, running, moments = writer.write(map, objective, piece, rows, wanted)

        before = weights
        running = of_unit_norm(running, 1) if norm_is_due(constrain, count) else running
        if link is None:
            weights = running
        elif count % link[2] == 0:
            weights = linked_weights(link, running, 1)
        if got is None and read == "after":
            got = writer.read(map, before, q[:, :-1])
            last = True
        elif got is None:
            got = writer.read(map, before if read == "before" else started, q)
        reads.append(torch.cat((got, writer.read(map, weights, q[:, -1:])), 1) if last else got)
        if cut and count % cut == 0:  # the token before still reached what was written
            weights, moments, running = (
                {n: x.detach() for n, x in one.items()} for one in (weights, moments, running)
            )

    if count % period == 0:
        started = weights
    if count % frozen == 0:
        anchored = weights
    kept = dict(weights)
    others = (("S", moments, gates[2] is not None or orthogonal), ("A", running, link is not None))
    kept |= {beside(letter, n): x for letter, held, there in others if there for n, x in held.items()}
    if (window or 1) > 1:
        kept |= {f"window_{n}": x for n, x in zip(paired, seen, strict=True)}
    if period > 1:
        kept |= {f"{n}_start": w for n, w in started.items()}
    if frozen not in (1, period):
        kept |= {f"{n}_anchor": w for n, w in anchored.items()}
    new = {n: x.unflatten(0, lead) for n, x in kept.items()}
    cycle = math.lcm(update, frozen, cut or 1, *due)
    if cycle > 1:
        new["phase"] = torch.tensor(count % cycle, dtype=torch.int64)
    return torch.cat(reads, dim=1).unflatten(0, lead) if reads else torch.zeros_like(value), new


def check_standing(rule: str, anchor: str | int, constrain: tuple[Constraint, ...]) -> None:
    """Raise `ValueError` where gradients are wanted at running weights, or by another rule."""
    if rule != "gd" or not (isinstance(anchor, int) or link_of(constrain)):
        raise ValueError("only gradient steps (`gd`) at weights that stand still for a period are done here")


def _pieced(
    at: MapWeights,
    pairs: tuple[Tensor, Tensor, Tensor | None],
    gates: tuple[Tensor | None, ...],
    running: MapWeights,
    moments: MapWeights,
    gradient: str | tuple[str, int],
    orthogonal: bool,
) -> Piece:
    """The coefficients of a piece, and what the outer gradient is not to reach cut off."""
    (key, value, sums), (rate, retain, momentum) = pairs, gates
    tokens = key.shape[1] if sums is None else sums.shape[1]
    rate = key.new_ones(key.shape[0], tokens) if rate is None else rate
    decays = decay_matrix(key.new_ones(key.shape[0], tokens) if retain is None else retain)
    if orthogonal and momentum is None:
        momentum = key.new_zeros(key.shape[0], tokens)
    pushes = None if momentum is None else decay_matrix(momentum)
    if gradient in ("first_order", "stop"):
        at = {n: w.detach() for n, w in at.items()}
    if gradient == "stop":  # what a token adds is a constant; retention works on it and stays
        key, value, rate = key.detach(), value.detach(), rate.detach()
        sums = None if sums is None else sums.detach()
        pushes = None if pushes is None else pushes.detach()
        moments = {n: s.detach() for n, s in moments.items()}

    def of_pairs(rows: Tensor) -> Tensor:
        return rows if sums is None else rows @ sums

    kept = decays[..., :1]
    if pushes is None:
        taken = of_pairs(decays[..., 1:] * rate.unsqueeze(1))
        return Piece(at, key, value, running, moments, kept, None, taken, None)
    if orthogonal:
        pushed = pushes[:, 1:, :1], of_pairs(pushes[:, 1:, 1:])
        return Piece(
            at, key, value, running, moments, kept, None, decays[..., 1:] * rate.unsqueeze(1), pushed
        )
    reached = momentum_matrix(decays, pushes)
    taken = of_pairs(reached[..., 1:] * rate.unsqueeze(1))
    pushed = pushes[:, -1:, :1], of_pairs(pushes[:, -1:, 1:] * rate.unsqueeze(1))
    return Piece(at, key, value, running, moments, kept, reached[..., :1], taken, pushed)


def _unless_stopped(given: Tensor, gradient: str | tuple[str, int]) -> Tensor:
    """What belongs to the write alone: a constant under `stop`."""
    return given.detach() if gradient == "stop" else given


def _moments_of(state: dict[str, Tensor], weights: MapWeights) -> MapWeights:
    """S of every weight, `[M, ...]`; zeros before the first token."""
    found = {n: state.get(beside("S", n)) for n in weights}
    return {n: torch.zeros_like(weights[n]) if s is None else s.flatten(0, 1) for n, s in found.items()}


def _state_at_start(
    start: Any, shapes: dict[str, tuple[int, ...]], key: Tensor, link: Constraint | None
) -> dict[str, Tensor]:
    """Under a link, what starts is the accumulator."""
    began = weights_at_start(start, shapes, key)
    if link is None:
        return began
    return linked_weights(link, began, 2) | {beside("A", n): a for n, a in began.items()}
