"""Figures of the level graph that `compile --verify` compares with the code; here without torch."""

from __future__ import annotations

from pathlib import Path

import nldsl
from nldsl.diagnostics.model import Source
from nldsl.levels.graph import Component, LevelGraph

ROOT = Path(__file__).parents[2]

SPEC = """edition 2026

memory Kept(dim, heads = 2) {{
  key   = x |> linear
  value = x |> linear
  query = x |> linear
  map   = cache({window})
  rule  = softmax
}}

memory Own(dim, heads = 2) {{
  key   = x |> linear |> conv(4) |> unit
  value = x |> {adaptive} linear
  query = x |> linear |> unit
  rate  = 0.1
  objective = dot
  rule  = dgd
  anchor = current
  read  = before
  start = learned
  out   = read |> rmsnorm
}}

block Block(dim) {{
  kept: x = x + (x |> Kept(dim))
  own: x = x + (x |> Own(dim))
}}

model Small(dim = 8, depth = 3, vocab = 11) {{
  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> unembed({tied})
}}
"""


def graph(window: str = "5 tokens", adaptive: str = "", tied: str = "tied") -> LevelGraph:
    text = SPEC.format(window=window, adaptive=adaptive, tied=tied)
    return nldsl.load(Source("costs.nl", text)).levels()


def test_heads_share_the_gain_of_a_norm() -> None:
    # Three maps of 8 x 8, a convolution of 8 x 4, and one gain for heads of 4 features.
    assert graph()["Block.own.Own.projections"].parameters == 3 * 64 + 32 + 4


def test_a_tied_unembed_works_with_the_weights_of_the_embedding() -> None:
    assert graph()["Small.embed"].flops_per_token == 2 * 8 * 11
    assert graph(tied="vocab")["Small.embed"].flops_per_token == 0


def test_a_convolution_carries_its_last_inputs_in_the_memory() -> None:
    weights, carried = 2 * 4 * 4, 8 * 3
    assert graph()["Block.own.Own"].state_bytes == 4 * (weights + carried)


def test_a_memory_of_its_own_projections_keeps_the_weights_of_the_period_too() -> None:
    weights, carried = 2 * 4 * 4, 8 * 3
    assert graph(adaptive="adaptive")["Block.own.Own"].state_bytes == 4 * (2 * weights + carried)


def test_a_projection_has_the_rule_and_target_that_it_names() -> None:
    path, weights = "Block.own.Own.value.adaptive", 2 * 4 * 4
    plain = graph(adaptive="adaptive")[path]
    taught = graph(adaptive="adaptive linear { rule = gd, target = value } |>")[path]
    assert (plain.rule, plain.learns_from) == ("dgd", "dot: key to its own value")
    assert (taught.rule, taught.learns_from) == ("gd", "dot: key to value")
    # What `dgd` erases is a product with the key, and an outer product.
    assert plain.flops_per_token - taught.flops_per_token == 4 * weights


def test_a_window_keeps_all_but_the_newest_token() -> None:
    assert graph()["Block.kept.Kept"].state_bytes == 4 * 4 * 2 * (4 + 4)


def test_a_spec_without_a_run_has_weights_too() -> None:
    found = graph()
    assert found.parameters == 11 * 8 + 3 * (3 * 64 + 228 + 32) + 8
    assert found["Small.embed"].kind == "frozen"


def test_the_gallery_counts_what_the_code_has() -> None:
    assert nldsl.load(ROOT / "specs" / "hope.nl", variant="Tiny").levels().parameters == 154_864


def test_stages_of_one_name_and_line_are_counted_by_their_sizes() -> None:
    found = nldsl.load(
        Source(
            "costs.nl",
            "edition 2026\n"
            "block Twice(dim) { x = x + (x |> linear(3) |> tanh |> linear(5, bias) |> linear(dim)) }\n"
            "model Small(dim = 8) { tokens |> embed(11, dim) |> repeat(2, Twice(dim)) |> unembed(tied) }\n",
        )
    ).levels()
    assert found["Twice.linear"].copies == 2
    assert found["Twice.linear"].parameters == 8 * 3 + (3 * 5 + 5) + 5 * 8
    assert found.parameters == 11 * 8 + 2 * 84


MEMORY = """edition 2026
memory Odd(dim, heads = 2) {{
  key = x |> linear |> unit
  value = x |> linear(2 * dim)
  query = x |> linear |> unit
  rate = 0.1
  {more}
}}
model Small(dim = 8) {{ tokens |> embed(11, dim) |> Odd(dim) |> linear(dim) |> unembed(tied) }}
"""


def odd(more: str) -> Component:
    return nldsl.load(Source("costs.nl", MEMORY.format(more=more))).levels()["Small.Odd"]


def test_a_window_holds_its_pairs_and_is_written_for_each() -> None:
    one, four = odd("read = after"), odd("window = 4 tokens")
    weights, pair = 2 * 4 * 8, 4 + 8 + 1  # how much the pair counts is held with it
    assert four.state_bytes - one.state_bytes == 4 * 3 * 2 * pair
    assert four.flops_per_token - one.flops_per_token == 3 * (2 * weights + 2 * weights)


def test_gradients_that_stand_still_are_taken_once_for_all_windows() -> None:
    one, four = odd("anchor = every 4 tokens"), odd("anchor = every 4 tokens, window = 4 tokens")
    assert four.flops_per_token - one.flops_per_token == 3 * 2 * (2 * 4 * 8)


def test_orthogonal_steps_cost_five_rounds_of_three_products() -> None:
    plain = odd("anchor = every 4 tokens")
    turned = odd("anchor = every 4 tokens, rule = muon")
    gram, square, both = 2 * 4 * 8 * 4, 2 * 4 * 4 * 4, 2 * 4 * 4 * 8
    assert turned.flops_per_token - plain.flops_per_token == 2 * 5 * (gram + square + both)
    assert turned.state_bytes - plain.state_bytes == 4 * 2 * 4 * 8  # the gradient that was turned


def test_weights_made_of_an_accumulator_are_held_beside_it() -> None:
    plain, made = odd("anchor = every 4 tokens"), odd("anchor = every 4 tokens, constrain = softmax")
    assert made.state_bytes - plain.state_bytes == 4 * 2 * 4 * 8
