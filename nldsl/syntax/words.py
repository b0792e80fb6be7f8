"""Words that lead or join others, as data: none of them is a token of the grammar, and any may be a name.

They matter in two places only: what is read as an amount (`n tokens` is one, `set steps` is not), and which
parenthesis belongs to the word in front of it (`mlp (4)` is a slip, `by (a + b)` is not).
"""

from __future__ import annotations

CONNECTIVES = frozenset(
    (
        *("adaptive", "after", "and", "as", "before", "by", "every", "from", "in", "keep", "of", "offset"),
        *("or", "otherwise", "per", "through", "to", "weighted", "with", "within"),
    )
)
"""Words that a parenthesised value may follow without being called by them."""

HEADS = frozenset(
    (
        *("edition", "import", "let", "memory", "optimizer", "block", "model", "train", "variant", "ablate"),
        *("chain", "level", "eval", "set", "add", "remove", "replace", "without", "vary", "grid", "zip"),
    )
)
"""Words that a name follows."""

NO_AMOUNTS = CONNECTIVES | HEADS
"""Words that are no amount even when a unit stands behind them: `set steps = 4`, `every tokens`."""
