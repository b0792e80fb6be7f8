"""What tests of plans share: a small spec, and plans of texts."""

from __future__ import annotations

from typing import Any

from nldsl.ablate.plan import Plan, plan
from nldsl.api.reading import linked
from nldsl.api.spec import Spec, load
from nldsl.diagnostics.model import Source

SMALL = """edition 2026
import [SoftmaxAttention] from std
block Small_block(dim) {
  mixer: x = x + (x |> rmsnorm |> SoftmaxAttention(dim, heads = 2))
  store: x = x + (x |> rmsnorm |> mlp(2 * dim))
}
model Small(dim = 16, depth = 1, vocab = 256) {
  tokens |> embed(vocab, dim) |> repeat(depth, Small_block(dim)) |> rmsnorm |> unembed(tied)
}
train Run {
  model = Small
  data  = text("sotu", tokenizer = bytes, length = 16, batch = 2, split = manifest)
  steps = 4
  level all { learns = rest, rule = adamw(rate = 1e-3) }
  eval every 2 steps { perplexity }
}
ablate Study of Run {
  without = [Small_block.store, Small_block.mixer.rmsnorm]
  vary all.rule = [adamw(rate = 1e-3), adamw(rate = 1e-2), muon(rate = 1e-2)]
  seeds = 2
}
"""


def spec_of(text: str = SMALL, **options: Any) -> Spec:
    """A loaded spec with this text."""
    return load(Source("small.nl", text), **options)


def plan_of(text: str = SMALL, name: str | None = None, **options: Any) -> Plan:
    """The plan of a text; blocks with mistakes do not keep it from being loaded."""
    return plan(Unchecked(text), name, **options)


class Unchecked:
    """A text that is linked and no more, as a loaded spec."""

    settings = ()
    variant: str | None = None

    def __init__(self, text: str) -> None:
        self.module = linked(Source("small.nl", text), None).module
