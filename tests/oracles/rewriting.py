"""Memories that write their own projections, and TTT's linear model with a norm."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bench.peers import widened
from bench.peers.outside import fla
from tests.oracles.compare import Case, Result, core, drawn

Leaves = dict[str, Tensor]


def _self_modifying() -> Case:
    """nested-learning's layer, forward only: it runs without gradients.

    Its memories of the gates are set to answer 0, whatever is written, which makes the gates constants: they
    go from the width to one number, by a map that ours does not have.
    """
    dim, tokens = 16, 11

    def layer() -> Any:
        from nested_learning.titan.self_modifying import SelfModifyingTitans, SelfModifyingTitansConfig

        config = SelfModifyingTitansConfig(
            dim=dim,
            eta_scale=0.1 / math.log(2),
            chunk_size_other=4,
            objective="dot",
            local_conv_window=None,
            eps=1e-12,
        )
        torch.manual_seed(0)
        made: Any = SelfModifyingTitans(config).double()
        with torch.no_grad():
            for gate in (made.m_eta, made.m_alpha):
                gate.w1.weight.zero_()
                gate.w_skip.weight.zero_()
        return made

    def ours(lowering: str, given: Leaves) -> Result:
        function, other = core("Rewriting", lowering), layer()
        module = function.module.double()
        pairs = {"start": other.m_memory, "key_memory": other.m_k, "value_memory": other.m_v}
        weights = {f"{n}.0": m.w2.weight[None] for n, m in pairs.items()}
        weights |= {f"{n}.1": m.w1.weight[None] for n, m in pairs.items()}
        weights["query_linear.weight"] = other.w_q.weight
        missing, unexpected = module.load_state_dict(weights, strict=False)
        assert not unexpected and all("out" in name for name in missing), (missing, unexpected)
        return function(x=given["x"])[0], {}

    def theirs(given: Leaves) -> Result:
        other = layer()
        return other.forward_with_updates(given["x"], other.init_fast_state())[0], {}

    return Case(
        "nested-learning SelfModifyingTitans",
        "nested-learning",
        ours,
        theirs,
        lambda: {"x": drawn(1, 2, tokens, dim)},
        "no gradients; loss `dot`, as its `l2` is twice ours while its erasure is not; gates of one number "
        "made by memories, here constant; the erasure acts on the first layer alone; one head",
        "Rewriting",
        gradients=False,
    )


def _ttt() -> Case:
    """The inner model is LN(W k + c): ours keeps c as the weights of a feature that is always 1.

    Theirs adds the linear answer to its norm, so the answer is read out of ours token by token.
    """
    tokens, dim = 12, 5

    def leaves() -> Leaves:
        made = {n: drawn(i, 2, 2, tokens, dim) for i, n in enumerate(("query", "key", "value"), start=1)}
        return made | {"rate": drawn(4, 2, 2, 3, low=0.05, high=0.5), "start": drawn(5, 2, 2, dim, dim + 1)}

    def with_one(x: Tensor) -> Tensor:
        return torch.cat((x, torch.ones_like(x[..., :1])), dim=-1)

    def rates(given: Leaves) -> Tensor:
        return given["rate"].repeat_interleave(4, dim=-1)

    def ours(lowering: str, given: Leaves) -> Result:
        function = core("NormedMatrix", lowering)
        inputs = {
            "query": with_one(given["query"]),
            "key": with_one(given["key"]),
            "value": given["value"] - given["key"],
            "rate": rates(given),
        }
        reads, state = [], None
        for t in range(tokens):
            piece = {n: x[:, :, t : t + 1] for n, x in inputs.items()}
            begin = {"start": (given["start"],)} if state is None else {"state": state}
            read, state = function(**piece, **begin)
            reads.append(piece["query"] @ state["W1"].transpose(-1, -2) + read)
        assert state is not None
        return torch.cat(reads, dim=2), {"W1": state["W1"]}

    def theirs(given: Leaves) -> Result:
        module = fla("ttt.naive")
        turned = {n: given[n].transpose(1, 2).clone() for n in ("query", "key", "value")}
        start = given["start"]
        with widened(module.chunk_ttt_linear_ref):
            read, weights, bias = module.chunk_ttt_linear_ref(
                turned["query"],
                turned["key"],
                turned["value"],
                torch.ones(2, dim),
                torch.zeros(2, dim),
                rates(given).transpose(1, 2).unsqueeze(-1),
                scale=1.0,
                eps=1e-5,
                mini_batch_size=4,
                initial_state=start[..., :dim].transpose(-1, -2),
                initial_state_bias=start[..., dim:].transpose(-1, -2),
                output_final_state=True,
            )
        return read.transpose(1, 2), {"W1": torch.cat((weights, bias), dim=-2).transpose(-1, -2)}

    return Case(
        "fla chunk_ttt_linear_ref",
        "fla-core",
        ours,
        theirs,
        leaves,
        "tokens before heads; a bias beside the matrix; target v - k, norm without a residual; the rate of "
        "the token that reads weighs all writes of its mini-batch, so rates are equal within one here; adds "
        "the answer before its norm, not the query, to what is read; fills up a last mini-batch with tokens "
        "that write a little, so there is none here; changes the query it is given",
        "NormedMatrix",
    )


CASES = (_self_modifying(), _ttt())
