"""Numbers, and the shapes of what flows.

Numbers keep the expression they were written as (`Num.symbol`, in the parameters of the definition they stand
in), so that generated classes can say `4 * dim` where the author did.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from nldsl.diagnostics.model import Span
from nldsl.document.expr import Expr
from nldsl.records import record

Layout = Literal["tokens", "flat", "heads", "gate", "per head", "scalar"]


@record
class Num:
    """A number, the expression it came from in the scope it is used in, and where that stands."""

    value: int | float
    symbol: Expr | None = None
    span: Span | None = field(default=None, compare=False, repr=False)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)


@record
class Joined:
    """Streams joined in time: how many tokens stand for a position, and how many learned ones before all."""

    streams: int
    prefix: int


@record
class Shape:
    """What flows: `tokens` [B,T], `flat` [B,T,width], `heads` [B,H,T,width], `gate` [B,H,T], `per head` [H],
    `scalar` [].
    """

    layout: Layout
    width: Num
    heads: Num | None = None
    joined: Joined | None = None

    @property
    def features(self) -> int:
        """Numbers per token."""
        return int(self.width) * (int(self.heads) if self.layout == "heads" and self.heads else 1)

    def __str__(self) -> str:
        match self.layout:
            case "tokens":
                return "[batch, tokens]"
            case "flat" if self.joined is not None:
                many = self.joined.streams
                return f"[batch, tokens of {many} stream{'s' * (many != 1)}, {int(self.width)}]"
            case "flat":
                return f"[batch, tokens, {int(self.width)}]"
            case "heads":
                return f"[batch, {int(self.heads or 1)} heads, tokens, {int(self.width)}]"
            case "gate":
                return f"[batch, {int(self.heads or 1)} heads, tokens]"
            case "per head":
                return f"[{int(self.heads or 1)} heads]"
            case "scalar":
                return "a number"
