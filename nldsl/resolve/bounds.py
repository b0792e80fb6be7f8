"""The numbers that parts are given: counts are counts, and shares stay between 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Callable

from nldsl.document import expr as e
from nldsl.document.printer import print_expr
from nldsl.resolve.expanded import Num
from nldsl.resolve.scope import Scope

MOST_MONOMIALS = 65_536


def check_arguments(part: str, arguments: dict[str, Num | str | bool], scope: Scope) -> None:
    """Counts are counts, and shares stay between 0 and 1."""
    for name, what in _COUNTS.items():
        number = arguments.get(name)
        if isinstance(number, Num):
            scope.counted(number, what)
    for name, wanted, fits in _RANGES.get(part, ()):
        number = arguments.get(name)
        if isinstance(number, Num) and not fits(number.value):
            raise scope.findings.stop(
                "NL0205", f"the `{name}` of `{part}` is {number.value}", number.span, f"needs {wanted}"
            )


def monomials(node: e.Expr, width: Num, degree: Num, scope: Scope) -> Num:
    """How many products of up to `degree` of `width` numbers there are: C(width + degree, degree)."""
    least = min(int(width), int(degree))  # C(a + b, b) is at least 2^min(a, b): no need to count so many
    count = math.comb(int(width) + int(degree), least) if least < MOST_MONOMIALS.bit_length() else None
    if count is None or count > MOST_MONOMIALS:
        many = f"{count:,}" if count is not None else f"more than {MOST_MONOMIALS:,}"
        raise scope.findings.stop(
            "NL0411",
            f"`{print_expr(node)}` makes {many} features of each {int(width)}",
            node.span,
            f"at most {MOST_MONOMIALS:,} are built",
            help="lower the degree, or bring each head to fewer features with `linear` before it",
        )
    if width.symbol is None or degree.symbol is None:
        return Num(count)
    several = e.Binary("+", width.symbol, degree.symbol)
    arguments = (e.Argument(several), e.Argument(degree.symbol))
    return Num(count, e.Call(e.Name(("comb",)), arguments))


_COUNTS = {
    "degree": "the degree of a polynomial",
    "hidden": "a hidden width",
    "depth": "the depth of an MLP",
    "window": "a window",
}
_RANGES: dict[str, tuple[tuple[str, str, Callable[[float], bool]], ...]] = {
    "sigmoid": (("start", "a number between 0 and 1", lambda v: 0 < v < 1),),
    "softplus": (("start", "a number above 0", lambda v: v > 0),),
    "cache": (("sinks", "a whole number of at least 0", lambda v: v >= 0 and float(v).is_integer()),),
    "dropout": (("by", "a share of at least 0 and below 1", lambda v: 0 <= v < 1),),
    "rope": (("theta", "a number above 0", lambda v: v > 0),),
    "rmsnorm": (("eps", "a number above 0", lambda v: v > 0),),
    "layernorm": (("eps", "a number above 0", lambda v: v > 0),),
}
