"""Instances that a block names with `let`: used whole, or read and written apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve.calls import arguments_of, function_name
from nldsl.resolve.expanded import Apart, Flow, MemoryInstance, Named, Num, ReadApart, Use, WriteApart
from nldsl.resolve.findings import Unresolved
from nldsl.resolve.passes import Seen
from nldsl.resolve.streams import single

if TYPE_CHECKING:
    from nldsl.resolve.context import Context

CODE = "NL0220"
WAYS = ("read", "write")


@dataclass(slots=True)
class Let:
    """One `let name = Part(...)`, and how the body of its block spells its uses, in order.

    `context` is where it is declared, `inside` whether that is in segments; `whole`, `before`, `after` and
    `writes` count its uses, its reads before and after its write, and its writes; `used` has the length of
    the segments that its sides are used in, None outside of any.
    """

    name: str
    call: e.Expr
    declaration: doc.Memory | doc.Block
    module: object
    context: Context
    inside: bool
    span: Span | None
    whole: int
    before: int
    after: int
    writes: int
    instance: Use | None = None
    written: e.Expr | None = None
    used: list[Num | None] = field(default_factory=list)


@dataclass(slots=True)
class Lets:
    """The instances of one body."""

    known: dict[str, Let] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        first = name.partition(".")[0]
        if first in self.broken:
            raise Unresolved(first)
        return first in self.known

    # ------------------------------------------------------------------ declarations

    def declare(
        self, name: e.Name, value: e.Expr, body: list[e.Statement], context: Context, *, inside: bool
    ) -> None:
        """Take `let name = value`; `body` is where it is used."""
        findings, scope = context.scope.findings, context.scope
        part = function_name(value)
        bound = scope.values.get(part or "")
        call = bound if isinstance(bound, e.Expr) else value
        part = function_name(call)
        found = scope.module.lookup(part) if part is not None else None
        if part is None or found is None or not isinstance(found[0], doc.Memory | doc.Block):
            self.broken.add(name.text)
            names = [n for n in scope.module.names() if _is_part(scope.module.lookup(n))]
            near = nearest(part or "", names)
            raise findings.stop(
                CODE,
                f"`let {name.text}` names no memory or block",
                value.span,
                "not a part",
                help=f"maybe `{near[0]}`"
                if near
                else "write `let m = Titans(dim)`; a number is a parameter of the block",
            )
        spelled = _spelled(name.text, body)
        self.known[name.text] = Let(name.text, call, found[0], found[1], context, inside, name.span, *spelled)

    def settle(self, *, inside: bool) -> tuple[Named, ...]:
        """The instances declared inside or outside of segments, as made; those never used are findings."""
        made: list[Named] = []
        for one in [one for one in self.known.values() if one.inside == inside]:
            if inside:
                del self.known[one.name]  # not known outside of its segments
            if one.instance is None:
                one.context.scope.findings.add(
                    "NL0221",
                    f"nothing uses the instance `{one.name}`",
                    one.span,
                    "named here",
                    severity="warning",
                    help=f"use it with `x |> {one.name}`, or remove it",
                )
                continue
            made.append(Named(one.name, one.instance.instance, one.span))
            _lopsided(one)
        return tuple(made)

    # ------------------------------------------------------------------ uses

    def value(self, node: e.Name, context: Context) -> Exception:
        """The finding for an instance where a value is wanted."""
        return context.scope.findings.stop(
            CODE,
            f"`{node.text}` is an instance, not a value",
            node.span,
            "no features here",
            others=((self.known[node.parts[0]].span, "the instance"),),
            help=f"write `{node.text}(x)` or `x |> {node.text}`",
        )

    def called(self, node: e.Call, build: Callable[[e.Expr], Flow], context: Context) -> Flow:
        """`m(x)`, `m.read(x)`, `m.write(x)`."""
        given = arguments_of(node)
        if len(given) != 1 or given[0].name is not None:
            raise context.scope.findings.stop(
                "NL0202",
                f"`{node.function.text}` takes one stream",
                node.span,
                help=f"write `{node.function.text}(x)`; the arguments of the part stand behind `let`",
            )
        return self.stage(node.function, build(given[0].value), context, node)

    def stage(self, node: e.Expr, flow: Flow, context: Context, whole: e.Expr | None = None) -> Flow:
        """An instance, or one side of it, as a stage of a pipeline."""
        findings = context.scope.findings
        where = whole or node
        if isinstance(node, e.Call):
            raise findings.stop(
                "NL0202",
                f"`{node.function.text}` takes no arguments here",
                node.span,
                "an instance has its arguments already",
                help=f"write `x |> {node.function.text}`, or give the arguments behind `let`",
            )
        assert isinstance(node, e.Name)
        name, _, way = node.text.partition(".")
        one = self.known[name]
        if way and way not in WAYS:
            near = nearest(way, list(WAYS))
            raise findings.stop(
                CODE,
                f"an instance cannot be asked to `{way}`",
                node.span,
                "unknown",
                help=f"maybe `{name}.{near[0]}`"
                if near
                else f"it has `{name}.read(x)` and `{name}.write(x)`",
            )
        made = self._made(one, flow, where, context)
        if not way:
            return Use(made.instance.shape, made.instance, flow, name, span=where.span)
        instance = self._apart(one, made, way, where, context)
        flow = single(flow, f"what `{node.text}` is given", context)
        if way == "read":
            return ReadApart(instance.shape, instance, flow, name, one.written is not None, span=where.span)
        if one.written is not None:
            raise findings.stop(
                CODE,
                f"`{name}` is written twice in one pass",
                where.span,
                "again here",
                others=((one.written.span, "first here"),),
                help="write it once: what is written first would see tokens that come later",
            )
        one.written = where
        return WriteApart(flow.shape, instance, flow, name, one.after > 0, span=where.span)

    def _made(self, one: Let, flow: Flow, where: e.Expr, context: Context) -> Use:
        """The instance, made at its first use for as many features as that has."""
        findings = context.scope.findings
        if one.instance is None:
            own = one.context
            seen = own.given(flow).seen
            if one.whole > 1:
                seen = (*seen, Seen("places", one.whole))
            made = own.instantiate(one.call, one.declaration, one.module, flow, replace(own, seen=seen))
            assert isinstance(made, Use)
            if isinstance(made.instance, MemoryInstance) and (one.before or one.after or one.writes):
                carried = context.segment is not None and not one.inside
                apart = Apart(one.before, one.after, int(context.segment or 0) if carried else None)
                made = replace(made, instance=replace(made.instance, apart=apart))
            one.instance = made
        width = one.instance.instance.width
        if int(width) != flow.shape.features or flow.shape.layout != "flat":
            raise findings.stop(
                "NL0402",
                f"`{one.name}` works on {int(width)} features and receives {flow.shape}",
                where.span,
                "does not fit",
                others=((one.span, f"{int(width)} features"),),
                help=f"bring the input to {int(width)} with `linear({int(width)})`",
            )
        return one.instance

    def _apart(self, one: Let, made: Use, way: str, where: e.Expr, context: Context) -> MemoryInstance:
        """The memory to read or write; raises where that has no meaning."""
        findings = context.scope.findings
        instance = made.instance
        if not isinstance(instance, MemoryInstance):
            raise findings.stop(
                CODE,
                f"`{one.name}` is no memory inside the sequence, so there is nothing to {way}",
                where.span,
                "read and written apart",
                others=((one.span, f"a `{instance.name}`"),),
                help=f"use it whole: `x |> {one.name}`",
            )
        if one.whole:
            raise findings.stop(
                CODE,
                f"`{one.name}` is used whole and in parts",
                where.span,
                f"only its {way}",
                others=((one.span, "the instance"),),
                help=f"write `{one.name}.write(x)` and then `{one.name}.read(x)`, or name two instances",
            )
        if instance.adaptives() or instance.core.target == "self":
            raise findings.stop(
                CODE,
                f"`{instance.name}` reads itself while it is written, so it has no sides to use apart",
                where.span,
                f"only its {way}",
                others=((one.span, "the instance"),),
                help=f"use it whole: `x |> {one.name}`",
            )
        linked = next((name for name, _, _ in instance.core.constrain if name != "norm"), None)
        if linked is not None:
            raise findings.stop(
                "NL0701",
                f"no code can be made yet for a memory under `constrain = {linked}` that is read apart",
                where.span,
                f"only its {way}",
                help=f"use it whole: `x |> {one.name}`",
            )
        if one.used and one.used[0] is not context.segment:
            raise findings.stop(
                CODE,
                f"`{one.name}` is read and written in different passes",
                where.span,
                "another pass",
                others=((one.span, "the instance"),),
                help="a pass is one segment, or the whole sequence: read and write it in the same one",
            )
        one.used.append(context.segment)
        return instance


def _is_part(found: tuple[object, object] | None) -> bool:
    return found is not None and isinstance(found[0], doc.Memory | doc.Block)


def _spelled(name: str, body: list[e.Statement]) -> tuple[int, int, int, int]:
    """How often a body uses an instance whole, reads it before and after its write, and writes it."""
    whole = before = after = writes = 0
    for statement in body:
        words = [n.text for n in statement.value.walk() if isinstance(n, e.Name)]
        reads = words.count(f"{name}.read")
        whole += words.count(name)
        if writes:
            after += reads
        else:
            before += reads
        writes += words.count(f"{name}.write")
    return whole, before, after, writes


def _lopsided(one: Let) -> None:
    """A memory that is only read, or only written."""
    findings = one.context.scope.findings
    reads = one.before + one.after
    if one.writes and not reads:
        findings.add(
            "NL0222",
            f"what is written to `{one.name}` is never read",
            one.span,
            "the instance",
            severity="warning",
            help=f"read it with `{one.name}.read(x)`, or remove it",
        )
    instance = one.instance.instance if one.instance is not None else None
    apart = instance.apart if isinstance(instance, MemoryInstance) else None
    alone = reads and not one.writes
    unseen = reads and not one.after and apart is not None and apart.segment is None
    if alone or unseen:
        findings.add(
            "NL0223",
            f"`{one.name}` is read, but never " + ("written" if alone else "after a write"),
            one.span,
            "the instance",
            severity="warning",
            help=(
                f"write to it with `{one.name}.write(x)`"
                if alone
                else "read it after its write, or inside `segments(n)`, where a read sees earlier segments"
            )
            + ": as it is, each read sees the start",
        )


__all__ = ["Let", "Lets"]
