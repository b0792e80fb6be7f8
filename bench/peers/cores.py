"""Memories as functions in other packages, and how their conventions differ from those of a core.

A core takes heads before tokens, decays as plain factors, queries as they are, and keeps its matrix as
`[d_v, d_k]`. Almost every peer differs in each of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bench.peers.outside import fla, version

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Peer:
    """One function of another package.

    Attributes:
        name: the package and its function.
        memory: the memory of the library whose equation it computes.
        package: the distribution on the package index.
        load: imports it.
        native: a core's inputs, as the function wants them; differentiable.
        tokens_first: its tensors are `[B, T, H, D]`.
        fixed: keywords for every call.
        conventions: what differs, in words.
        multiple: sequences must be a multiple of so many tokens.
    """

    name: str
    memory: str
    package: str
    load: Callable[[], Callable[..., Any]]
    native: Callable[[Tensors], Tensors]
    conventions: str
    tokens_first: bool = True
    fixed: tuple[tuple[str, Any], ...] = ()
    multiple: int = 1

    @property
    def version(self) -> str | None:
        return version(self.package)

    def arranged(self, tensors: Tensors) -> Tensors:
        """The function's own inputs, still tied to the given tensors."""
        made = self.native(tensors)
        return {n: x.transpose(1, 2) for n, x in made.items()} if self.tokens_first else made

    def prepare(self, tensors: Tensors) -> Tensors:
        """The function's own inputs as new contiguous leaves: what a clock should not count."""
        return {
            n: x.detach().clone().contiguous().requires_grad_() for n, x in self.arranged(tensors).items()
        }

    def run(self, start: Tensor | None = None, **native: Tensor) -> tuple[Tensor, Any]:
        """Call the function: its read and its state in its own layout, None where it has no state.

        `start` is the matrix before the first token in its layout, `[B, H, Dk, Dv]`, where it takes one.
        """
        begin = {} if start is None else {"initial_state": start}
        result = self.load()(**native, **begin, **dict(self.fixed))
        return result if isinstance(result, tuple) else (result, None)

    def __call__(self, start: Tensor | None = None, **tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Read `[B, H, T, Dv]` and the last matrix `[B, H, Dv, Dk]`, for the inputs and start of a core."""
        begin = None if start is None else start.transpose(-1, -2)
        read, state = self.run(begin, **self.arranged(tensors))
        state = state.transpose(-1, -2) if isinstance(state, Tensor) else None
        return (read.transpose(1, 2) if self.tokens_first else read), state


def _ones(t: Tensors) -> Tensor:
    return t["key"].new_ones(t["key"].shape[:3])


def _rate(t: Tensors) -> Tensor:
    return t.get("rate", _ones(t))


def _log_retain(t: Tensors) -> Tensor:
    return t.get("retain", _ones(t)).log()


def _written(t: Tensors) -> Tensor:
    """Values with the rate in them, for functions that have no rate."""
    return t["value"] * t["rate"].unsqueeze(-1) if "rate" in t else t["value"]


def _unscaled(t: Tensors) -> Tensor:
    """Queries that undo a fixed factor of d_k^-0.5."""
    return t["query"] * t["query"].shape[-1] ** 0.5


def _linear(t: Tensors) -> Tensors:
    return {"q": t["query"], "k": t["key"], "v": _written(t)}


def _retention(t: Tensors) -> Tensors:
    return {"q": _unscaled(t), "k": t["key"], "v": _written(t)}


def _simple_gla(t: Tensors) -> Tensors:
    return _linear(t) | {"g": _log_retain(t)}


def _gla(t: Tensors) -> Tensors:
    return _retention(t) | {"gk": _log_retain(t)}


def _delta(t: Tensors) -> Tensors:
    return {"q": _unscaled(t), "k": t["key"], "v": t["value"], "beta": _rate(t)}


def _gated_delta(t: Tensors) -> Tensors:
    return {"q": t["query"], "k": t["key"], "v": t["value"], "beta": _rate(t), "g": _log_retain(t)}


def _gated_delta_transformers(t: Tensors) -> Tensors:
    return {
        "query": _unscaled(t),
        "key": t["key"],
        "value": t["value"],
        "beta": _rate(t),
        "g": _log_retain(t),
    }


def _dplr(t: Tensors) -> Tensors:
    """Erasing along a into b, at the memory before it forgets: with `rate`, alpha = -a and beta = rate b."""
    along, into = t.get("erase", t["key"]), t.get("erase_into", t["key"])
    return {
        "q": _unscaled(t),
        "k": t["key"],
        "v": _written(t),
        "alpha": -along,
        "beta": into * _rate(t).unsqueeze(-1),
        "gk": _log_retain(t),
    }


def _transformers(name: str) -> Callable[[], Callable[..., Any]]:
    def load() -> Callable[..., Any]:
        from transformers.models.qwen3_next import modeling_qwen3_next

        return getattr(modeling_qwen3_next, name)

    return load


def _fla(module: str, name: str) -> Callable[[], Callable[..., Any]]:
    return lambda: getattr(fla(module), name)


_SCALE_1 = (("scale", 1.0),)
_STATE = (("output_final_state", True),)
_Q = "scale on the query"
_LOG = "decay as its logarithm"
_TOKENS = "tokens before heads"
_SCALED = "query times d_k^-0.5, always"

_ALL = (
    Peer(
        "fla naive_recurrent_linear_attn",
        "LinearAttention",
        "fla-core",
        _fla("linear_attn.naive", "naive_recurrent_linear_attn"),
        _linear,
        f"{_TOKENS}; {_Q}; rate multiplied into the value; divisor has 1e-10 added",
        fixed=(*_SCALE_1, *_STATE),
    ),
    Peer(
        "fla naive_chunk_linear_attn",
        "LinearAttention",
        "fla-core",
        _fla("linear_attn.naive", "naive_chunk_linear_attn"),
        _linear,
        f"{_TOKENS}; {_Q}; rate multiplied into the value; no state",
        fixed=_SCALE_1,
        multiple=64,
    ),
    Peer(
        "fla naive_retention",
        "RetNet",
        "fla-core",
        _fla("retention.naive", "naive_retention"),
        _retention,
        f"{_SCALED}; decay 1 - 2^(-5-h) built in; no state; all tokens at once",
        tokens_first=False,
    ),
    Peer(
        "fla naive_recurrent_simple_gla",
        "Mamba2",
        "fla-core",
        _fla("simple_gla.naive", "naive_recurrent_simple_gla"),
        _simple_gla,
        f"{_TOKENS}; {_LOG}; {_Q}; rate multiplied into the value",
        fixed=_SCALE_1,
    ),
    Peer(
        "fla naive_chunk_simple_gla",
        "Mamba2",
        "fla-core",
        _fla("simple_gla.naive", "naive_chunk_simple_gla"),
        _simple_gla,
        f"{_TOKENS}; {_LOG}; {_Q}; rate multiplied into the value",
        fixed=(*_SCALE_1, *_STATE),
    ),
    Peer(
        "fla naive_recurrent_gla",
        "GLA",
        "fla-core",
        _fla("gla.naive", "naive_recurrent_gla"),
        _gla,
        f"{_TOKENS}; {_LOG}, one for each channel of the key; {_SCALED}; rate multiplied into the value",
        fixed=_STATE,
    ),
    Peer(
        "fla delta_rule_recurrence",
        "DeltaNet",
        "fla-core",
        _fla("delta_rule.naive", "delta_rule_recurrence"),
        _delta,
        _SCALED,
        tokens_first=False,
    ),
    Peer(
        "fla delta_rule_chunkwise",
        "DeltaNet",
        "fla-core",
        _fla("delta_rule.naive", "delta_rule_chunkwise"),
        _delta,
        _SCALED,
        tokens_first=False,
        multiple=32,
    ),
    Peer(
        "fla naive_recurrent_gated_delta_rule",
        "GatedDeltaNet",
        "fla-core",
        _fla("gated_delta_rule.naive", "naive_recurrent_gated_delta_rule"),
        _gated_delta,
        f"{_TOKENS}; {_LOG}; {_Q}",
        fixed=(*_SCALE_1, *_STATE),
    ),
    Peer(
        "fla naive_chunk_gated_delta_rule",
        "GatedDeltaNet",
        "fla-core",
        _fla("gated_delta_rule.naive", "naive_chunk_gated_delta_rule"),
        _gated_delta,
        f"{_TOKENS}; {_LOG}; {_Q}",
        fixed=(*_SCALE_1, *_STATE),
    ),
    Peer(
        "transformers torch_recurrent_gated_delta_rule",
        "GatedDeltaNet",
        "transformers",
        _transformers("torch_recurrent_gated_delta_rule"),
        _gated_delta_transformers,
        f"{_TOKENS}; {_LOG}; {_SCALED}",
        fixed=_STATE,
    ),
    Peer(
        "transformers torch_chunk_gated_delta_rule",
        "GatedDeltaNet",
        "transformers",
        _transformers("torch_chunk_gated_delta_rule"),
        _gated_delta_transformers,
        f"{_TOKENS}; {_LOG}; {_SCALED}",
        fixed=_STATE,
    ),
    Peer(
        "fla naive_recurrent_kda",
        "KDA",
        "fla-core",
        _fla("kda.naive", "naive_recurrent_kda"),
        _gated_delta,
        f"{_TOKENS}; {_LOG}, one for each channel of the key; {_Q}",
        fixed=(*_SCALE_1, *_STATE),
    ),
    Peer(
        "fla naive_chunk_kda",
        "KDA",
        "fla-core",
        _fla("kda.naive", "naive_chunk_kda"),
        _gated_delta,
        f"{_TOKENS}; {_LOG}, one for each channel of the key; {_Q}",
        fixed=(*_SCALE_1, *_STATE),
        multiple=64,
    ),
    Peer(
        "fla dplr_recurrence",
        "RWKV7",
        "fla-core",
        _fla("generalized_delta_rule.dplr.naive", "dplr_recurrence"),
        _dplr,
        f"{_LOG}, one for each channel of the key; {_SCALED}; rate in the value and in what is erased",
        tokens_first=False,
    ),
    Peer(
        "fla dplr_chunkwise",
        "RWKV7",
        "fla-core",
        _fla("generalized_delta_rule.dplr.naive", "dplr_chunkwise"),
        _dplr,
        f"{_LOG}, one for each channel of the key; {_SCALED}; rate in the value and in what is erased",
        tokens_first=False,
        multiple=32,
    ),
)

PEERS: dict[str, Peer] = {peer.name: peer for peer in _ALL}
