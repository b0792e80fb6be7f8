"""Where a pipeline stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve.expanded import Flow, Num
from nldsl.resolve.passes import Seen
from nldsl.resolve.scope import Scope

if TYPE_CHECKING:
    from nldsl.resolve.lets import Lets


@dataclass(slots=True)
class Context:
    """Where a pipeline stands: names it can read, the heads of the memory around it, the path so far."""

    scope: Scope
    path: str
    lookup: Callable[[str], Flow | None]
    known: Callable[[], list[str]]
    instantiate: Instantiate
    heads: Num | None = None
    adaptive_ok: bool = False
    writes: int = 1  # that `heads` counts each head for
    vocab: list[Num] = field(default_factory=list)
    lets: Lets | None = None
    seen: tuple[Seen, ...] = ()
    segment: Num | None = None

    def at(self, part: str) -> Context:
        return replace(self, path=f"{self.path}.{part}")

    def given(self, flow: Flow) -> Context:
        """The same for a part that is given `flow`, which may be several streams joined in time."""
        joined = flow.shape.joined
        if joined is None:
            return self
        return replace(self, seen=(*self.seen, Seen("joined", joined.streams, joined.prefix)))


Instantiate = Callable[[e.Expr, doc.Memory | doc.Block, object, Flow, Context], Flow]
"""Makes the instance that a call names: the call, its declaration, the module it stands in, and its input."""
