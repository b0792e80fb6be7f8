"""Memories that stand still at test time (`plastic = no`): when no write is one of nothing.

With a key and a value of zeros every gradient is zero, whatever the rate, and with a retention of one nothing
is forgotten.  That is a write of nothing for all rules and for maps without biases, but not where something
is erased, divided or constrained beside the gradient.
"""

from __future__ import annotations

from nldsl.resolve.expanded import MemoryInstance


def obstacles(instance: MemoryInstance) -> list[str]:
    """What keeps a memory from standing still, in words; nothing for one that goes on learning."""
    core = instance.core
    if instance.plastic:
        return []
    named = (
        (core.map.kind == "cache", "a `cache` keeps what it is given"),
        (core.map.kind == "block", "a block as its map may answer to a key of zeros"),
        (bool(instance.adaptives()), "it writes its own projections"),
        (core.target == "self", "it makes its own targets"),
        ("erase" in instance.flows, "`erase` forgets beside the gradient"),
        (bool(core.constrain), "`constrain` changes weights after a write"),
        (bool(core.normalise), "`normalise` divides by what was written"),
        (core.expression is not None, "its objective is an expression"),
        (core.optimizer is not None, "a declared rule may move weights that are shown nothing"),
        (instance.apart is not None, "it is read and written apart"),
    )
    return [f"`plastic = no`, and {words}" for stands, words in named if stands]
