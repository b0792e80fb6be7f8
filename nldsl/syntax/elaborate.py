"""Statements to the document: which head word declares what, and which fields a declaration has.

Non-goals: no name is looked up and no value is evaluated; fields are judged by the checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nldsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Source, Span
from nldsl.diagnostics.suggest import did_you_mean
from nldsl.document import expr as e
from nldsl.document import model as m
from nldsl.document.printer import print_expr

EDITIONS = (2026,)
DECLARATIONS = ("edition", "import", "let", "memory", "optimizer", "block", "model", "train", "variant", "ablate")

# Words that a parenthesised value may follow without being called by it.
CONNECTIVES = frozenset(
    "by of in from to with within every through otherwise adaptive per and or offset after before keep weighted as".split()
)

_FORMS = {
    "edition": "edition 2026",
    "import": 'import "file.nl" as name` or `import [A, B] from "file.nl"',
    "let": "let name = value",
    "memory": "memory Name(parameters) { field = value }",
    "optimizer": "optimizer name(parameters) { weight = ... }",
    "block": "block Name(parameters) { label: x = ... }",
    "model": "model Name(parameters) { tokens |> ... }",
    "train": "train Name { model = ..., data = ... }",
    "variant": "variant Name of Base { set path = value }",
    "ablate": "ablate Name of Base { without = [...] }",
    "chain": "chain sequential { level name { ... } }",
    "level": "level name { field = value }",
    "eval": "eval every 200 steps { measure }",
    "set": "set path = value",
    "add": "add path = value",
    "remove": "remove path",
    "replace": "replace path by value",
    "vary": "vary path = [value, value]",
    "grid": "grid [path, path] = [[value, value], [value, value]]",
    "zip": "zip [path, path] = [[value, value], [value, value]]",
    "without": "without = [path, path]",
    "keep": "keep parameters within 2%",
    "otherwise": "otherwise rule(...)",
}


def elaborate(body: e.Body, source: Source) -> tuple[m.Document, list[Diagnostic]]:
    """The document that the statements of a file declare, with a finding for each that declares nothing."""
    worker = _Elaborator(source)
    document = worker.document(body)
    worker.find_spaced_calls(body)
    return document, worker.findings


@dataclass(slots=True)
class _Head:
    """A statement taken apart: the words in front of `=` (or all of them), the value, the `{ }`."""

    statement: e.Statement
    words: tuple[e.Expr, ...]
    value: e.Expr | None
    body: e.Body | None

    @property
    def word(self) -> str | None:
        first = self.words[0] if self.words else None
        return first.text if isinstance(first, e.Name) else None

    @property
    def span(self) -> Span | None:
        return self.words[0].span if self.words else self.statement.span

    @property
    def assigns(self) -> bool:
        return self.value is not None


def _head(statement: e.Statement) -> _Head:
    front = statement.value if statement.target is None else statement.target
    value = None if statement.target is None else statement.value
    words = front.words if isinstance(front, e.Phrase) else (front,)
    body = None
    if value is None and isinstance(words[-1], e.Body):
        body, words = words[-1], words[:-1]
    return _Head(statement, words, value, body)


def _leftmost(value: e.Expr) -> e.Expr:
    while True:
        match value:
            case e.Pipe(source=inner) | e.Binary(left=inner):
                value = inner
            case _:
                return value


def _without_leading(value: e.Expr, count: int) -> e.Expr | None:
    """`value` less the first `count` words of its leftmost phrase: `otherwise a |> b` to `a |> b`."""
    match value:
        case e.Pipe(source=source, stages=stages):
            rest = _without_leading(source, count)
            return None if rest is None else e.Pipe(rest, stages, span=_join(rest.span, value.span))
        case e.Binary(op=op, left=left, right=right):
            rest = _without_leading(left, count)
            return None if rest is None else e.Binary(op, rest, right, span=_join(rest.span, value.span))
        case e.Phrase(words=words) if len(words) > count:
            return _phrase(words[count:])
        case _:
            return None


def _join(start: Span | None, end: Span | None) -> Span | None:
    return start.to(end) if start is not None else end


def _phrase(words: tuple[e.Expr, ...]) -> e.Expr:
    if len(words) == 1:
        return words[0]
    return e.Phrase(words, span=_join(words[0].span, words[-1].span))


def _is_word(node: e.Expr, text: str) -> bool:
    return isinstance(node, e.Name) and node.text == text


@dataclass
class _Fields:
    """The assignments of one body, each name once."""

    values: dict[str, e.Expr] = field(default_factory=dict)
    spans: dict[str, Any] = field(default_factory=dict)


class _Elaborator:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.findings: list[Diagnostic] = []

    # -- findings ------------------------------------------------------------------------

    def report(
        self, code: str, message: str, span: Span | None, label: str = "", *, help: str | None = None,
        other: tuple[Span | None, str] | None = None, fix: Fix | None = None, severity: Any = "error",
    ) -> None:  # fmt: skip
        labels = [Label(span, label)] if span is not None else []
        if other is not None and other[0] is not None:
            labels.append(Label(other[0], other[1]))
        self.findings.append(Diagnostic(code, message, tuple(labels), help=help, fix=fix, severity=severity))

    def malformed(self, head: _Head, word: str, code: str = "NL0122") -> None:
        self.report(
            code, f"malformed `{word}`", head.statement.span, "not in its form",
            help=f"it is written `{_FORMS[word]}`",
        )  # fmt: skip

    def twice(self, code: str, what: str, name: str, span: Span | None, first: Span | None) -> None:
        self.report(code, f"the {what} `{name}` is given twice", span, "given again here", other=(first, "first given here"))

    def unknown(self, head: _Head, where: str, known: tuple[str, ...]) -> None:
        """A statement whose head word means nothing in `where`."""
        word = head.word
        if head.words and isinstance(head.words[0], e.Call):
            word = head.words[0].function.text
        if head.body is not None and not head.words:
            if self.findings and self.findings[-1].code == "NL0131":
                return  # the declaration above was just said to lack this very body
            self.report(
                "NL0131", "this `{` belongs to no declaration", head.body.span, "a body of its own",
                help="the `{` stands on the line of the declaration that it opens",
            )  # fmt: skip
            return
        hint = did_you_mean(word, known) if word is not None else None
        if hint is None:
            hint = f"{where} holds " + ", ".join(f"`{k}`" for k in known)
        said = f"`{word}`" if word is not None else "this"
        self.report("NL0121", f"{said} is no statement of {where}", head.span, "not known here", help=hint)

    # -- files ---------------------------------------------------------------------------

    def document(self, body: e.Body) -> m.Document:
        edition: int | None = None
        seen_edition: Span | None = None
        imports: list[m.Import] = []
        declarations: list[Any] = []
        places: dict[str, Span | None] = {}
        makers: dict[str, Callable[[_Head], Any]] = {
            "let": self.let, "memory": self.memory, "optimizer": self.optimizer, "block": self.block,
            "model": self.model, "train": self.train, "variant": self.variant, "ablate": self.ablate,
        }  # fmt: skip
        for statement in body.statements:
            head = _head(statement)
            word = head.word
            if statement.label is not None:
                self.unexpected_label(statement, "a file")
            if word == "edition":
                if seen_edition is not None:
                    self.twice("NL0123", "declaration", "edition", statement.span, seen_edition)
                    continue
                seen_edition = statement.span
                edition = self.edition(head)
            elif word == "import":
                found = self.import_(head)
                if found is not None:
                    imports.append(found)
                    self.imported(found, places)
            elif word in makers:
                declared = makers[word](head)
                if declared is not None:
                    self.declared(declared.name, declared.where(), places)
                    declarations.append(declared)
            else:
                self.unknown_declaration(head)
        if seen_edition is None and body.statements:
            self.missing_edition(body)
        return m.Document(edition=edition, imports=imports, declarations=declarations, span=body.span)

    def declared(self, name: str, span: Span | None, places: dict[str, Span | None]) -> None:
        if name in places:
            self.twice("NL0123", "declaration", name, span, places[name])
        places.setdefault(name, span)

    def imported(self, found: m.Import, places: dict[str, Span | None]) -> None:
        for name in (*found.names, *((found.alias,) if found.alias else ())):
            self.declared(name, found.where(), places)

    def unknown_declaration(self, head: _Head) -> None:
        word = head.word
        if head.words and isinstance(head.words[0], e.Call):
            word = head.words[0].function.text
        if head.body is not None and not head.words:
            self.unknown(head, "a file", DECLARATIONS)
            return
        said = f"`{word}`" if word is not None else "this"
        hint = did_you_mean(word, DECLARATIONS) if word is not None else None
        if hint is None and head.assigns and len(head.words) == 1:
            hint = f"a constant is declared with `let {word or 'name'} = ...`"
        if hint is None:
            hint = "a file holds " + ", ".join(f"`{d}`" for d in DECLARATIONS)
        self.report("NL0120", f"{said} declares nothing", head.span, "not a declaration", help=hint)

    def unexpected_label(self, statement: e.Statement, where: str) -> None:
        assert statement.label is not None
        self.report(
            "NL0132", f"a label has no meaning in {where}", statement.label.span, "this label",
            help="labels name the lines of a `block` or `model`; a field is assigned with `=`",
        )  # fmt: skip

    def missing_edition(self, body: e.Body) -> None:
        first = body.statements[0].span
        source = first.source if first is not None else self.source
        yaml = source.name.endswith((".yaml", ".yml"))
        text = "edition: 2026\n" if yaml else "edition 2026\n\n"
        start = Span(source, 0, 0)
        self.report(
            "NL0002", "the file names no edition", first, "the first statement",
            help="`edition 2026` fixes what defaults mean", severity="warning",
            fix=Fix("name the edition", (Edit(start, text),)),
        )  # fmt: skip

    def edition(self, head: _Head) -> int | None:
        year = head.words[1] if len(head.words) == 2 and not head.assigns and head.body is None else None
        if not isinstance(year, e.Number):
            self.malformed(head, "edition")
            return None
        if year.value not in EDITIONS:
            known = ", ".join(str(y) for y in EDITIONS)
            self.report("NL0003", f"there is no edition {print_expr(year)}", year.span, "unknown year", help=f"known: {known}")
            return None
        return int(year.value)

    def import_(self, head: _Head) -> m.Import | None:
        span = head.statement.span
        match head.words[1:]:
            case _ if head.assigns or head.body is not None:
                pass
            case (e.Text(value=path), e.Name(parts=("as",)), e.Name(parts=(alias,)) as name):
                return m.Import(source=path, alias=alias, span=span, name_span=name.span)
            case (e.Name(parts=("std",)), e.Name(parts=("as",)), e.Name(parts=(alias,)) as name):
                return m.Import(source="std", alias=alias, span=span, name_span=name.span)
            case (names, e.Name(parts=("from",)), e.Text() | e.Name() as origin):
                listed = names.items if isinstance(names, e.ListOf) else (names,)
                wanted = tuple(n.parts[0] for n in listed if isinstance(n, e.Name) and len(n.parts) == 1)
                if wanted and len(wanted) == len(listed):
                    path = origin.value if isinstance(origin, e.Text) else origin.text
                    return m.Import(source=path, names=wanted, span=span, name_span=names.span)
            case _:
                pass
        self.malformed(head, "import", "NL0128")
        return None

    def let(self, head: _Head) -> m.Let | None:
        if head.value is None or len(head.words) != 2 or not isinstance(head.words[1], e.Name) or len(head.words[1].parts) != 1:
            self.malformed(head, "let")
            return None
        name = head.words[1]
        return m.Let(name=name.text, value=head.value, span=head.statement.span, name_span=name.span)

    # -- heads with a name, parameters and a body ------------------------------------------

    def named(self, head: _Head, word: str) -> tuple[e.Name, list[m.Parameter], e.Body] | None:
        """Name, parameters and body of `word Name(parameters) { }`, or None after a finding."""
        if head.body is None and not head.assigns and len(head.words) == 2:
            self.report(
                "NL0131", f"the {word} has no body", head.statement.span, "`{` is missing",
                help=f"it is written `{_FORMS[word]}`, with its `{{` on the same line",
            )  # fmt: skip
            return None
        if head.body is None or len(head.words) not in (2, 3):
            self.malformed(head, word)
            return None
        title = head.words[1]
        if len(head.words) == 3 and not self._spaced(title, head.words[2]):
            self.malformed(head, word)
            return None
        name = title.function if isinstance(title, e.Call) else title
        if not isinstance(name, e.Name) or len(name.parts) != 1:
            self.malformed(head, word)
            return None
        parameters = self.parameters(title.arguments) if isinstance(title, e.Call) else []
        return name, parameters, head.body

    def parameters(self, arguments: tuple[e.Argument, ...]) -> list[m.Parameter]:
        found: list[m.Parameter] = []
        places: dict[str, Span | None] = {}
        for argument in arguments:
            name = argument.name
            if name is None and isinstance(argument.value, e.Name):
                name = argument.value.text
            if name is None or "." in name:
                self.report(
                    "NL0130", f"`{print_expr(argument)}` cannot name a parameter", argument.span, "not a plain name",
                    help="a parameter is a name, or `name = default`",
                )  # fmt: skip
                continue
            if name in places:
                self.twice("NL0125", "parameter", name, argument.span, places[name])
                continue
            places[name] = argument.span
            default = None if argument.name is None else argument.value
            found.append(m.Parameter(name=name, default=default, span=argument.span))
        return found

    def assign(self, head: _Head, fields: _Fields, where: str, known: tuple[str, ...] = ()) -> None:
        """Take `name = value` into `fields`; anything else is a finding."""
        target = head.statement.target
        if head.statement.label is not None:
            self.unexpected_label(head.statement, where)
            return
        if head.value is None or target is None or not isinstance(target, e.Name) or len(target.parts) != 1:
            self.unknown(head, where, (*known, "name = value"))
            return
        name = target.text
        if name in fields.values:
            self.twice("NL0124", "field", name, target.span, fields.spans[name])
            return
        fields.values[name] = head.value
        fields.spans[name] = target.span

    # -- memories and rules ----------------------------------------------------------------

    def memory(self, head: _Head) -> m.Memory | None:
        parts = self.named(head, "memory")
        if parts is None:
            return None
        name, parameters, body = parts
        fields, chain = _Fields(), None
        chain_place: Span | None = None
        for statement in body.statements:
            inner = _head(statement)
            if inner.word != "chain" or (inner.assigns and len(inner.words) == 1):
                self.assign(inner, fields, "a memory", ("chain",))
            elif chain_place is not None:
                self.twice("NL0124", "field", "chain", inner.span, chain_place)
            else:
                chain_place = inner.span
                chain = self.chain(inner)
        return m.Memory(
            name=name.text, parameters=parameters, fields=fields.values, field_spans=fields.spans, chain=chain,
            span=head.statement.span, name_span=name.span,
        )  # fmt: skip

    def chain(self, head: _Head) -> m.Chain | None:
        kind = head.words[1] if len(head.words) == 2 else None
        name = kind.function if isinstance(kind, e.Call) else kind
        if head.body is None or not isinstance(name, e.Name) or len(name.parts) != 1:
            self.malformed(head, "chain")
            return None
        given = kind.arguments if isinstance(kind, e.Call) else ()
        arguments: dict[str, e.Expr] = {}
        for i, argument in enumerate(given):
            key = argument.name if argument.name is not None else str(i)
            if key in arguments:
                self.twice("NL0125", "parameter", key, argument.span, arguments[key].span)
            arguments.setdefault(key, argument.value)
        levels: list[m.Level] = []
        for statement in head.body.statements:
            inner = _head(statement)
            if inner.word == "level":
                self.add_level(inner, levels)
            else:
                self.unknown(inner, "a chain", ("level",))
        return m.Chain(variant=name.text, arguments=arguments, levels=levels, span=head.statement.span, name_span=name.span)

    def add_level(self, head: _Head, levels: list[m.Level]) -> None:
        parts = self.named(head, "level")
        if parts is None:
            return
        name, _, body = parts
        first = next((v for v in levels if v.name == name.text), None)
        if first is not None:
            self.twice("NL0126", "level", name.text, name.span, first.name_span)
            return
        fields = _Fields()
        for statement in body.statements:
            self.assign(_head(statement), fields, "a level")
        levels.append(
            m.Level(name=name.text, fields=fields.values, field_spans=fields.spans, span=head.statement.span, name_span=name.span)
        )

    def optimizer(self, head: _Head) -> m.Optimizer | None:
        parts = self.named(head, "optimizer")
        if parts is None:
            return None
        name, parameters, body = parts
        fields, memories = _Fields(), list[m.Memory]()
        otherwise: e.Expr | None = None
        for statement in body.statements:
            inner = _head(statement)
            word = inner.word if inner.word is not None else _first_word(statement)
            if word == "memory" and not inner.assigns:
                found = self.memory(inner)
                if found is None:
                    continue
                first = next((v for v in memories if v.name == found.name), None)
                if first is not None:
                    self.twice("NL0123", "memory", found.name, found.name_span, first.name_span)
                    continue
                memories.append(found)
            elif word == "otherwise" and statement.target is None:
                rest = _without_leading(statement.value, 1)
                if rest is None:
                    self.malformed(inner, "otherwise")
                elif otherwise is not None:
                    self.twice("NL0124", "field", "otherwise", statement.span, otherwise.span)
                else:
                    otherwise = rest
            else:
                self.assign(inner, fields, "an optimizer", ("memory", "otherwise"))
        return m.Optimizer(
            name=name.text, parameters=parameters, memories=memories, fields=fields.values, field_spans=fields.spans,
            otherwise=otherwise, span=head.statement.span, name_span=name.span,
        )  # fmt: skip

    # -- blocks and models -----------------------------------------------------------------

    def block(self, head: _Head) -> m.Block | None:
        return self._flow(head, "block", m.Block)

    def model(self, head: _Head) -> m.Model | None:
        return self._flow(head, "model", m.Model)

    def _flow(self, head: _Head, word: str, kind: Any) -> Any:
        parts = self.named(head, word)
        if parts is None:
            return None
        name, parameters, body = parts
        labels: dict[str, Span | None] = {}
        for statement in body.statements:
            label = statement.label
            if label is None:
                continue
            if label.text in labels:
                self.twice("NL0133", "label", label.text, label.span, labels[label.text])
            labels.setdefault(label.text, label.span)
        return kind(
            name=name.text, parameters=parameters, body=list(body.statements), span=head.statement.span, name_span=name.span
        )

    # -- training --------------------------------------------------------------------------

    def train(self, head: _Head) -> m.Train | None:
        parts = self.named(head, "train")
        if parts is None:
            return None
        name, parameters, body = parts
        if parameters:
            self.malformed(head, "train")
        fields, levels, evaluations = _Fields(), list[m.Level](), list[m.Evaluation]()
        for statement in body.statements:
            inner = _head(statement)
            if inner.word == "level" and not inner.assigns:
                self.add_level(inner, levels)
            elif inner.word == "eval" and not inner.assigns:
                self.evaluation(inner, evaluations)
            else:
                self.assign(inner, fields, "a train", ("level", "eval"))
        return m.Train(
            name=name.text, fields=fields.values, field_spans=fields.spans, levels=levels, evaluations=evaluations,
            span=head.statement.span, name_span=name.span,
        )  # fmt: skip

    def evaluation(self, head: _Head, evaluations: list[m.Evaluation]) -> None:
        bare = head.body is not None and all(s.target is None and s.label is None for s in head.body.statements)
        if head.body is None or len(head.words) < 2 or not bare:
            self.malformed(head, "eval")
            return
        measures = [s.value for s in head.body.statements]
        evaluations.append(m.Evaluation(clock=_phrase(head.words[1:]), measures=measures, span=head.statement.span))

    # -- studies ---------------------------------------------------------------------------

    def derived(self, head: _Head, word: str) -> tuple[e.Name, e.Name, e.Body] | None:
        match head.words[1:]:
            case (e.Name() as name, e.Name(parts=("of",)), e.Name() as base) if head.body is not None:
                return name, base, head.body
            case _:
                self.malformed(head, word)
                return None

    def variant(self, head: _Head) -> m.Variant | None:
        parts = self.derived(head, "variant")
        if parts is None:
            return None
        name, base, body = parts
        amendments: list[m.Amendment] = []
        for statement in body.statements:
            found = self.amendment(statement)
            if found is None:
                continue
            first = next((a for a in amendments if a.path == found.path and a.action == found.action), None)
            if first is not None:
                self.twice("NL0124", "amendment", f"{found.action} {found.path}", found.path_span, first.path_span)
                continue
            amendments.append(found)
        return m.Variant(
            name=name.text, base=base.text, base_span=base.span, amendments=amendments, span=head.statement.span,
            name_span=name.span,
        )  # fmt: skip

    def amendment(self, statement: e.Statement) -> m.Amendment | None:
        head = _head(statement)
        word = head.word if head.word is not None else _first_word(statement)
        span = statement.span
        if word in ("set", "add"):
            if head.value is not None and len(head.words) == 2 and isinstance(head.words[1], e.Name):
                path = head.words[1]
                return m.Amendment(action=word, path=path.text, value=head.value, path_span=path.span, span=span)
        elif word == "remove":
            if head.value is None and len(head.words) == 2 and isinstance(head.words[1], e.Name):
                path = head.words[1]
                return m.Amendment(action="remove", path=path.text, path_span=path.span, span=span)
        elif word == "replace":
            left = _leftmost(statement.value)
            words = left.words if isinstance(left, e.Phrase) else ()
            if statement.target is None and len(words) > 3 and isinstance(words[1], e.Name) and _is_word(words[2], "by"):
                value = _without_leading(statement.value, 3)
                return m.Amendment(action="replace", path=words[1].text, value=value, path_span=words[1].span, span=span)
        else:
            self.unknown(head, "a variant", ("set", "add", "remove", "replace"))
            return None
        self.malformed(head, word, "NL0129")
        return None

    def ablate(self, head: _Head) -> m.Ablate | None:
        parts = self.derived(head, "ablate")
        if parts is None:
            return None
        name, base, body = parts
        fields, axes = _Fields(), list[m.Axis]()
        keep: e.Expr | None = None
        for statement in body.statements:
            inner = _head(statement)
            word = inner.word if inner.word is not None else _first_word(statement)
            if word in ("without", "vary", "grid", "zip"):
                axis = self.axis(inner, word)
                if axis is not None:
                    axes.append(axis)
            elif word == "keep" and statement.target is None:
                rest = _without_leading(statement.value, 1)
                if rest is None:
                    self.malformed(inner, "keep")
                elif keep is not None:
                    self.twice("NL0124", "field", "keep", statement.span, keep.span)
                else:
                    keep = rest
            else:
                self.assign(inner, fields, "an ablate", ("without", "vary", "grid", "zip", "keep"))
        return m.Ablate(
            name=name.text, base=base.text, base_span=base.span, axes=axes, keep=keep, fields=fields.values,
            field_spans=fields.spans, span=head.statement.span, name_span=name.span,
        )  # fmt: skip

    def axis(self, head: _Head, word: Any) -> m.Axis | None:
        value = head.value
        rest = head.words[1:]
        span = head.statement.span
        if not isinstance(value, e.ListOf):
            self.malformed(head, word)
            return None
        if word == "without" and not rest:
            names = value.items
        elif word == "vary" and len(rest) == 1:
            names = rest
        elif word in ("grid", "zip") and len(rest) == 1 and isinstance(rest[0], e.ListOf):
            names = rest[0].items
        else:
            self.malformed(head, word)
            return None
        paths = [n for n in names if isinstance(n, e.Name)]
        values = self._axis_values(word, value)
        if len(paths) != len(names) or values is None or (word in ("grid", "zip") and len(values) != len(paths)):
            self.malformed(head, word)
            return None
        return m.Axis(action=word, paths=[p.text for p in paths], path_spans=[p.span for p in paths], values=values, span=span)

    def _axis_values(self, word: str, value: e.ListOf) -> list[list[e.Expr]] | None:
        if word == "without":
            return []
        if word == "vary":
            return [list(value.items)]
        rows = [list(i.items) for i in value.items if isinstance(i, e.ListOf)]
        return rows if len(rows) == len(value.items) else None

    # -- calls with a space ----------------------------------------------------------------

    def find_spaced_calls(self, body: e.Expr) -> None:
        """Report every `name (arguments)`: a call is a name that touches its parenthesis."""
        stack: list[e.Expr] = [body]
        while stack:
            node = stack.pop()
            if isinstance(node, e.Phrase):
                for left, right in zip(node.words, node.words[1:], strict=False):
                    if self._spaced(left, right):
                        self.spaced_call(left, right)
            stack.extend(node.children())

    def _spaced(self, left: e.Expr, right: e.Expr) -> bool:
        if not isinstance(left, e.Name) or left.text in CONNECTIVES or right.span is None or isinstance(right, e.Quantity):
            return False
        text = right.span.source.text
        return right.span.start < len(text) and text[right.span.start] == "("

    def spaced_call(self, left: e.Expr, right: e.Expr) -> None:
        assert left.span is not None and right.span is not None
        gap = Span(left.span.source, left.span.end, right.span.start)
        self.report(
            "NL0127", f"`{print_expr(left)}` and its parenthesis are two words", _join(left.span, right.span), "a space in a call",
            help="a call is a name that touches its parenthesis", fix=Fix("remove the space", (Edit(gap, ""),)),
        )  # fmt: skip


def _first_word(statement: e.Statement) -> str | None:
    left = _leftmost(statement.value)
    return left.head if isinstance(left, e.Phrase) else None
