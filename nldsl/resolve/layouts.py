"""Heads apart and side by side: the layouts of flows, and the arithmetic of their widths."""

from __future__ import annotations

from nldsl.document import expr as e
from nldsl.resolve.expanded import Apply, Flow, Num, Shape
from nldsl.resolve.scope import Scope


def times(a: Num, b: Num) -> Num:
    """The product of two numbers, with its spelling."""
    if a.value == 1:
        return b
    if b.value == 1:
        return a
    symbol = e.Binary("*", a.symbol, b.symbol) if a.symbol is not None and b.symbol is not None else None
    if isinstance(a.symbol, e.Binary) and a.symbol.op == "/" and a.symbol.right == b.symbol:
        symbol = a.symbol.left  # (dim / heads) * heads is dim
    return Num(a.value * b.value, symbol)


def share(width: Num, heads: Num) -> Num:
    """`width / heads`, both known to divide."""
    if heads.value == 1:
        return width
    symbol = (
        e.Binary("/", width.symbol, heads.symbol)
        if width.symbol is not None and heads.symbol is not None
        else None
    )
    if isinstance(width.symbol, e.Binary) and width.symbol.op == "*" and width.symbol.right == heads.symbol:
        symbol = width.symbol.left
    return Num(int(width) // int(heads), symbol)


def merged(flow: Flow) -> Flow:
    """All heads of a token side by side: `[B,H,T,d]` to `[B,T,H*d]`."""
    if flow.shape.layout != "heads":
        return flow
    shape = Shape("flat", times(flow.shape.width, flow.shape.heads or Num(1)))
    return Apply(shape, "merge heads", flow, {}, "", span=flow.span)


def split(flow: Flow, heads: Num, scope: Scope, what: str, writes: int = 1, help: str = "") -> Flow:
    """`[B,T,H*d]` to `[B,H,T,d]`; of several `writes`, `heads` has as many for each head."""
    if flow.shape.layout == "heads":
        return flow
    if flow.shape.layout != "flat":
        raise scope.findings.stop(
            "NL0404", f"{what} is {flow.shape}", flow.span, "features of each token are wanted here"
        )
    if int(flow.shape.width) % int(heads):
        many = f"{int(heads) // writes} head{'s' * (int(heads) != writes)}"
        many = many if writes == 1 else f"{writes} writes of {many}"
        raise scope.findings.stop(
            "NL0403",
            f"{int(flow.shape.width)} features do not divide into {many}",
            flow.span or heads.span,
            what,
            others=((heads.span, many),) if heads.span is not flow.span else (),
            help=help or _enough(int(flow.shape.width), writes),
        )
    return Apply(
        Shape("heads", share(flow.shape.width, heads), heads), "split heads", flow, {}, "", span=flow.span
    )


def _enough(width: int, writes: int) -> str:
    if writes > 1:
        return f"give each write features of its own, such as `linear({writes} * dim)`"
    return f"use a number of heads that divides {width}: {divisors(width)}"


def shared(flow: Flow, heads: Num) -> Flow:
    """Groups of heads `[B,G,T,d]` as `[B,H,T,d]`: each serves `H / G` heads that follow one another."""
    if flow.shape.layout != "heads" or int(flow.shape.heads or heads) == int(heads):
        return flow
    return Apply(Shape("heads", flow.shape.width, heads), "share heads", flow, {}, "", span=flow.span)


def divisors(n: int) -> str:
    """The numbers of up to 64 that divide `n`, for a hint."""
    return ", ".join(str(d) for d in range(1, min(n, 64) + 1) if n % d == 0)
