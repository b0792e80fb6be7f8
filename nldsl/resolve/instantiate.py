"""Instances of blocks and models: their lines, one after the other, with shapes."""

from __future__ import annotations

from dataclasses import replace

from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.bodies import Body
from nldsl.resolve.calls import bind
from nldsl.resolve.context import Context
from nldsl.resolve.expanded import BlockInstance, Flow, ModelInstance, Num, Shape, Use, WriteApart
from nldsl.resolve.findings import Findings
from nldsl.resolve.flows import Flows
from nldsl.resolve.memories import Memories
from nldsl.resolve.modules import Module
from nldsl.resolve.passes import Seen
from nldsl.resolve.scope import Scope

MAX_PARTS = 64
"""How many blocks and memories may stand one inside the other."""


class Builder:
    """Makes instances; one for each resolution."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.flows = Flows()
        self.memories = Memories(self.flows, self.instantiate)
        self.stack: list[tuple[str, e.Expr]] = []

    # ------------------------------------------------------------------ entry points

    def model(self, call: e.Expr, declaration: doc.Model, module: Module, caller: Scope) -> ModelInstance:
        """The model named by a `train` block, with its arguments."""
        bound = bind(call, declaration.name, declaration.parameters, module, caller)
        start = Shape("tokens", Num(1))
        vocab: list[Num] = []
        lines = Body(self.flows, self.instantiate, declaration, bound.scope, {"tokens": start}, vocab).lines()
        if not lines:
            raise self.findings.stop(
                "NL0211",
                f"the model `{declaration.name}` says nothing",
                declaration.where(),
                "an empty body",
                help="begin with `tokens |> embed(vocab, dim)`",
            )
        last = lines[-1].flow
        if not vocab or last.shape.layout != "flat" or last.shape.features != int(vocab[0]):
            raise self.findings.stop(
                "NL0406",
                f"the model `{declaration.name}` ends in {last.shape}, not in logits over the vocabulary",
                lines[-1].span,
                "the end of the model",
                help="begin with `tokens |> embed(vocab, dim)` and end with `unembed(tied)`",
            )
        return ModelInstance(
            declaration.name, bound.arguments, tuple(lines), int(vocab[0]), declaration.where()
        )

    def instantiate(
        self, call: e.Expr, declaration: doc.Memory | doc.Block, module: object, flow: Flow, context: Context
    ) -> Use:
        """A block or memory as a stage of a pipeline."""
        assert isinstance(module, Module)
        self._no_cycle(call, declaration)
        self.stack.append((declaration.name, call))
        try:
            bound = bind(call, declaration.name, declaration.parameters, module, context.scope)
            width = self._width(call, bound.arguments, bound.scope, flow)
            if isinstance(declaration, doc.Memory):
                path = f"{context.path}.{declaration.name}"
                instance = replace(
                    self.memories.build(call, declaration, bound, width, path), seen=context.seen
                )
            else:
                instance = self._block(call, declaration, bound.scope, bound.arguments, width, context.seen)
        finally:
            self.stack.pop()
        return Use(instance.shape, instance, flow, span=call.span)

    def _no_cycle(self, call: e.Expr, declaration: doc.Memory | doc.Block) -> None:
        names = [n for n, _ in self.stack]
        if len(names) >= MAX_PARTS:
            raise self.findings.stop(
                "NL0216",
                f"`{declaration.name}` stands in {len(names)} parts, one inside the other",
                call.span,
                "too deep",
                notes=(f"{names[0]} -> ... -> {names[-1]} -> {declaration.name}",),
                help="use `repeat(n, ...)` to stack parts one after the other",
            )
        if declaration.name not in names:
            return
        first = names.index(declaration.name)
        ring = " -> ".join([*names[first:], declaration.name])
        raise self.findings.stop(
            "NL0212",
            f"`{declaration.name}` contains itself",
            call.span,
            "used inside itself",
            others=tuple((c.span, f"`{n}` is used here") for n, c in self.stack[first:]),
            notes=(ring,),
            help="use `repeat(n, ...)` to stack a part several times",
        )

    def _width(self, call: e.Expr, arguments: dict[str, Num], scope: Scope, flow: Flow) -> Num:
        """The width of the input, spelled with the parameters of the part that receives it."""
        width = flow.shape.width
        if flow.shape.layout != "flat":
            raise self.findings.stop(
                "NL0404",
                f"`{print_expr(call)}` is given {flow.shape}",
                call.span,
                "features of each token are wanted here",
                help="begin with `tokens |> embed(vocab, dim)`" if flow.shape.layout == "tokens" else None,
            )
        dim = arguments.get("dim")
        if dim is not None and dim.value != width.value:
            raise self.findings.stop(
                "NL0402",
                f"`{print_expr(call)}` has `dim = {dim.value}` but receives {int(width)} features",
                call.span,
                "does not fit",
                others=((flow.span, str(flow.shape)),),
                help=(
                    f"give it `dim = {int(width)}`, or bring the input to {dim.value} with "
                    f"`linear({dim.value})`"
                ),
            )
        for name, given in arguments.items():
            if given.symbol is not None and given.symbol == width.symbol and given.value == width.value:
                return Num(width.value, e.Name((name,)))
        return Num(width.value, e.Name(("dim",)) if dim is not None else None)

    # ------------------------------------------------------------------ bodies

    def _block(
        self,
        call: e.Expr,
        declaration: doc.Block,
        scope: Scope,
        arguments: dict[str, Num],
        width: Num,
        seen: tuple[Seen, ...],
    ) -> BlockInstance:
        body = Body(self.flows, self.instantiate, declaration, scope, {"x": Shape("flat", width)}, [], seen)
        lines = body.lines()
        if not lines:
            raise self.findings.stop(
                "NL0211",
                f"the block `{declaration.name}` says nothing",
                declaration.where(),
                "an empty body",
                help="write for instance `mixer: x = x + (x |> rmsnorm |> DeltaNet(dim))`",
            )
        rebound = [line for line in lines if line.target == "x"]
        last = (rebound or lines)[-1]
        if isinstance(last.flow, WriteApart):
            raise self.findings.stop(
                "NL0220",
                f"the block `{declaration.name}` ends in a write",
                last.span,
                "gives no value",
                help="end with a line that has one, or bind `x`",
            )
        if last.flow.shape.joined is not None:
            raise self.findings.stop(
                "NL0410",
                f"the block `{declaration.name}` ends in several streams joined in time",
                last.span,
                str(last.flow.shape),
                help="keep the stream that is listed last with `|> last`",
            )
        shape = last.flow.shape
        return BlockInstance(
            declaration.name,
            declaration.name,
            arguments,
            width,
            tuple(lines),
            shape,
            call.span,
            declaration.where(),
            body.named,
            seen,
        )
