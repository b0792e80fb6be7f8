"""Pipelines to flows: every stage with its shape."""

from __future__ import annotations

from dataclasses import replace

from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.adaptive import settings
from nldsl.resolve.bounds import check_arguments, monomials
from nldsl.resolve.calls import arguments_of, function_name, primitive_arguments
from nldsl.resolve.context import Context
from nldsl.resolve.expanded import (
    Adaptive,
    Apply,
    Arithmetic,
    Constant,
    Flow,
    Last,
    Map,
    Num,
    Repeat,
    Shape,
    Use,
)
from nldsl.resolve.findings import Unresolved
from nldsl.resolve.layouts import divisors, merged, split, times
from nldsl.resolve.primitives import PRIMITIVES, Takes
from nldsl.resolve.scope import FUNCTIONS, Amount, Scope, Word
from nldsl.resolve.streams import join, last

MAP_TAKES: dict[str, tuple[Takes, ...]] = {
    "matrix": (),
    "linear": (),
    "vector": (),
    "mlp": PRIMITIVES["mlp"].takes,
    "swiglu": PRIMITIVES["swiglu"].takes,
    "cache": (
        Takes("window", units=("token",)),
        Takes("all", "flag", default=False),
        Takes("sinks", units=("token",)),
    ),
}


LEARNED_TAKES = (Takes("width", required=True), Takes("start", default=0))
POINTWISE = ("exp", "sigmoid", "softplus", "tanh", "silu", "gelu", "relu", "elu")


class Flows:
    """Builds flows; raises `Unresolved` after recording what is wrong."""

    def build(self, node: e.Expr, context: Context) -> Flow:
        """The flow of an expression."""
        match node:
            case e.Pipe(source=source, stages=stages):
                flow = self.build(source, context)
                for stage in stages:
                    flow = self.stage(stage, flow, context)
                return flow
            case e.Name():
                return self._name(node, context)
            case e.Number() | e.Quantity():
                return Constant(Shape("scalar", Num(1)), context.scope.number(node), span=node.span)
            case e.Unary(operand=operand):
                return self._arithmetic(e.Binary("*", e.Number(-1), operand, span=node.span), context)
            case e.Binary():
                return self._arithmetic(node, context)
            case e.Call() if context.lets is not None and node.function.text in context.lets:
                return context.lets.called(node, lambda one: self.build(one, context), context)
            case e.Call():
                return self._call(node, context)
            case e.ListOf():
                return join(node, lambda one: merged(self.build(one, context)), context)
            case _:
                raise context.scope.findings.stop(
                    "NL0208",
                    f"`{print_expr(node)}` is not a pipeline",
                    node.span,
                    "a value is wanted here",
                    help="start from a name such as `x` and go on with `|>`",
                )

    def _name(self, node: e.Name, context: Context) -> Flow:
        found = context.lookup(node.text)
        if found is not None:
            return replace(found, span=node.span)
        if context.lets is not None and node.text in context.lets:
            raise context.lets.value(node, context)
        value = context.scope.value(node)
        if isinstance(value, Num | Amount):
            number = value if isinstance(value, Num) else value.number
            return Constant(Shape("scalar", Num(1)), number, span=node.span)
        if isinstance(value, e.Expr):
            return self.build(value, context)
        near = nearest(node.text, context.known())
        if node.text in PRIMITIVES:
            hint = f"`{node.text}` is a stage: write `x |> {node.text}`"
        elif near:
            hint = f"maybe `{near[0]}`"
        else:
            hint = f"names known here: {', '.join(f'`{k}`' for k in context.known())}"
        raise context.scope.findings.stop(
            "NL0200", f"`{node.text}` is not known here", node.span, "unknown name", help=hint
        )

    def _call(self, node: e.Call, context: Context) -> Flow:
        name = node.function.text
        if name == "learned":
            return self._learned(node, context)
        if name in POINTWISE and len(node.arguments) == 1 and node.positional:
            inner = self.build(node.positional[0], context)
            if not isinstance(inner, Constant):
                return self._primitive(e.Name((name,), span=node.span), name, inner, context)
        if all(not isinstance(n, e.Pipe) for n in node.walk()) and name in FUNCTIONS:
            return Constant(Shape("scalar", Num(1)), context.scope.number(node), span=node.span)
        raise context.scope.findings.stop(
            "NL0208",
            f"`{print_expr(node)}` has no input",
            node.span,
            "a stage without a source",
            help=f"write `x |> {print_expr(node)}`",
        )

    def _learned(self, node: e.Call, context: Context) -> Flow:
        """`learned(width, start = 0)` as a value: learned numbers, the same at every token."""
        if context.lookup("x") is None:
            raise context.scope.findings.stop(
                "NL0208",
                f"`{print_expr(node)}` stands where no tokens have features",
                node.span,
                "a value of its own",
                help="use it in a `memory` or a `block`",
            )
        arguments = primitive_arguments(node, "learned", LEARNED_TAKES, context.scope)
        width, start = arguments["width"], arguments["start"]
        assert isinstance(width, Num)
        assert isinstance(start, Num)
        self._positive(width, "a width", context)
        zero = Constant(Shape("scalar", Num(1)), start, span=node.span)
        path = f"{context.path}.learned"
        return Apply(Shape("flat", width), "learned", zero, arguments, path, span=node.span)

    # ------------------------------------------------------------------ arithmetic

    def _arithmetic(self, node: e.Binary, context: Context) -> Flow:
        left, right = self.build(node.left, context), self.build(node.right, context)
        if isinstance(left, Constant) and isinstance(right, Constant):
            return Constant(left.shape, context.scope.number(node), span=node.span)
        left, right = self._alike(left, right)
        shape = self._together(node, left, right, context)
        return Arithmetic(shape, node.op, left, right, span=node.span)

    def _alike(self, left: Flow, right: Flow) -> tuple[Flow, Flow]:
        layouts = {left.shape.layout, right.shape.layout}
        if layouts == {"heads", "flat"}:
            return merged(left), merged(right)
        return left, right

    def _together(self, node: e.Binary, left: Flow, right: Flow, context: Context) -> Shape:
        a, b = left.shape, right.shape
        if a.joined != b.joined and "scalar" not in (a.layout, b.layout):
            raise context.scope.findings.stop(
                "NL0410",
                f"`{node.op}` meets streams that are joined in different ways",
                node.span,
                "not the same tokens",
                others=((left.span, str(a)), (right.span, str(b))),
                help="keep the stream that is listed last with `|> last`",
            )
        if b.layout == "scalar":
            return a
        if a.layout == "scalar":
            return b
        order = {"per head": 0, "gate": 1, "heads": 2}
        if a.layout != b.layout and a.layout in order and b.layout in order:
            return a if order[a.layout] > order[b.layout] else b
        if a.layout == b.layout and a.features == b.features:
            return a
        raise context.scope.findings.stop(
            "NL0401",
            f"`{node.op}` joins {a} and {b}",
            node.span,
            "the sizes differ",
            others=((left.span, str(a)), (right.span, str(b))),
            help="bring both to one width, for instance with `linear(...)`",
        )

    # ------------------------------------------------------------------ stages

    def stage(self, node: e.Expr, flow: Flow, context: Context) -> Flow:
        """Apply one stage of a pipeline; streams that were joined stay so, up to `last`."""
        result = self._stage(node, flow, context)
        joined = flow.shape.joined
        if joined is None or result.shape.joined is not None or isinstance(result, Last):
            return result
        return replace(result, shape=replace(result.shape, joined=joined))

    def _stage(self, node: e.Expr, flow: Flow, context: Context) -> Flow:
        if isinstance(node, e.Phrase) and node.head == "adaptive":
            return self._adaptive(node, flow, context)
        name = function_name(node)
        if name is None:
            hint = (
                "put arithmetic in parentheses before the pipeline: `(x |> silu) * 2`"
                if isinstance(node, e.Binary)
                else None
            )
            raise context.scope.findings.stop(
                "NL0208",
                f"`{print_expr(node)}` is not a stage",
                node.span,
                "a part is wanted here",
                help=hint,
            )
        if context.lets is not None and name in context.lets:
            return context.lets.stage(node, merged(flow), context)
        bound = context.scope.values.get(name)
        if isinstance(bound, e.Expr):
            return self.stage(bound, flow, context)
        if isinstance(bound, Word) and isinstance(node, e.Name):
            node, name = e.Name((bound.text,), span=node.span), bound.text
        if name == "repeat":
            return self._repeat(node, flow, context)
        found = context.scope.module.lookup(name)
        if found is not None and isinstance(found[0], doc.Memory | doc.Block):
            return context.instantiate(node, found[0], found[1], merged(flow), context.given(flow))
        if name in PRIMITIVES:
            return self._primitive(node, name, flow, context)
        if name == "last":
            return last(node, flow, context)
        raise self._unknown_stage(node, name, context)

    def _unknown_stage(self, node: e.Expr, name: str, context: Context) -> Unresolved:
        parts = [n for n in context.scope.module.names() if _usable(context.scope, n)]
        library = context.scope.module.library_names
        near = nearest(name, [*PRIMITIVES, *parts, "repeat", "adaptive", "last"])
        if name in library:
            hint = f"add `import [{name}] from std` at the top"
        elif near:
            hint = f"maybe `{near[0]}`"
        else:
            hint = "declare it with `memory` or `block`, import it, or use a primitive: " + ", ".join(
                f"`{p}`" for p in PRIMITIVES
            )
        return context.scope.findings.stop(
            "NL0200", f"there is no part called `{name}`", node.span, "unknown part", help=hint
        )

    def _primitive(self, node: e.Expr, name: str, flow: Flow, context: Context) -> Flow:
        primitive = PRIMITIVES[name]
        arguments = primitive_arguments(node, name, primitive.takes, context.scope)
        path = f"{context.path}.{name}"
        if name == "embed":
            return self._embed(node, flow, arguments, path, context)
        if flow.shape.layout not in ("flat", "heads", "gate"):
            raise context.scope.findings.stop(
                "NL0404",
                f"`{name}` is given {flow.shape}",
                node.span,
                "features of each token are wanted here",
                others=((flow.span, str(flow.shape)),),
                help="begin with `tokens |> embed(vocab, dim)`" if flow.shape.layout == "tokens" else None,
            )
        if name == "grouped":
            return self._grouped(node, merged(flow), arguments["groups"], context)
        if primitive.layout == "merged":
            flow = merged(flow)
        if primitive.layout == "head" and context.heads is not None:
            flow = split(flow, context.heads, context.scope, f"the input of `{name}`", context.writes)
        if name == "rope":
            self._even(node, flow, context)
        shape = self._shape(node, name, flow.shape, arguments, context)
        return Apply(shape, name, flow, arguments, path, span=node.span)

    def _grouped(self, node: e.Expr, flow: Flow, groups: Num | str | bool, context: Context) -> Flow:
        """Features of fewer heads than the memory has; each then serves as many of them."""
        assert isinstance(groups, Num)
        heads = context.heads
        if heads is None:
            raise context.scope.findings.stop(
                "NL0404",
                "`grouped` stands outside a memory",
                node.span,
                "there are no heads here",
                help="use it in the `key` and `value` of a memory",
            )
        self._positive(groups, "a number of groups", context)
        if int(heads) % int(groups):
            raise context.scope.findings.stop(
                "NL0403",
                f"{int(heads)} heads do not divide into {int(groups)} groups",
                groups.span or node.span,
                "groups",
                others=((heads.span, f"{int(heads)} heads"),),
                help=f"use a number of groups that divides {int(heads)}: {divisors(int(heads))}",
            )
        made = split(flow, groups, context.scope, "the input of `grouped`")
        return replace(made, span=node.span)

    def _even(self, node: e.Expr, flow: Flow, context: Context) -> None:
        if flow.shape.layout != "heads":
            raise context.scope.findings.stop(
                "NL0404",
                "`rope` stands outside a memory",
                node.span,
                "there are no heads here",
                help="use `rope` in the `key` and `query` of a memory",
            )
        if int(flow.shape.width) % 2:
            raise context.scope.findings.stop(
                "NL0405",
                f"`rope` turns pairs, but a head has {int(flow.shape.width)} features",
                node.span,
                "an odd width",
                help="choose `dim` and `heads` so that `dim / heads` is even",
            )

    def _shape(
        self, node: e.Expr, name: str, shape: Shape, arguments: dict[str, Num | str | bool], context: Context
    ) -> Shape:
        width = arguments.get("width")
        if name == "linear" and isinstance(width, Num):
            self._positive(width, "a width", context)
            return Shape("flat", width)
        if name == "conv" and isinstance(width, Num):
            self._positive(width, "the reach of a convolution", context)
        if name == "unembed":
            vocab = arguments.get("vocab") or (context.vocab[0] if context.vocab else None)
            if not isinstance(vocab, Num):
                raise context.scope.findings.stop(
                    "NL0409",
                    "`unembed` does not know the vocabulary",
                    node.span,
                    "no number of tokens",
                    help="write `unembed(vocab)`, or embed the tokens before",
                )
            arguments["vocab"] = vocab
            return Shape("flat", vocab)
        check_arguments(name, arguments, context.scope)
        degree = arguments.get("degree")
        if name == "polynomial" and isinstance(degree, Num):
            return replace(shape, width=monomials(node, shape.width, degree, context.scope))
        return shape

    def _positive(self, number: Num, what: str, context: Context) -> None:
        context.scope.counted(number, what)

    def _embed(
        self, node: e.Expr, flow: Flow, arguments: dict[str, Num | str | bool], path: str, context: Context
    ) -> Flow:
        if flow.shape.layout != "tokens":
            raise context.scope.findings.stop(
                "NL0404",
                f"`embed` is given {flow.shape}",
                node.span,
                "token ids are wanted here",
                help="use it once, on `tokens`",
            )
        vocab, width = arguments["vocab"], arguments["width"]
        for number, what in ((vocab, "the vocabulary"), (width, "a width")):
            if isinstance(number, Num):
                self._positive(number, what, context)
        context.vocab.insert(0, vocab)  # type: ignore[arg-type]
        return Apply(Shape("flat", width), "embed", flow, arguments, path, span=node.span)  # type: ignore[arg-type]

    def _repeat(self, node: e.Expr, flow: Flow, context: Context) -> Flow:
        arguments = arguments_of(node)
        if len(arguments) != 2 or any(a.name for a in arguments):
            raise context.scope.findings.stop(
                "NL0202",
                "`repeat` takes a count and what to repeat",
                node.span,
                help="write `repeat(depth, Block(dim))` or `repeat(n, [A(dim), B(dim)])`",
            )
        count = context.scope.integer(arguments[0].value, "the count of `repeat`")
        items = (
            arguments[1].value.items if isinstance(arguments[1].value, e.ListOf) else (arguments[1].value,)
        )
        uses = []
        for item in items:
            one = self.stage(item, flow, context)
            if isinstance(one, Use) and one.name is not None:
                raise context.scope.findings.stop(
                    "NL0220",
                    f"`repeat` gives each copy weights of its own, and `{one.name}` is one instance",
                    item.span,
                    "an instance",
                    help=f"write `x |> {one.name} |> {one.name}` to share its weights",
                )
            if not isinstance(one, Use):
                raise context.scope.findings.stop(
                    "NL0209",
                    f"`repeat` repeats blocks and memories, and `{print_expr(item)}` is neither",
                    item.span,
                    "not a block",
                    help="wrap it in a `block`",
                )
            if one.shape.features != flow.shape.features:
                raise context.scope.findings.stop(
                    "NL0402",
                    f"`{print_expr(item)}` turns {flow.shape} into {one.shape}",
                    item.span,
                    "cannot follow itself",
                )
            uses.append(one)
        return Repeat(flow.shape, tuple(u.instance for u in uses), count, flow, span=node.span)

    # ------------------------------------------------------------------ adaptive projections and maps

    def _adaptive(self, node: e.Phrase, flow: Flow, context: Context) -> Flow:
        findings = context.scope.findings
        if not context.adaptive_ok or context.heads is None:
            raise findings.stop(
                "NL0210",
                "`adaptive` stands outside a memory's own pipelines",
                node.span,
                "nothing writes it here",
                help="use it in the key, value, query, rate or retain of a `memory`",
            )
        if len(node.words) < 2 or isinstance(node.words[1], e.Body):
            raise findings.stop(
                "NL0210",
                "`adaptive` is followed by no map",
                node.span,
                help="write `adaptive mlp(residual)` or `adaptive linear`",
            )
        several = "leave `writes` out: several writes do not go with `adaptive`" * (context.writes > 1)
        flow = split(flow, context.heads, context.scope, "the input of `adaptive`", context.writes, several)
        projection = self.map(node.words[1], context.scope, flow.shape.width)
        if projection.kind not in ("mlp", "matrix"):
            raise findings.stop(
                "NL0210",
                f"an adaptive projection cannot be `{projection.kind}`",
                node.words[1].span,
                help="use `mlp(...)` or `linear`",
            )
        own = settings(node, context.scope)
        return Adaptive(flow.shape, flow, projection, f"{context.path}.adaptive", own, span=node.span)

    def map(self, node: e.Expr, scope: Scope, width: Num) -> Map:
        """The map of a memory or adaptive projection over vectors of `width` features."""
        value = scope.value(node)
        if isinstance(value, e.Expr):
            node = value
        name = value.text if isinstance(value, Word) else function_name(node)
        if name not in MAP_TAKES:
            blocks = [b for b in scope.module.names() if _is_block(scope, b)]
            near = nearest(name or "", [*MAP_TAKES, *blocks])
            known = ", ".join(f"`{m}`" for m in MAP_TAKES)
            hint = f"maybe `{near[0]}`" if near else f"a map is one of {known}, or a block of your own"
            raise scope.findings.stop(
                "NL0203", f"`{print_expr(node)}` is not a map", node.span, "not a choice", help=hint
            )
        takes = MAP_TAKES[name]
        if name == "cache" and isinstance(node, e.Call) and len(node.positional) == 1:
            only = scope.value(node.positional[0])
            if isinstance(only, Word) and only.text == "all":
                return Map("cache", span=node.span)
        arguments = primitive_arguments(node, name, takes, scope)
        check_arguments(name, arguments, scope)
        if name == "cache":
            window = arguments.get("window")
            sinks = arguments.get("sinks")
            return Map(
                "cache",
                window=int(window) if isinstance(window, Num) else None,
                sinks=int(sinks) if isinstance(sinks, Num) else 0,
                span=node.span,
            )
        if name in ("matrix", "linear"):
            return Map("matrix", span=node.span)
        if name == "vector":
            return Map("vector", span=node.span)
        hidden = arguments.get("hidden")
        if not isinstance(hidden, Num):
            hidden = times(Num(4, e.Number(4)), width)
        depth = arguments.get("depth")
        return Map(
            name,  # type: ignore[arg-type]
            hidden,
            int(depth) if isinstance(depth, Num) else 2,
            bool(arguments.get("residual")),
            bool(arguments.get("norm")),
            str(arguments.get("activation", "gelu")),
            span=node.span,
        )


def _is_block(scope: Scope, name: str) -> bool:
    found = scope.module.lookup(name)
    return found is not None and isinstance(found[0], doc.Block)


def _usable(scope: Scope, name: str) -> bool:
    found = scope.module.lookup(name)
    return found is not None and isinstance(found[0], doc.Memory | doc.Block)
