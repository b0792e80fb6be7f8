"""Several streams in one: `[persistent(n), a, b]` and `last`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nldsl.document import expr as e
from nldsl.document.printer import print_expr
from nldsl.resolve.calls import arguments_of, function_name
from nldsl.resolve.expanded import Flow, Join, Joined, Last, Num, Persistent, Shape

if TYPE_CHECKING:
    from nldsl.resolve.context import Context

CODE = "NL0410"


def join(node: e.ListOf, build: Callable[[e.Expr], Flow], context: Context) -> Join:
    """The streams of a list, joined in time; `build` makes the flow of an item."""
    findings = context.scope.findings
    count: Num | None = None
    streams: list[Flow] = []
    for index, item in enumerate(node.items):
        if function_name(item) != "persistent":
            streams.append(_plain(build(item), item, context))
            continue
        if index:
            raise findings.stop(
                CODE,
                "`persistent` does not stand first in its list",
                item.span,
                "behind a stream",
                help="persistent tokens are seen before all others: list them first, and once",
            )
        count = _count(item, context)
    if not streams:
        raise findings.stop(
            CODE,
            "a list of streams holds none",
            node.span,
            "nothing of the sequence",
            help="write for instance `[persistent(4), x] |> Part(dim) |> last`",
        )
    first = streams[0].shape
    for stream, item in zip(
        streams[1:], [i for i in node.items if function_name(i) != "persistent"][1:], strict=True
    ):
        if stream.shape.features != first.features:
            raise findings.stop(
                "NL0401",
                f"a list joins streams of {first.features} and {stream.shape.features} features",
                item.span,
                str(stream.shape),
                others=((streams[0].span, str(first)),),
                help="bring them to one width, for instance with `linear(...)`",
            )
    if len(streams) == 1 and count is None:
        raise findings.stop(
            CODE,
            "a list of one stream joins nothing",
            node.span,
            "one stream",
            help=f"write `{print_expr(node.items[0])}` without brackets",
        )
    prefix = int(count) if count is not None else 0
    shape = Shape("flat", first.width, joined=Joined(len(streams), prefix))
    persistent = None
    if count is not None and prefix:
        where = node.items[0].span
        persistent = Persistent(Shape("flat", first.width), count, f"{context.path}.persistent", span=where)
    return Join(shape, tuple(streams), persistent, span=node.span)


def _count(item: e.Expr, context: Context) -> Num:
    """How many tokens `persistent(n)` is; none are allowed, so that a parameter can take them away."""
    findings = context.scope.findings
    given = arguments_of(item)
    if len(given) != 1 or given[0].name is not None:
        raise findings.stop(
            "NL0201",
            "`persistent` needs the number of its tokens",
            item.span,
            "not given here",
            help="write `persistent(4)`",
        )
    number = context.scope.number(given[0].value)
    if number.value < 0 or not float(number.value).is_integer():
        raise findings.stop(
            "NL0205",
            f"the number of persistent tokens is {number.value}",
            given[0].span,
            "needs a whole number of at least 0",
        )
    return number


def _plain(flow: Flow, item: e.Expr, context: Context) -> Flow:
    if flow.shape.layout != "flat":
        raise context.scope.findings.stop(
            "NL0404",
            f"`{print_expr(item)}` is {flow.shape}",
            item.span,
            "features of each token are wanted here",
        )
    return single(flow, f"`{print_expr(item)}`", context)


def single(flow: Flow, what: str, context: Context) -> Flow:
    """A flow that is one stream; joined ones are a finding."""
    if flow.shape.joined is None:
        return flow
    raise context.scope.findings.stop(
        CODE,
        f"{what} is several streams joined in time",
        flow.span,
        str(flow.shape),
        help="keep the stream that is listed last with `|> last`",
    )


def last(node: e.Expr, flow: Flow, context: Context) -> Last:
    """The stage `last`, or `last(n)` inside `segments(n)`."""
    findings = context.scope.findings
    if flow.shape.joined is None:
        raise findings.stop(
            CODE,
            "`last` is given one stream",
            node.span,
            "nothing was joined",
            others=((flow.span, str(flow.shape)),),
            help="write `[a, b] |> Part(dim) |> last`: it keeps the tokens of the stream listed last",
        )
    given = arguments_of(node)
    if given:
        number = context.scope.number(given[-1].value)
        length = context.segment
        fits = len(given) == 1 and given[0].name is None and length is not None
        if not fits or length is None or number.value != length.value:
            wanted = f"`last({int(length)})`, or just `last`" if length is not None else "just `last`"
            raise findings.stop(
                CODE,
                f"`{print_expr(node)}` is not the tokens of a segment",
                node.span,
                "does not fit",
                others=((length.span, f"segments of {int(length)} tokens"),) if length is not None else (),
                help=f"write {wanted}: it keeps every token of the stream listed last",
            )
    return Last(Shape("flat", flow.shape.width), flow, span=node.span)
