"""Deep memories against titans-pytorch's NeuralMemory, run as a whole layer.

Its keys, values and gates come out of its own projections, which ours is handed; gradients are taken for its
input and for every weight of it that takes part.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.oracles.compare import LOWERINGS, Case, Result, core

TOKENS, DIM, HEADS = 12, 8, 2
Leaves = dict[str, Tensor]
CONVENTIONS = (
    "loss is the mean over features of the squared error, ours half its sum: rate = 2 / d times theirs; "
    "forgetting is 1 - retain; weights stand as [in, out]; momentum and forgetting are one number for each "
    "chunk, so chunks are of one token here"
)


def _layer(depth: int, period: int | None, **settings: Any) -> Any:
    from titans_pytorch import MemoryMLP, NeuralMemory

    torch.manual_seed(0)
    head = DIM // HEADS
    layer = NeuralMemory(
        dim=DIM,
        dim_head=head,
        heads=HEADS,
        chunk_size=1,
        batch_size=period,
        model=MemoryMLP(head, depth=depth, expansion_factor=2.0),
        mem_model_norm_add_residual=False,
        **settings,
    )
    return layer.double()


def _inputs(layer: Any, x: Tensor) -> Leaves:
    """What its projections say, as a core takes it."""
    query = layer.to_queries(layer.retrieve_norm(x))
    x = layer.store_norm(x)
    batch = x.shape[0]
    made = {
        "query": layer.q_norm(layer.split_heads(query)),
        "key": layer.k_norm(layer.split_kv_heads(layer.to_keys(x))),
        "value": layer.split_kv_heads(layer.to_values(x)),
        "rate": layer.adaptive_step_transform(layer.to_adaptive_step(x)) * (2 * HEADS / DIM),
        "retain": 1 - layer.to_decay_factor(x).sigmoid(),
    }
    if layer.to_momentum is not None:
        made["momentum"] = layer.to_momentum(x)[0].sigmoid()
    return {n: t if n in ("query", "key", "value") else t.reshape(batch, HEADS, -1) for n, t in made.items()}


def _case(
    memory: str,
    name: str,
    depth: int,
    period: int | None,
    *,
    tolerance: float = 1e-11,
    lowerings: tuple[str, ...] = LOWERINGS,
    **more: Any,
) -> Case:
    """One setting of theirs, `more` being settings of its layer, against a memory of `memories.nl`."""
    layer = _layer(depth, period, **more)
    places = [""] if depth == 1 else [str(n + 1) for n in range(depth)]
    letters = "W" if layer.to_momentum is None else "WS"
    kept = [letter + place for letter in letters for place in places]

    def leaves() -> Leaves:
        x = torch.randn(2, TOKENS, DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        weights = {n: p.detach().clone() for n, p in layer.named_parameters() if "memory_model." not in n}
        return {n: t.requires_grad_() for n, t in ({"x": x} | weights).items()}

    def within(given: Leaves, function: Any) -> Any:
        """Call `function` of the layer while it stands on the given weights."""
        weights = {n: t for n, t in given.items() if n != "x"}
        with torch.nn.utils.stateless._reparametrize_module(layer, weights):
            return function()

    def ours(lowering: str, given: Leaves) -> Result:
        def run() -> Result:
            made = _inputs(layer, given["x"])
            if layer.spectral_norm_surprises:  # ours keeps the rate out of the momentum; theirs is 1 here
                made["rate"] = torch.ones_like(made["rate"])
            starts = tuple(p.transpose(-1, -2) for p in layer.memory_model_parameters)
            read, state = core(memory, lowering)(**made, start=starts if depth > 1 else starts[0])
            read = layer.multihead_rmsnorm(read)
            gated = read * layer.retrieve_gate(layer.retrieve_norm(given["x"]))
            return layer.combine_heads(layer.merge_heads(gated)), {n: state[n] for n in kept}

        return within(given, run)

    def theirs(given: Leaves) -> Result:
        def run() -> Result:
            read, state = layer(given["x"])
            weights, momenta = state.states
            last = list(weights.values())
            if layer.to_momentum is not None:
                last += [s.squeeze(0) for s in momenta.values()]
            turned = [w.unflatten(0, (2, HEADS)).transpose(-1, -2) for w in last]
            return read, dict(zip(kept, turned, strict=True))

        return within(given, run)

    where = {None: "the sequence's start", 1: "every token"}.get(period, f"every {period} tokens")
    return Case(
        f"titans-pytorch NeuralMemory, {name}, gradients at {where}",
        "titans-pytorch",
        ours,
        theirs,
        leaves,
        CONVENTIONS,
        memory,
        lowerings=lowerings,
        tolerance=tolerance,
    )


CASES = (
    _case("DeepOnce", "two layers", 2, None),
    _case("DeepPeriod", "two layers", 2, 4),
    _case("DeepToken", "two layers", 2, 1, lowerings=("reference",)),
    _case("DeepPlain", "two layers, no momentum", 2, 4, momentum=False),
    _case("DeeperToken", "three layers", 3, 1, lowerings=("reference",)),
    _case("MatrixPeriod", "matrix", 1, 4),
    _case("DeltaWithMomentum", "matrix", 1, 1),
    # Both divide by the momentum's norm: ours adds 1e-7 to it, theirs never lets it below.
    _case(
        "DeepMuon",
        "two layers, Muon",
        2,
        1,
        lowerings=("reference",),
        tolerance=1e-2,
        spectral_norm_surprises=True,
        adaptive_step_transform=torch.ones_like,
        store_memory_loss_fn=lambda made, wanted: (made - wanted).square().sum(-1) / 2,
    ),
)
