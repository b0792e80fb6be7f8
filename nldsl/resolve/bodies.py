"""The lines of a block or model: values, instances, and segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.calls import arguments_of, function_name
from nldsl.resolve.context import Context, Instantiate
from nldsl.resolve.expanded import Flow, Line, Named, Num, Segments, Shape, Variable, WriteApart
from nldsl.resolve.findings import Unresolved
from nldsl.resolve.flows import Flows
from nldsl.resolve.lets import Lets
from nldsl.resolve.passes import Seen
from nldsl.resolve.scope import Amount, Scope


@dataclass(slots=True)
class Names:
    """What lines can read: values by name, broken ones, and those from outside of segments."""

    values: dict[str, Flow]
    broken: set[str] = field(default_factory=set)
    outside: dict[str, Flow] = field(default_factory=dict)
    taken: dict[str, Variable] = field(default_factory=dict)

    def lookup(self, name: str) -> Flow | None:
        if name in self.broken:
            raise Unresolved(name)
        if name in self.values:
            return self.values[name]
        if name in self.outside and self.outside[name].shape.joined is None:
            self.taken.setdefault(name, Variable(self.outside[name].shape, name))
            return self.taken[name]
        return None

    def known(self) -> list[str]:
        return [*self.values, *(n for n in self.outside if n not in self.values)]


class Body:
    """Resolves the statements of one block or model."""

    def __init__(
        self,
        flows: Flows,
        instantiate: Instantiate,
        declaration: doc.Block | doc.Model,
        scope: Scope,
        inputs: dict[str, Shape],
        vocab: list[Num],
        seen: tuple[Seen, ...] = (),
    ) -> None:
        self.flows, self.instantiate, self.declaration = flows, instantiate, declaration
        self.scope, self.findings, self.inputs, self.vocab, self.seen = (
            scope,
            scope.findings,
            inputs,
            vocab,
            seen,
        )
        self.lets = Lets()
        self.assigned: dict[str, e.Name] = {}
        self.labels: dict[str, e.Name] = {}
        self.named: tuple[Named, ...] = ()
        self.block = isinstance(declaration, doc.Block)

    def lines(self) -> list[Line]:
        """All lines; raises `Unresolved` after all of their findings."""
        names = Names({name: Variable(shape, name) for name, shape in self.inputs.items()})
        lines = self._lines(self.declaration.body, names, None)
        self.named = self.lets.settle(inside=False)
        return lines

    def _lines(self, statements: list[e.Statement], names: Names, segment: Num | None) -> list[Line]:
        lines: list[Line] = []
        failed = False
        for statement in statements:
            try:
                line = self._line(statement, names, segment)
            except Unresolved:
                failed = True
                if isinstance(statement.target, e.Name):
                    names.broken.add(statement.target.text)
                continue
            if line is None:
                continue
            lines.append(line)
            if line.target is not None:
                names.values[line.target] = Variable(line.flow.shape, line.target)
        if failed:
            raise Unresolved(self.declaration.name)
        return lines

    def _line(self, statement: e.Statement, names: Names, segment: Num | None) -> Line | None:
        label = statement.label.text if statement.label is not None else None
        context = self._context(label, names, segment)
        declared = _declared(statement)
        if declared is not None:
            self._let(statement, declared, context, segment)
            return None
        if _segments(statement) is not None:
            return self._segments(statement, context, names, segment)
        target = self._target(statement)
        flow = self._value(statement, context)
        if isinstance(flow, WriteApart) and target is not None:
            raise self._no_value(statement)
        if any(isinstance(node, WriteApart) for one in flow.inputs() for node in one.walk()):
            raise self._no_value(statement)
        return Line(flow, target, label, statement.span)

    def _context(self, label: str | None, names: Names, segment: Num | None) -> Context:
        path = f"{self.declaration.name}.{label}" if label else self.declaration.name
        seen = self.seen if segment is None else (*self.seen, Seen("segments", int(segment)))
        return Context(
            self.scope,
            path,
            names.lookup,
            names.known,
            self.instantiate,
            vocab=self.vocab,
            lets=self.lets,
            seen=seen,
            segment=segment,
        )

    def _no_value(self, statement: e.Statement) -> Unresolved:
        return self.findings.stop(
            "NL0220",
            f"`{print_expr(statement.value)}` gives no value",
            statement.value.span,
            "a write",
            help="write it on a line of its own, and read what was written with `read`",
        )

    # ------------------------------------------------------------------ instances

    def _let(self, statement: e.Statement, name: e.Name, context: Context, segment: Num | None) -> None:
        if not self.block:
            raise self.findings.stop(
                "NL0220",
                "`let` stands in a model",
                statement.span,
                "an instance",
                help="name instances in a `block`, or a constant with `let` at the top of the file",
            )
        self._once(name, self.assigned, "is assigned twice", "use another name")
        context.path = f"{self.declaration.name}.{name.text}"
        self.lets.declare(
            name, statement.value, list(_flat(self.declaration.body)), context, inside=segment is not None
        )

    # ------------------------------------------------------------------ segments

    def _segments(self, statement: e.Statement, context: Context, names: Names, segment: Num | None) -> Line:
        found = _segments(statement)
        assert found is not None
        call, body = found
        if not self.block or segment is not None:
            place = "in a model" if not self.block else "inside segments"
            raise self.findings.stop(
                "NL0224",
                f"`segments` stands {place}",
                call.span,
                "no segments here",
                help="put its lines into a `block` of their own, and use that block here",
            )
        self._label(statement)
        given = arguments_of(call)
        if len(given) != 1 or given[0].name is not None:
            raise self.findings.stop(
                "NL0201",
                "`segments` needs the number of its tokens",
                call.span,
                "not given here",
                help="write `segments(64) { ... }`",
            )
        length = self._tokens(given[0].value)
        x = names.values.get("x")
        inner = Names({}, names.broken, {**names.outside, **names.values})
        if x is not None:
            inner.values["x"] = x
            inner.taken["x"] = Variable(x.shape, "x")
        lines = self._lines(list(body.statements), inner, length)
        bound = [line for line in lines if line.target == "x"]
        if x is None or not bound:
            raise self.findings.stop(
                "NL0224",
                "nothing leaves these segments",
                call.span,
                "no line binds `x`",
                help="bind `x`: what it is at the end of a segment leaves it",
            )
        result = bound[-1].flow
        if x.shape.joined is not None or result.shape.joined is not None:
            raise self.findings.stop(
                "NL0410",
                "segments are cut from one stream",
                call.span,
                "several streams joined in time",
                help="keep the stream that is listed last with `|> last`",
            )
        begun = self.lets.settle(inside=True)
        streams = tuple(inner.taken.values())
        flow = Segments(
            Shape("flat", result.shape.width), length, tuple(lines), streams, begun, span=call.span
        )
        return Line(flow, "x", context_label(statement), statement.span)

    def _tokens(self, node: e.Expr) -> Num:
        """The length of a segment: a number, or an amount of tokens."""
        value = self.scope.value(node)
        if isinstance(value, Amount) and value.unit == "token":
            number = value.number
        else:
            number = self.scope.number(node)
        self.scope.counted(number, "the length of a segment", node.span)
        return number

    # ------------------------------------------------------------------ values and targets

    def _value(self, statement: e.Statement, context: Context) -> Flow:
        if isinstance(statement.value, e.Phrase):
            head = statement.value.head or "this"
            near = nearest(head, ["adaptive", "repeat", "segments", "let"])
            raise self.findings.stop(
                "NL0208",
                f"`{head} ...` is not a pipeline",
                statement.value.span,
                "a value is wanted here",
                help=f"maybe `{near[0]}`" if near else "start from a name such as `x` and go on with `|>`",
            )
        return self.flows.build(statement.value, context)

    def _label(self, statement: e.Statement) -> None:
        if statement.label is None:
            return
        label = statement.label.text
        if label in self.labels:
            raise self.findings.stop(
                "NL0213",
                f"the label `{label}` is used twice",
                statement.label.span,
                "again here",
                others=((self.labels[label].span, "first here"),),
                help="a label is a path: give each line its own",
            )
        self.labels[label] = statement.label

    def _target(self, statement: e.Statement) -> str | None:
        self._label(statement)
        if statement.target is None:
            return None
        if not isinstance(statement.target, e.Name) or len(statement.target.parts) != 1:
            raise self.findings.stop(
                "NL0208",
                f"`{print_expr(statement.target)}` cannot be assigned",
                statement.target.span,
                "not a plain name",
                help="assign to a plain name, or bind `x` again",
            )
        if statement.target.text not in self.inputs:
            self._once(
                statement.target,
                self.assigned,
                "is assigned twice",
                "only `x` may be bound again; use another name",
            )
        return statement.target.text

    def _once(self, name: e.Name, known: dict[str, e.Name], what: str, help: str) -> None:
        if name.text in known or name.text in self.inputs:
            first = known.get(name.text)
            raise self.findings.stop(
                "NL0213",
                f"`{name.text}` {what}",
                name.span,
                "again here",
                others=((first.span, "first here"),) if first is not None else (),
                help=help,
            )
        known[name.text] = name


def context_label(statement: e.Statement) -> str | None:
    """The label of a statement, if it has one."""
    return statement.label.text if statement.label is not None else None


def _declared(statement: e.Statement) -> e.Name | None:
    """The name of `let name = ...`."""
    target = statement.target
    if not isinstance(target, e.Phrase) or target.head != "let" or len(target.words) != 2:
        return None
    name = target.words[1]
    return name if isinstance(name, e.Name) and len(name.parts) == 1 else None


def _segments(statement: e.Statement) -> tuple[e.Expr, e.Body] | None:
    """The call and the body of `segments(n) { ... }`."""
    value = statement.value
    if statement.target is not None or not isinstance(value, e.Phrase) or len(value.words) != 2:
        return None
    call, body = value.words
    return (call, body) if function_name(call) == "segments" and isinstance(body, e.Body) else None


def _flat(statements: list[e.Statement]) -> Iterator[e.Statement]:
    """Statements in order, those of segments in their place."""
    for statement in statements:
        found = _segments(statement)
        if found is None:
            yield statement
        else:
            yield from _flat(list(found[1].statements))
