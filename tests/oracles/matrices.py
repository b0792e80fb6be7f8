"""Matrix memories against fla's plain formulas and transformers' fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from bench.peers import PEERS, widened
from bench.peers.cores import Peer
from bench.peers.outside import fla
from tests.oracles.compare import Case, Result, called, core, drawn, pairs

Leaves = dict[str, Tensor]

# The memory of memories.nl for each library name that a peer goes by, and the gates it takes.
FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "LinearAttention": ("Sum", ("rate",)),
    "RetNet": ("Retention", ("rate",)),
    "Mamba2": ("Retention", ("rate", "retain")),
    "GLA": ("ChannelRetention", ("rate", "channels")),
    "DeltaNet": ("Delta", ("rate",)),
    "GatedDeltaNet": ("GatedDelta", ("rate", "retain")),
    "KDA": ("ChannelDelta", ("rate", "channels")),
    "RWKV7": ("ErasedApart", ("rate", "channels", "erase", "erase_into")),
}
# Functions that take the matrix before the first token.
STARTED = {
    "fla naive_recurrent_linear_attn",
    "fla naive_recurrent_simple_gla",
    "fla naive_chunk_simple_gla",
    "fla naive_recurrent_gla",
    "fla delta_rule_recurrence",
    "fla naive_recurrent_gated_delta_rule",
    "fla naive_chunk_gated_delta_rule",
    "transformers torch_recurrent_gated_delta_rule",
    "transformers torch_chunk_gated_delta_rule",
    "fla naive_recurrent_kda",
    "fla naive_chunk_kda",
    "fla dplr_recurrence",
    "fla dplr_chunkwise",
}
# Values as wide as keys: the function adds or stacks both.
SQUARE = {"fla naive_retention"}


def gates(names: Iterable[str], tokens: int, dim_k: int, *, batch: int = 2, heads: int = 2) -> Leaves:
    """Gates inside their ranges: logarithms of 0 have no gradient that theirs and ours could share."""
    made: Leaves = {}
    for n, name in enumerate(names):
        if name == "channels":
            made["retain"] = drawn(10 + n, batch, heads, tokens, dim_k, low=0.6, high=0.999)
        elif name.startswith("erase"):
            x = drawn(10 + n, batch, heads, tokens, dim_k).detach()
            made[name] = torch.nn.functional.normalize(x, dim=-1).requires_grad_()
        else:
            low, high = {"rate": (0.05, 0.9), "retain": (0.6, 0.999), "momentum": (0.1, 0.8)}[name]
            made[name] = drawn(10 + n, batch, heads, tokens, low=low, high=high)
    return made


def _case(peer: Peer) -> Case:
    memory, taken = FORMS[peer.memory]
    # A tail beside whole chunks where theirs allows one.
    tokens = peer.multiple * 2 if peer.multiple > 1 else 70 if "chunk" in peer.name else 13
    dim_v = 6 if peer.name in SQUARE else 5

    def leaves() -> Leaves:
        made = pairs(tokens, 6, dim_v) | gates(taken, tokens, 6)
        return made | ({"start": drawn(9, 2, 2, dim_v, 6)} if peer.name in STARTED else {})

    def ours(lowering: str, given: Leaves) -> Result:
        if peer.memory == "RetNet":
            given = given | {"retain": _retnet(given["rate"])}
        read, state = core(memory, lowering)(**given)
        return read, {"W": state["W"]}

    def theirs(given: Leaves) -> Result:
        start = {"start": given["start"]} if "start" in given else {}
        inputs = {n: x for n, x in given.items() if n != "start"}
        with widened(peer.load()):
            read, state = peer(**inputs, **start)
        return read, {} if state is None else {"W": state}

    return Case(peer.name, peer.package, ours, theirs, leaves, peer.conventions, memory)


def _retnet(like: Tensor) -> Tensor:
    """Retention's own decays, 1 - 2^(-5-h) for head h."""
    heads = torch.arange(like.shape[1], dtype=like.dtype)
    return (1 - 2.0 ** (-5 - heads))[None, :, None].expand_as(like)


def _mamba2() -> Case:
    """The scan of transformers' Mamba2: decays are exp(-A dt), and dt is also the rate."""

    def leaves() -> Leaves:
        return pairs(21) | {
            "rate": drawn(11, 2, 2, 21, low=0.1, high=0.9),
            "speed": drawn(12, 2, low=0.2, high=1.0),
            "start": drawn(9, 2, 2, 5, 6),
        }

    def ours(lowering: str, given: Leaves) -> Result:
        speed = given["speed"]
        inputs = {n: x for n, x in given.items() if n != "speed"}
        retain = (-speed[None, :, None] * given["rate"]).exp()
        read, state = core("Retention", lowering)(**inputs, retain=retain)
        return read, {"W": state["W"]}

    def theirs(given: Leaves) -> Result:
        from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

        turned = {n: given[n].transpose(1, 2) for n in ("query", "key", "value", "rate")}
        scan: Callable[..., tuple[Tensor, Tensor]] = getattr(
            mamba2_chunk_scan, "__wrapped__", mamba2_chunk_scan
        )
        with widened(scan):
            read, state = scan(
                turned["value"],
                turned["rate"],
                -given["speed"],
                turned["key"],
                turned["query"],
                chunk_size=8,
                initial_states=given["start"],
                return_final_states=True,
            )
        return read.transpose(1, 2), {"W": state}

    differs = (
        "tokens before heads; C, B, x for query, key, value; dt is the rate, and exp(-A dt) the retention"
    )
    return Case("transformers mamba2_chunk_scan", "transformers", ours, theirs, leaves, differs, "Retention")


def _normalised() -> Case:
    peer = PEERS["fla naive_recurrent_linear_attn"]

    def leaves() -> Leaves:
        made = pairs(13)
        return {n: x.detach().abs().add(0.3).requires_grad_() for n, x in made.items()}

    def theirs(given: Leaves) -> Result:
        native = peer.arranged(given)
        with widened(peer.load()):
            read, (state, z) = peer.load()(**native, scale=1.0, normalize=True, output_final_state=True)
        return read.transpose(1, 2), {"W": state.transpose(-1, -2), "z": z.transpose(1, 2).squeeze(2)}

    # Theirs adds 1e-10 to the divisor.
    return Case(
        f"{peer.name}, normalize",
        peer.package,
        called("NormalisedSum"),
        theirs,
        leaves,
        f"{peer.conventions}; gives z beside the matrix",
        "NormalisedSum",
        tolerance=1e-8,
    )


def _momentum(name: str, tokens: int, *, faded: bool = False, **chunk: int) -> Case:
    """fla's delta rule with momentum, its beta at 1 and its p at the key, or at the key times the retention.

    Its chunked form takes quotients of products of momenta: over long chunks it parts from its own loop.
    """

    def leaves() -> Leaves:
        return pairs(tokens) | gates(("rate", "retain", "momentum"), tokens, 6)

    def theirs(given: Leaves) -> Result:
        function = getattr(fla("momentum_delta_rule.naive"), name)
        turned = {n: x.transpose(1, 2) for n, x in given.items()}
        with widened(function):
            read, states = function(
                q=turned["query"],
                k=turned["key"],
                v=turned["value"],
                p=turned["key"] * turned["retain"].unsqueeze(-1) if faded else turned["key"],
                log_alpha=turned["retain"].log(),
                log_mu=turned["momentum"].log(),
                beta=torch.ones_like(turned["rate"]),
                eta=turned["rate"],
                scale=1.0,
                output_final_state=True,
                **chunk,
            )
        matrix, momentum = states
        return read.transpose(1, 2), {"W": matrix.transpose(-1, -2), "S": -momentum.transpose(-1, -2)}

    memory = "DeltaWithMomentumAfterFading" if faded else "DeltaWithMomentum"
    return Case(
        f"fla {name}{', p of retained' if faded else ''}",
        "fla-core",
        called(memory),
        theirs,
        leaves,
        "tokens before heads; gates as logarithms; scale on the query; momentum of the other sign, added "
        "times beta, here 1; the error at `p`, here the key"
        + (" times alpha" if faded else "")
        + ("; beta has 1e-6 added" if chunk else ""),
        memory,
        tolerance=1e-4 if chunk else 1e-11,
    )


def _twice() -> Case:
    """fla's product of two delta steps after one of forgetting; a token's writes follow one another."""

    def leaves() -> Leaves:
        return (
            pairs(18)
            | {"query": drawn(2, 2, 2, 9, 6), "rate": drawn(23, 2, 2, 18, low=0.05, high=1.9)}
            | gates(("retain",), 9, 6)
            | {"start": drawn(9, 2, 2, 5, 6)}
        )

    def ours(lowering: str, given: Leaves) -> Result:
        read, state = core("DeltaTwice", lowering)(**given)
        return read, {"W": state["W"]}

    def theirs(given: Leaves) -> Result:
        function = fla("gated_delta_product.naive").naive_recurrent_gated_delta_product
        turned = {n: x.transpose(1, 2) for n, x in given.items() if n != "start"}
        with widened(function):
            read, state = function(
                turned["query"],
                turned["key"],
                turned["value"],
                turned["retain"].log(),
                turned["rate"],
                1.0,
                initial_state=given["start"].transpose(-1, -2),
                output_final_state=True,
                num_householder=2,
            )
        return read.transpose(1, 2), {"W": state.transpose(-1, -2)}

    differs = "tokens before heads; decay as its logarithm; scale on the query"
    return Case(
        "fla naive_recurrent_gated_delta_product", "fla-core", ours, theirs, leaves, differs, "DeltaTwice"
    )


def _ridge() -> Case:
    """fla's exact form of MesaNet."""

    def leaves() -> Leaves:
        return pairs(13, 6, 6) | gates(("rate", "retain"), 13, 6)

    def theirs(given: Leaves) -> Result:
        function = fla("mesa_net.naive").naive_mesa_net_exact
        turned = {n: x.transpose(1, 2) for n, x in given.items()}
        with widened(function):
            read, _, _ = function(
                turned["query"],
                turned["key"],
                turned["value"],
                turned["retain"].log(),
                torch.ones(2, 6),
                turned["rate"],
            )
        return read.transpose(1, 2), {}

    return Case(
        "fla naive_mesa_net_exact",
        "fla-core",
        called("Ridge"),
        theirs,
        leaves,
        "tokens before heads; decay as its logarithm; a strength for each channel, here 1; values as "
        "wide as keys",
        "Ridge",
    )


CASES = (
    *(_case(peer) for peer in PEERS.values()),
    _mamba2(),
    _normalised(),
    _twice(),
    _ridge(),
    _momentum("recurrent_momentum_delta_rule_ref", 13),
    _momentum("recurrent_momentum_delta_rule_ref", 13, faded=True),
    _momentum("chunk_momentum_delta_rule_ref", 20, chunk_size=8),
)
