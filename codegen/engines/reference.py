"""The meaning of a memory, token by token: slow, short, and what every engine is compared with.

For weights W, running from token to token (each tensor of the map on its own):

    W~_t = r_t W_{t-1}                              what retention leaves
    g_t  = grad_W objective(W_anchor; k_t, v_t)     at W~_t, at W_{t-1}, or at the start of the anchor's period; summed over a window
    S_t  = b_t S_{t-1} - e_t g_t                    momentum; without it S_t = -e_t g_t
    W_t  = W~_t + S_t

Rules other than `gd` change the last two lines:

    gd_implicit     e_t / (1 + e_t |k_t|^2) instead of e_t: the exact proximal step for a matrix and l2
    dgd             W_t = W_{t-1} (r_t I - e h h^T) + S_t, h the layer's own input at the anchor, e = e_t on the first layer
                    and e_t / (1 + e_t |h|^2) on the others (Nested Learning, eqs. 86-88 and 57); S_t uses the same e
    dgd_explicit    the same with e = e_t on all layers
    dgd_first_layer the erasure on the first layer only, e = e_t on all
    muon            S_t = b_t S_{t-1} - g_t,  W_t = W~_t + e_t NS(S_t), NS the quintic Newton-Schulz iteration
    softmax         for the map `cache`: the read is softmax attention over the pairs

Gradients are `torch.func.grad`, vectorised over batch and heads, so the outer loss differentiates through them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.maps import first_layers, map_settings, traced, weight_shapes
from nldsl.codegen.engines.objectives import objective_value


def token_loop(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    momentum: Tensor | None = None,
    erase: Tensor | tuple[Tensor, Tensor] | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Any = None,
    map: str | dict[str, Any] = "matrix",
    objective: Any = "l2",
    rule: str = "gd",
    update: int = 1,
    anchor: str | int | None = None,
    read: str = "after",
    window: int | None = None,
    weight: Tensor | None = None,
    normalise: bool = False,
    constrain: tuple[tuple[Any, ...], ...] = (),
    gradient: str | tuple[str, int] = "through",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a memory over a sequence, one token after another.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, or `[B, H, T, Dk]` for a matrix or vector; 1 where not given.
        retain: as `rate`, in [0, 1]; 1 where not given.
        momentum: as `rate`, in [0, 1]; no momentum where not given.
        erase: for a matrix and l2, what is forgotten along, `[B, H, T, Dk]`, and into, which is the key where it is not
            given: the gradient is (W along) into^T - v k^T, and `dgd` erases W along into^T.
        state: what an earlier call returned.
        start: the weights before the first token, `[H, ...]` or `[B, H, ...]`: a tensor for a map with one weight,
            a dict by name, or a tuple in the order of `weight_shapes`; zeros where not given.
        map: see `maps`; `cache` with a `window` needs the rule `softmax`.
        objective: see `objectives`.
        rule: see above.
        update: tokens between updates of the weights that are read; above 1, reads are at the start of the period.
        anchor: `retained`, `current` or a number of tokens; not given, `retained`, or the update's period above 1.
        read: `after` or `before` the own write, or `boundary`, the start of the update's, else the anchor's period.
        window: how many of the last tokens each gradient sums over, itself included.
        weight: `[B, H, T]`, how much a token counts in the windows it is in.
        normalise: divide by z_t . q_t, z_t = r_t z_{t-1} + e_t k_t; a divisor of 0 leaves the read as it is.
        constrain: `("norm", N)` divides the weights by their norm every N tokens.  `("softmax", N)` and `("lq", q, N)`
            make them a function of an accumulator A, which is what is retained and written: softmax(A) over each row,
            and A / |A|_q^(q - 2) (Memora and Moneta of Miras); the start is then A's.
        gradient: `through`; `first_order`, the weights inside g are constants; `stop`, all of the update is;
            `("through", N)`, weights are cut from the past every N tokens.

    Returns:
        The read `[B, H, T, Dv]`, and the state: the weights by name; `S...` with momentum; `z`; `A...` under a constraint
        with an accumulator; `window_*`, the pairs a window still needs; and with periods `..._start`,
        `..._anchor` where the anchor's period is another than the update's, and `phase`, tokens into the open period.
    """
    if map_settings(map)["kind"] == "cache":
        return _cache_loop(query, key, value, state, map_settings(map)["window"])
    batch, heads, tokens, dim_k = key.shape
    shapes = weight_shapes(map, dim_k, value.shape[-1])
    names = list(shapes)
    ones = key.new_ones(batch, heads, tokens)
    rate, retain = (ones if rate is None else rate), (ones if retain is None else retain)
    weight = ones if weight is None else weight
    along, into = erase if isinstance(erase, tuple) else (erase, key)

    anchor = anchor or ("retained" if update == 1 else update)
    frozen = anchor if isinstance(anchor, int) and anchor > 1 else 1
    period = update if update > 1 else frozen
    reads = "boundary" if update > 1 else read
    cut = gradient[1] if isinstance(gradient, tuple) else 0
    linked = tuple(step for step in constrain if step[0] != "norm")
    cycle = math.lcm(update, frozen, *(step[-1] for step in constrain), cut or 1)

    if state is None:
        began = _started(start, shapes, batch, heads, value)
        state = _initial(began, key, value, momentum is not None or rule == "muon", linked)
    weights = {n: state[n] for n in names}
    moments = {n: state.get(_as("S", n), torch.zeros_like(weights[n])) for n in names}
    running = {n: state.get(_as("A", n), weights[n]) for n in names}
    started = {n: state.get(f"{n}_start", weights[n]) for n in names}
    anchored = {n: state.get(f"{n}_anchor", started[n]) for n in names}
    z = state.get("z", key.new_zeros(batch, heads, dim_k))
    z_started = state.get("z_start", z)
    seen = [
        state.get(f"window_{n}", x[:, :, :0]) for n, x in (("key", key), ("value", value), ("weight", weight))
    ]
    count = int(state.get("phase", torch.tensor(0)))

    outputs = []
    for t in range(tokens):
        if cut and count % cut == 0:
            weights, moments, running = _detached(weights), _detached(moments), _detached(running)
        if count % period == 0:
            started, z_started = weights, z
        if count % frozen == 0:
            anchored = weights
        before, z_before = weights, z
        k, v, q = key[:, :, t], value[:, :, t], query[:, :, t]
        e, r = rate[:, :, t], retain[:, :, t]
        seen = [
            torch.cat((old, x[:, :, t : t + 1]), dim=2)
            for old, x in zip(seen, (key, value, weight), strict=True)
        ]
        seen = [x[:, :, -(window or 1) :] for x in seen]

        kept = {n: _scaled(r, running[n]) for n in names}
        if isinstance(anchor, int):
            at = anchored if frozen > 1 else weights
        else:
            at = kept if anchor == "retained" and not linked else weights
        at = _detached(at) if gradient == "first_order" else at
        slopes = (
            _slopes(map, objective, at, seen)
            if along is None
            else _erasing(at, along[:, :, t], into[:, :, t], k, v)
        )
        erased = None if along is None else (along[:, :, t], into[:, :, t])
        steps, moments = _ruled(
            map,
            rule,
            running,
            at,
            slopes,
            moments,
            k,
            e,
            None if momentum is None else momentum[:, :, t],
            erased,
        )
        if gradient == "stop":
            steps, moments = _detached(steps), _detached(moments)
        running = {n: kept[n] + steps[n] for n in names}
        z = _scaled(r, z) + _scaled(e, k)
        count += 1
        running, weights = _constrained(constrain, running, weights, count)

        chosen, chosen_z = {"after": (weights, z), "before": (before, z_before)}.get(
            reads, (started, z_started)
        )
        out = _read(map, chosen, q)
        if normalise:
            divisor = (chosen_z * q).sum(-1, keepdim=True)
            out = out / torch.where(divisor == 0, torch.ones_like(divisor), divisor)
        outputs.append(out)

    new = dict(weights)
    if momentum is not None or rule == "muon":
        new |= {_as("S", n): moments[n] for n in names}
    if linked:
        new |= {_as("A", n): running[n] for n in names}
    if normalise:
        new["z"] = z
    if window is not None and window > 1:
        new |= {
            f"window_{n}": x[:, :, max(0, x.shape[2] - window + 1) :]
            for n, x in zip(("key", "value", "weight"), seen)
        }
    if period > 1:
        started, z_started = (weights, z) if count % period == 0 else (started, z_started)
        new |= {f"{n}_start": started[n] for n in names} | ({"z_start": z_started} if normalise else {})
    if frozen not in (1, period):
        anchored = weights if count % frozen == 0 else anchored
        new |= {f"{n}_anchor": anchored[n] for n in names}
    if cycle > 1:
        new["phase"] = torch.tensor(count % cycle, dtype=torch.int64)
    read_all = torch.stack(outputs, dim=2) if outputs else torch.zeros_like(value)
    return read_all, new


def newton_schulz(matrix: Tensor, steps: int = 5) -> Tensor:
    """Push all singular values of `[..., m, n]` near 1: X <- a X + (b X X^T + c (X X^T)^2) X (Muon's quintic)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.transpose(-1, -2) if tall else matrix
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(-1, -2) if tall else x


def _ruled(
    spec: str | dict[str, Any],
    rule: str,
    running: dict[str, Tensor],
    at: dict[str, Tensor],
    slopes: dict[str, Tensor],
    moments: dict[str, Tensor],
    key: Tensor,
    rate: Tensor,
    momentum: Tensor | None,
    erased: tuple[Tensor, Tensor] | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the rule adds to the retained weights, and the new momentum, each by name."""
    carried = {
        n: torch.zeros_like(s) if momentum is None else _scaled(momentum, s) for n, s in moments.items()
    }
    if rule == "muon":
        moments = {n: carried[n] - slopes[n] for n in slopes}
        return {n: _scaled(rate, newton_schulz(moments[n])) for n in slopes}, moments
    if rule == "gd_implicit":
        rate = rate / (1 + rate * key.square().sum(-1))
    if rule in ("gd", "gd_implicit"):
        moments = {n: carried[n] - _scaled(rate, slopes[n]) for n in slopes}
        return moments, moments
    if rule not in ("dgd", "dgd_explicit", "dgd_first_layer"):
        raise ValueError(f"unknown rule {rule!r}")

    inputs = _over_heads(lambda weights, z: traced(spec, weights, z)[1])(at, key)
    steps, moments = {}, {}
    for n, h in inputs.items():
        first = n in first_layers(spec)
        own = rate if first or rule != "dgd" else rate / (1 + rate * h.square().sum(-1))
        moments[n] = carried[n] - _scaled(own, slopes[n])
        steps[n] = moments[n]
        if first or rule != "dgd_first_layer":
            along, into = (h, h) if erased is None else erased
            steps[n] = steps[n] - _scaled(own, _erasure(running[n], along, into))
    return steps, moments


def _erasure(weights: Tensor, along: Tensor, into: Tensor) -> Tensor:
    """(W along) into^T for `[B, H, m, n]`, W along into element by element for `[B, H, n]`."""
    if weights.dim() == 3:
        return weights * along * into
    return (weights @ along.unsqueeze(-1)) * into.unsqueeze(-2)


def _erasing(
    at: dict[str, Tensor], along: Tensor, into: Tensor, key: Tensor, value: Tensor
) -> dict[str, Tensor]:
    """The l2 gradient of a matrix that forgets along one direction into another: (W along) into^T - v k^T."""
    return {"W": _erasure(at["W"], along, into) - value.unsqueeze(-1) * key.unsqueeze(-2)}


def _slopes(spec: Any, objective: Any, at: dict[str, Tensor], pairs: list[Tensor]) -> dict[str, Tensor]:
    """The gradient of the objective, summed over the window's pairs `[B, H, w, ...]`, by name of the weight."""

    def total(weights: dict[str, Tensor], keys: Tensor, values: Tensor, counts: Tensor) -> Tensor:
        def one(key: Tensor, value: Tensor) -> Tensor:
            return objective_value(objective, lambda z: traced(spec, weights, z)[0], weights, key, value)

        return (counts * torch.func.vmap(one)(keys, values)).sum()

    return _over_heads(torch.func.grad(total))(at, *pairs)


def _read(spec: Any, weights: dict[str, Tensor], query: Tensor) -> Tensor:
    """M(q) of every memory, `[B, H, Dv]`."""
    return _over_heads(lambda one, z: traced(spec, one, z)[0])(weights, query)


def _over_heads(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one memory, over batch and heads."""
    return torch.func.vmap(torch.func.vmap(function))


def _constrained(
    constrain: tuple[tuple[Any, ...], ...], running: dict[str, Tensor], weights: dict[str, Tensor], count: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What is written to and what is read after `count` tokens, under the constraints that are due."""
    linked = any(step[0] != "norm" for step in constrain)
    visible = weights if linked else running
    for name, *arguments, every in constrain:
        if count % every != 0:
            continue
        if name == "norm":
            running = {n: w / _norm(w, 2.0).clamp(min=1e-12) for n, w in running.items()}
            visible = visible if linked else running
        else:
            visible = {n: _link(name, arguments, w) for n, w in running.items()}
    return running, visible


def _link(name: str, arguments: list[Any], accumulated: Tensor) -> Tensor:
    """The weights that an accumulator stands for."""
    if name == "softmax":
        return accumulated.softmax(dim=-1)
    if name == "lq":
        return accumulated / _norm(accumulated, arguments[0]).clamp(min=1e-12).pow(arguments[0] - 2)
    raise ValueError(f"unknown constraint {name!r}")


def _norm(weights: Tensor, order: float) -> Tensor:
    """The entry-wise norm of each memory's tensor, `[B, H, 1, ...]`."""
    return torch.linalg.vector_norm(weights, order, dim=tuple(range(2, weights.dim())), keepdim=True)


def _started(
    start: Any, shapes: dict[str, tuple[int, ...]], batch: int, heads: int, like: Tensor
) -> dict[str, Tensor]:
    """The weights before the first token, each `[B, H, ...]`."""
    if start is None:
        return {n: like.new_zeros(batch, heads, *shape) for n, shape in shapes.items()}
    given = (
        dict(zip(shapes, (start,) if isinstance(start, Tensor) else start, strict=True))
        if not isinstance(start, dict)
        else start
    )
    return {n: given[n].expand(batch, heads, *shape) for n, shape in shapes.items()}


def _initial(
    began: dict[str, Tensor], key: Tensor, value: Tensor, moving: bool, linked: tuple[tuple[Any, ...], ...]
) -> dict[str, Tensor]:
    """The state before the first token."""
    state = dict(began)
    if linked:
        state = {n: _link(linked[0][0], list(linked[0][1:-1]), w) for n, w in began.items()}
        state |= {_as("A", n): w for n, w in began.items()}
    if moving:
        state |= {_as("S", n): torch.zeros_like(w) for n, w in began.items()}
    return state


def _scaled(gate: Tensor, content: Tensor) -> Tensor:
    """A gate `[B, H]`, or `[B, H, Dk]` on the key side, times content `[B, H, ...]`."""
    if gate.dim() == 2:
        return gate.reshape(*gate.shape, *[1] * (content.dim() - 2)) * content
    if gate.shape[-1] != content.shape[-1]:
        raise ValueError("a gate per channel scales the key side of a matrix or a vector map")
    return gate.reshape(*gate.shape[:2], *[1] * (content.dim() - 3), gate.shape[-1]) * content


def _detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: x.detach() for n, x in tensors.items()}


def _as(letter: str, name: str) -> str:
    """`W1` as `S1`: the name of what goes with a weight."""
    return letter + name.removeprefix("W")


def _cache_loop(
    query: Tensor, key: Tensor, value: Tensor, state: dict[str, Tensor] | None, window: int | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Softmax attention, one query at a time over the pairs it may see."""
    keys = key if state is None else torch.cat((state["key"], key), dim=2)
    values = value if state is None else torch.cat((state["value"], value), dim=2)
    total, tokens = keys.shape[2], query.shape[2]
    outputs = []
    for t in range(tokens):
        end = total - tokens + t + 1
        begin = 0 if window is None else max(0, end - window)
        share = torch.einsum("bhk,bhik->bhi", query[:, :, t], keys[:, :, begin:end]).softmax(-1)
        outputs.append(torch.einsum("bhi,bhiv->bhv", share, values[:, :, begin:end]))
    first = 0 if window is None else max(0, total - window + 1)
    read = torch.stack(outputs, dim=2) if outputs else torch.zeros_like(value)
    return read, {"key": keys[:, :, first:], "value": values[:, :, first:]}
