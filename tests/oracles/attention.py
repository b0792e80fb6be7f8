"""Softmax attention and rotary positions against torch and fla and transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.peers import widened
from bench.peers.outside import fla
from nldsl.codegen.engines.parts import merge_heads, rotary, split_heads
from tests.oracles.compare import Case, Result, called, core, drawn, pairs

Leaves = dict[str, Tensor]


def _projected() -> Case:
    """torch's whole layer: its projections are read out of its one weight."""
    dim, heads = 12, 2

    def leaves() -> Leaves:
        return {
            "x": drawn(1, 2, 11, dim),
            "inner": drawn(2, 3 * dim, dim),
            "outer": drawn(3, dim, dim),
        }

    def ours(lowering: str, given: Leaves) -> Result:
        weights = given["inner"].chunk(3)
        query, key, value = (split_heads(given["x"] @ w.transpose(0, 1), heads) for w in weights)
        read, _ = core("Cache", lowering)(query=query * (dim / heads) ** -0.5, key=key, value=value)
        return merge_heads(read) @ given["outer"].transpose(0, 1), {}

    def theirs(given: Leaves) -> Result:
        layer = torch.nn.MultiheadAttention(dim, heads, bias=False, batch_first=True, dtype=torch.float64)
        mask = torch.ones(11, 11, dtype=torch.bool).triu(1)
        weights = {"in_proj_weight": given["inner"], "out_proj.weight": given["outer"]}
        x = given["x"]
        settings = {"attn_mask": mask, "need_weights": False}
        return torch.func.functional_call(layer, weights, (x, x, x), settings)[0], {}

    differs = "query times d_k^-0.5, always; one weight for the three projections; mask is true where hidden"
    return Case("torch nn.MultiheadAttention", "torch", ours, theirs, leaves, differs, "Cache")


def _fla(memory: str, window: int | None, heads: int = 2, held: int = 2) -> Case:
    def leaves() -> Leaves:
        made = pairs(13, heads=heads)
        return {n: x if n == "query" else x.detach()[:, :held].requires_grad_() for n, x in made.items()}

    def theirs(given: Leaves) -> Result:
        function = fla("attn.naive").naive_parallel_attn
        turned = {n: x.transpose(1, 2) for n, x in given.items()}
        with widened(function):
            read, _ = function(turned["query"], turned["key"], turned["value"], scale=1.0, window_size=window)
        return read.transpose(1, 2), {}

    shared = ", a key for two queries" if held < heads else ""
    within = f", window of {window}" if window else ""
    return Case(
        f"fla naive_parallel_attn{within}{shared}",
        "fla-core",
        called(memory),
        theirs,
        leaves,
        "tokens before heads; scale on the query; the window counts the token itself, as ours does",
        memory,
    )


def _rotary() -> Case:
    """Llama's rotation."""

    def leaves() -> Leaves:
        return {"x": drawn(1, 2, 2, 9, 8)}

    def ours(lowering: str, given: Leaves) -> Result:
        return rotary(given["x"], 0, 10_000.0), {}

    def theirs(given: Leaves) -> Result:
        from transformers import LlamaConfig
        from transformers.models.llama import modeling_llama as llama

        config = LlamaConfig(hidden_size=16, num_attention_heads=2, head_dim=8)
        with widened(llama.apply_rotary_pos_emb):
            angles: Any = llama.LlamaRotaryEmbedding(config)
            angles.inv_freq = 10_000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
            cos, sin = angles(given["x"], torch.arange(9)[None])
            turned, _ = llama.apply_rotary_pos_emb(given["x"], given["x"], cos, sin)
        return turned, {}

    return Case(
        "transformers llama apply_rotary_pos_emb",
        "transformers",
        ours,
        theirs,
        leaves,
        "pairs by halves, as ours does; frequencies are kept in float32, here given in float64",
        "rope",
        lowerings=("reference",),
    )


CASES = (
    _projected(),
    _fla("Cache", None),
    _fla("Window", 5),
    _fla("SharedCache", None, heads=4, held=2),
    _rotary(),
)
