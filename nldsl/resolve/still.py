"""Memories inside the sequence that are never written: `update = never`.

Such a memory answers from its start alone, a learned map like any other, and goes through the same code as
the memory that it is compared with: its steps have length 0, and nothing else changes its weights.
"""

from __future__ import annotations

from nldsl.document import expr as e

WRITING = ("rate", "retain", "momentum", "erase", "rule", "constrain", "update", "anchor", "window", "read")
"""Fields that say how a memory is written, and when what is written is read."""


def without_writes(fields: dict[str, e.Expr], known: tuple[str, ...]) -> dict[str, e.Expr]:
    """The fields of a memory that stays at its start: steps of length 0, no pipeline that only writes use.

    `known` are the names of fields; other ones are pipelines of the memory's own.
    """
    kept = {name: value for name, value in fields.items() if name not in WRITING}
    used = {name for name in known if name in kept}
    waiting = list(used)
    while waiting:
        named = {n.parts[0] for n in kept[waiting.pop()].walk() if isinstance(n, e.Name)}
        more = {name for name in named if name in kept} - used
        used |= more
        waiting += more
    where = fields["update"].span
    return {name: value for name, value in kept.items() if name in used} | {"rate": e.Number(0, span=where)}
