"""The meaning of a memory, token by token: slow, short, and what every engine is compared with.

For weights W, running from token to token (each tensor of the map on its own):

    W~_t = r_t W_{t-1}                              what retention leaves
    g_t  = grad_W objective(W_anchor; k_t, v_t)     summed over a window, where there is one
    S_t  = b_t S_{t-1} - e_t g_t                    momentum; without it S_t = -e_t g_t
    W_t  = W~_t + S_t

Rules other than `gd` change the last two lines:

    gd_implicit      e_t / (1 + e_t |k_t|^2) instead of e_t: the exact proximal step for a matrix and l2
    dgd              W_t = W_{t-1} (r_t I - e h h^T) + S_t, h the layer's own input at the anchor,
                     e = e_t on the first layer and e_t / (1 + e_t |h|^2) on the others; S_t uses the same e
                     (Nested Learning, eqs. 57 and 86-88)
    dgd_explicit     the same with e = e_t on all layers
    dgd_first_layer  the erasure on the first layer only, e = e_t on all
    muon             S_t = b_t S_{t-1} - g_t and W_t = W~_t + e_t NS(S_t), NS as in `newton_schulz`
    ridge            no steps: reads see the matrix that minimises l2 over all pairs so far, each weighted
                     by its rate and what retention left of it, plus 1/2 a |W|^2: see `reference_ridge`
    softmax          for the map `cache`: the read is softmax attention over the pairs
    a function       W_t is what it makes of W~_t, g_t and memories of its own: see `inner_rule`

Gradients are `torch.func.grad`, vectorised over batch and heads, so the outer loss differentiates through
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.inner_rule import KeptAxes, held_by_rule, inner_rule, rule_state
from nldsl.codegen.engines.maps import first_layers, map_settings, traced, weight_shapes
from nldsl.codegen.engines.newton_schulz import newton_schulz
from nldsl.codegen.engines.objectives import objective_value, parametrised, tokenwise, with_parameters
from nldsl.codegen.engines.parts import full_precision
from nldsl.codegen.engines.reference_ridge import ridge_loop


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
    objective_parameter: float | Tensor | tuple[Tensor, ...] | None = None,
    rule: str | Callable[..., tuple[Tensor, dict[str, Tensor]]] = "gd",
    rule_parameter: float | None = None,
    memories: KeptAxes | None = None,
    sees: tuple[str, ...] = (),
    update: int = 1,
    anchor: str | int = "retained",
    read: str = "after",
    window: int | None = None,
    weight: Tensor | None = None,
    normalise: bool = False,
    constrain: tuple[tuple[str, float | None, int], ...] = (),
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
        erase: for a matrix and l2, what is forgotten along, `[B, H, T, Dk]`, and into, which is the key
            where it is not given: the gradient is (W along) into^T - v k^T, and `dgd` erases W along into^T.
        state: what an earlier call returned.
        start: the weights before the first token, `[H, ...]` or `[B, H, ...]`: a tensor for a map with one
            weight, a dict by name, or a tuple in the order of `maps.weight_shapes`; zeros where not given.
        map: see `maps`; `cache`, with its `window`, is read by softmax attention.
        objective: see `objectives`.
        objective_parameter: the `p` of `lp` or the `delta` of `huber`, which may be one for each token,
            `[B, H, T]`; of a callable, a tuple of what it takes for each token, `[B, H, T, n]`.
        rule: see above.
        rule_parameter: the `a` of `ridge`, above 0.
        memories: of a rule that is a function, what it keeps for each weight: see `inner_rule`.
        sees: of such a rule, what it reads of the layers: `input`, `input_gram` or `tokens`.
        update: tokens between updates of the weights that are read; above 1, reads are at the start of the
            period.
        anchor: where gradients are taken: `retained` at W~_t, `current` at W_{t-1}, or N at the start of
            the period of N tokens.
        read: `after` or `before` the own write, or `boundary`, the start of the update's, else the anchor's
            period.
        window: how many of the last tokens each gradient sums over, itself included.
        weight: `[B, H, T]`, how much a token counts in the windows it is in.
        normalise: divide by z_t . q_t, z_t = r_t z_{t-1} + e_t k_t; a divisor of 0 leaves the read as it is.
        constrain: `(name, parameter, N)`, due every N tokens.  `norm` divides the weights by their norm.
            `softmax` and `lq` make them a function of an accumulator A, which is what is retained and
            written: softmax(A) over each row, and A / |A|_q^(q - 2) (Memora and Moneta of Miras); the start
            is then A's.
        gradient: `through`; `first_order`, the weights inside g are constants; `stop`, all that a token adds
            is, so that query, retention and start alone are reached; `("through", N)`, after every N tokens
            the running weights and the momentum go on as values without a past.

    Returns:
        The read `[B, H, T, Dv]`, and the state: the weights by name; `S...` with momentum; `z`; `A...`
        under a constraint with an accumulator; `rule_...` and `step`, the number of the last update, of
        a rule that is a function; `window_...`, the pairs a window still needs; and with
        periods `..._start`, `..._anchor` where the anchor's period is another than the update's, and
        `phase`, tokens into the open period.
    """
    if map_settings(map)["kind"] == "cache":
        return _cache_loop(query, key, value, state, map_settings(map), gradient)
    if rule == "ridge":
        words: dict[str, Any] = {"map": map_settings(map)["kind"], "objective": objective}
        words |= {"strength": rule_parameter, "update": update, "read": read, "gradient": gradient}
        return ridge_loop(query, key, value, rate, retain, state, start, **words)
    objective = parametrised(objective, objective_parameter)
    given = _given(query, key, value, rate, retain, momentum, erase, weight, objective_parameter)
    paired = ["key", "value", "weight", *tokenwise(objective_parameter)]
    linked = next((step for step in constrain if step[0] != "norm"), None)
    frozen = anchor if isinstance(anchor, int) else 1
    period = update if update > 1 else frozen
    cut = gradient[1] if isinstance(gradient, tuple) else 0
    read = "boundary" if update > 1 else read

    shapes = weight_shapes(map, key.shape[-1], value.shape[-1])
    names = list(shapes)
    state = _begun(_started(start, shapes, key), linked) if state is None else state
    weights = {n: state[n] for n in names}
    if normalise:
        weights["z"] = state.get("z", torch.zeros_like(key[:, :, :1].sum(2)))
    moving = [] if callable(rule) else names
    moments = {n: state.get(_as("S", n), torch.zeros_like(weights[n])) for n in moving}
    running = {n: state.get(_as("A", n), weights[n]) for n in names}
    started = {n: state.get(f"{n}_start", w) for n, w in weights.items()}
    anchored = {n: state.get(f"{n}_anchor", started[n]) for n in names}
    seen = [state.get(f"window_{n}", given[n][:, :, :0]) for n in paired]
    count = int(state["phase"]) if "phase" in state else 0
    held, begun = held_by_rule(running, memories or {}, state), int(state.get("step", 0))

    outputs = []
    for t in range(key.shape[2]):
        token = {n: x[:, :, t] for n, x in given.items()}
        started = weights if count % period == 0 else started
        anchored = weights if count % frozen == 0 else anchored
        before = weights

        kept = {n: _scaled(token["retain"], running[n]) for n in names}
        seen = [torch.cat((x, token[n].unsqueeze(2)), 2) for n, x in zip(paired, seen, strict=True)]
        seen = [x[:, :, -(window or 1) :] for x in seen]
        at = {"retained": weights if linked else kept, "current": weights}.get(str(anchor), anchored)
        at = {n: at[n].detach() if gradient == "first_order" else at[n] for n in names}
        slopes = _erasing(at, token) if "along" in token else _slopes(map, objective, at, seen)
        if callable(rule):
            inputs = _inputs(map, at, token["key"]) if sees else {}
            number = begun + t + 1
            steps, held = inner_rule(rule, kept, slopes, held, token["rate"], number, inputs, sees)
        else:
            steps, moments = _ruled(map, rule, running, at, slopes, moments, token)
        if gradient == "stop":
            steps, moments, held = _detached(steps), _detached(moments), _detached(held)

        count += 1
        running = _normed({n: kept[n] + steps[n] for n in names}, constrain, count)
        weights = running if linked is None else _linked(linked, running, before, count)
        if normalise:
            weights = weights | {"z": _counted(before["z"], token, gradient)}
        chosen = {"after": weights, "before": before}.get(read, started)
        outputs.append(_read(map, chosen, token["query"], normalise))
        # After the token, so that the first tokens still reach the start.
        weights, moments, running, held = _cut_off(cut, count, weights, moments, running, held)

    started = weights if count % period == 0 else started
    anchored = weights if count % frozen == 0 else anchored
    kept_names = [*names, "z"] if normalise else names
    new = {n: weights[n] for n in kept_names}
    if momentum is not None or rule == "muon":
        new |= {_as("S", n): moments[n] for n in names}
    new |= rule_state(held, begun + key.shape[2]) if callable(rule) else {}
    if linked is not None:
        new |= {_as("A", n): running[n] for n in names}
    if window is not None and window > 1:
        new |= {f"window_{n}": x[:, :, 1 - window :] for n, x in zip(paired, seen, strict=True)}
    if period > 1:
        new |= {f"{n}_start": started[n] for n in kept_names}
    if frozen not in (1, period):
        new |= {f"{n}_anchor": anchored[n] for n in names}
    cycle = math.lcm(update, frozen, cut or 1, *(every for _, _, every in constrain))
    if cycle > 1:
        new["phase"] = torch.tensor(count % cycle, dtype=torch.int64)
    return torch.stack(outputs, dim=2) if outputs else torch.zeros_like(value), new


def _given(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None,
    retain: Tensor | None,
    momentum: Tensor | None,
    erase: Tensor | tuple[Tensor, Tensor] | None,
    weight: Tensor | None,
    parameter: float | Tensor | tuple[Tensor, ...] | None,
) -> dict[str, Tensor]:
    """All that varies by token, by name, with ones for the gates that are not given."""
    ones = key.new_ones(key.shape[:3])
    along, into = erase if isinstance(erase, tuple) else (erase, key)
    gates = {"rate": rate, "retain": retain, "weight": weight}
    given = {"query": query, "key": key, "value": value} | {
        n: ones if g is None else g for n, g in gates.items()
    }
    if momentum is not None:
        given["momentum"] = momentum
    given |= tokenwise(parameter)
    return given if along is None else given | {"along": along, "into": into}


def _ruled(
    spec: str | dict[str, Any],
    rule: str,
    running: dict[str, Tensor],
    at: dict[str, Tensor],
    slopes: dict[str, Tensor],
    moments: dict[str, Tensor],
    token: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the rule adds to the retained weights, and the new momentum, each by name."""
    key, rate, momentum = token["key"], token["rate"], token.get("momentum")
    carried = {
        n: torch.zeros_like(s) if momentum is None else _scaled(momentum, s) for n, s in moments.items()
    }
    if rule == "muon":
        moments = {n: carried[n] - slopes[n] for n in slopes}
        return {n: _scaled(rate, newton_schulz(moments[n])) for n in slopes}, moments
    if rule in ("gd", "gd_implicit"):
        rate = rate / (1 + rate * key.square().sum(-1)) if rule == "gd_implicit" else rate
        moments = {n: carried[n] - _scaled(rate, slopes[n]) for n in slopes}
        return moments, moments
    if rule not in ("dgd", "dgd_explicit", "dgd_first_layer"):
        raise ValueError(f"unknown rule {rule!r}")

    steps, moments = {}, {}
    for n, h in _inputs(spec, at, key).items():
        first = n in first_layers(spec)
        own = rate if first or rule != "dgd" else rate / (1 + rate * h.square().sum(-1))
        moments[n] = carried[n] - _scaled(own, slopes[n])
        erased = first or rule != "dgd_first_layer"
        along, into = (token["along"], token["into"]) if "along" in token else (h, h)
        lost = _erasure(running[n], along, into)
        steps[n] = moments[n] - _scaled(own, lost) if erased else moments[n]
    return steps, moments


def _inputs(spec: str | dict[str, Any], weights: dict[str, Tensor], key: Tensor) -> dict[str, Tensor]:
    """What each layer is given for a key `[B, H, Dk]`, by the name of its weight."""
    return _over_heads(lambda own, z: traced(spec, own, z)[1])(weights, key)


def _erasure(weights: Tensor, along: Tensor, into: Tensor) -> Tensor:
    """(W along) into^T for `[B, H, m, n]`, W along into element by element for `[B, H, n]`."""
    if weights.dim() == 3:
        return weights * along * into
    return (weights @ along.unsqueeze(-1)) * into.unsqueeze(-2)


def _erasing(at: dict[str, Tensor], token: dict[str, Tensor]) -> dict[str, Tensor]:
    """The l2 gradient of a matrix that forgets along one direction into another: (W along) into^T - v k^T."""
    written = token["value"].unsqueeze(-1) * token["key"].unsqueeze(-2)
    return {"W": _erasure(at["W"], token["along"], token["into"]) - written}


def _slopes(spec: Any, objective: Any, at: dict[str, Tensor], pairs: list[Tensor]) -> dict[str, Tensor]:
    """The gradient by name of the weight, summed over the window's pairs `[B, H, w, ...]`."""

    def total(
        weights: dict[str, Tensor], keys: Tensor, values: Tensor, counts: Tensor, *parameters: Tensor
    ) -> Tensor:
        def one(key: Tensor, value: Tensor, *own: Tensor) -> Tensor:
            asked = with_parameters(objective, own)
            return objective_value(asked, lambda z: traced(spec, weights, z)[0], weights, key, value)

        return (counts * torch.func.vmap(one)(keys, values, *parameters)).sum()

    return _over_heads(torch.func.grad(total))(at, *pairs)


def _read(spec: Any, weights: dict[str, Tensor], query: Tensor, normalise: bool) -> Tensor:
    """M(q) of every memory, `[B, H, Dv]`, divided by z . q if asked."""
    result = _over_heads(lambda one, z: traced(spec, one, z)[0])(weights, query)
    if not normalise:
        return result
    divisor = (weights["z"] * query).sum(-1, keepdim=True)
    return result / torch.where(divisor == 0, torch.ones_like(divisor), divisor)


def _counted(z: Tensor, token: dict[str, Tensor], gradient: str | tuple[str, int]) -> Tensor:
    """The divisor's vector after a token: z_t = r_t z_{t-1} + e_t k_t."""
    added = _scaled(token["rate"], token["key"])
    return _scaled(token["retain"], z) + (added.detach() if gradient == "stop" else added)


def _over_heads(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one memory, over batch and heads."""
    return torch.func.vmap(torch.func.vmap(function))


def _normed(
    running: dict[str, Tensor], constrain: tuple[tuple[str, float | None, int], ...], count: int
) -> dict[str, Tensor]:
    """The weights divided by their norm, where that is due after `count` tokens."""
    if not any(name == "norm" and count % every == 0 for name, _, every in constrain):
        return running
    return {n: (full_precision(w) / _norm(w, 2.0).clamp(min=1e-12)).to(w.dtype) for n, w in running.items()}


def _linked(
    linked: tuple[str, float | None, int], running: dict[str, Tensor], before: dict[str, Tensor], count: int
) -> dict[str, Tensor]:
    """The weights that the accumulators stand for, renewed where that is due after `count` tokens."""
    name, parameter, every = linked
    if count % every != 0:
        return before
    if name == "softmax":
        return {n: a.softmax(dim=-1) for n, a in running.items()}
    if name != "lq" or parameter is None:
        raise ValueError(f"unknown constraint {name!r}")
    norms = {n: _norm(a, parameter).clamp(min=1e-12) for n, a in running.items()}
    return {n: (full_precision(a) / norms[n].pow(parameter - 2)).to(a.dtype) for n, a in running.items()}


def _norm(weights: Tensor, order: float) -> Tensor:
    """The entry-wise norm of each memory's tensor, `[B, H, 1, ...]`, in float32 or better."""
    wide = full_precision(weights)
    return torch.linalg.vector_norm(wide, order, dim=tuple(range(2, weights.dim())), keepdim=True)


def _started(start: Any, shapes: dict[str, tuple[int, ...]], key: Tensor) -> dict[str, Tensor]:
    """The weights before the first token, each `[B, H, ...]`."""
    lead = key.shape[:2]
    if start is None:
        return {n: key.new_zeros(*lead, *shape) for n, shape in shapes.items()}
    listed = (start,) if isinstance(start, Tensor) else start
    given = listed if isinstance(listed, dict) else dict(zip(shapes, listed, strict=True))
    return {n: given[n].expand(*lead, *shape) for n, shape in shapes.items()}


def _begun(began: dict[str, Tensor], linked: tuple[str, float | None, int] | None) -> dict[str, Tensor]:
    """The state before the first token: under a link, what starts is the accumulator."""
    if linked is None:
        return began
    return _linked(linked, began, began, 0) | {_as("A", n): a for n, a in began.items()}


def _scaled(gate: Tensor, content: Tensor) -> Tensor:
    """A gate `[B, H]`, or `[B, H, Dk]` on the key side, times content `[B, H, ...]`."""
    if gate.dim() == 2:
        return gate.reshape(*gate.shape, *[1] * (content.dim() - 2)) * content
    if gate.shape[-1] != content.shape[-1]:
        raise ValueError("a gate per channel scales the key side of a matrix or a vector map")
    return gate.reshape(*gate.shape[:2], *[1] * (content.dim() - 3), gate.shape[-1]) * content


def _detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: x.detach() for n, x in tensors.items()}


def _cut_off(cut: int, count: int, *given: dict[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
    """Values without a past where a cut of the gradient is due after `count` tokens; else as they are."""
    return tuple(_detached(tensors) for tensors in given) if cut and count % cut == 0 else given


def _as(letter: str, name: str) -> str:
    """`W1` as `S1`: the name of what goes with a weight."""
    return letter + name.removeprefix("W")


def _cache_loop(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    state: dict[str, Tensor] | None,
    settings: dict[str, Any],
    gradient: str | tuple[str, int],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Softmax attention, one query at a time over the pairs it may see: the window and the first `sinks`."""
    window, sinks = settings["window"], settings["sinks"]
    cut = gradient[1] if isinstance(gradient, tuple) else 0
    count = int(state["phase"]) if state is not None and "phase" in state else 0
    if gradient == "stop":
        key, value = key.detach(), value.detach()
    keys = key[:, :, :0] if state is None else state["key"]
    values = value[:, :, :0] if state is None else state["value"]
    tokens = query.shape[2]
    served = query.shape[1] // keys.shape[1]
    outputs = []
    for t in range(tokens):
        keys, values = torch.cat((keys, key[:, :, t, None]), 2), torch.cat((values, value[:, :, t, None]), 2)
        end = keys.shape[2]
        begin = 0 if window is None else max(0, end - window)
        first = min(sinks, begin)
        seen = [
            torch.cat((x[:, :, :first], x[:, :, begin:end]), 2).repeat_interleave(served, dim=1)
            for x in (keys, values)
        ]
        share = torch.einsum("bhk,bhik->bhi", query[:, :, t], seen[0]).softmax(-1)
        outputs.append(torch.einsum("bhi,bhiv->bhv", share, seen[1]))
        count += 1
        if cut and count % cut == 0:
            keys, values = keys.detach(), values.detach()
    begin = 0 if window is None else max(0, keys.shape[2] - window + 1)
    keys, values = (torch.cat((x[:, :, : min(sinks, begin)], x[:, :, begin:]), 2) for x in (keys, values))
    empty = query.new_zeros(*query.shape[:3], value.shape[-1])
    read = torch.stack(outputs, dim=2) if outputs else empty
    new = {"key": keys, "value": values}
    return read, new | {"phase": torch.tensor(count % cut, dtype=torch.int64)} if cut > 1 else new
