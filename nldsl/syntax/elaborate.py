"""Statements to the document: which head word declares what, and which fields a declaration has.

Non-goals: no name is looked up and no value is evaluated; fields are judged by the checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl.diagnostics.model import Diagnostic, Edit, Fix, Source, Span
from nldsl.diagnostics.suggest import did_you_mean
from nldsl.document import expr as e
from nldsl.document import model as m
from nldsl.document.printer import print_expr
from nldsl.syntax.heads import Fields, Head, first_word, head_of, phrase_of, without_leading
from nldsl.syntax.studies import Studies

EDITIONS = (2026,)
DECLARATIONS = (
    *("edition", "import", "let", "memory", "optimizer", "block", "model", "train", "variant", "ablate"),
)


def elaborate(body: e.Body, source: Source) -> tuple[m.Document, list[Diagnostic]]:
    """The document that the statements of a file declare, with a finding for each that declares nothing."""
    worker = _Elaborator(source)
    document = worker.document(body)
    worker.find_spaced_calls(body)
    return document, worker.findings


class _Elaborator(Studies):
    # -- files ---------------------------------------------------------------------------

    def document(self, body: e.Body) -> m.Document:
        edition: int | None = None
        seen_edition: Span | None = None
        imports: list[m.Import] = []
        declarations: list[Any] = []
        places: dict[str, Span | None] = {}
        makers: dict[str, Callable[[Head], Any]] = {
            "let": self.let, "memory": self.memory, "optimizer": self.optimizer, "block": self.block,
            "model": self.model, "train": self.train, "variant": self.variant, "ablate": self.ablate,
        }  # fmt: skip
        for statement in body.statements:
            head = head_of(statement)
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
        return m.Document.model_construct(
            edition=edition, imports=imports, declarations=declarations, span=body.span
        )

    def declared(self, name: str, span: Span | None, places: dict[str, Span | None]) -> None:
        if name in places:
            self.twice("NL0123", "declaration", name, span, places[name])
        places.setdefault(name, span)

    def imported(self, found: m.Import, places: dict[str, Span | None]) -> None:
        for name in (*found.names, *((found.alias,) if found.alias else ())):
            self.declared(name, found.where(), places)

    def unknown_declaration(self, head: Head) -> None:
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

    def edition(self, head: Head) -> int | None:
        year = head.words[1] if len(head.words) == 2 and not head.assigns and head.body is None else None
        if not isinstance(year, e.Number):
            self.malformed(head, "edition")
            return None
        if year.value not in EDITIONS:
            known = ", ".join(str(y) for y in EDITIONS)
            self.report(
                "NL0003",
                f"there is no edition {print_expr(year)}",
                year.span,
                "unknown year",
                help=f"known: {known}",
            )
            return None
        return int(year.value)

    def import_(self, head: Head) -> m.Import | None:
        span = head.statement.span
        match head.words[1:]:
            case _ if head.assigns or head.body is not None:
                pass
            case (e.Text(value=path), e.Name(parts=("as",)), e.Name(parts=(alias,)) as name):
                return m.Import.model_construct(source=path, alias=alias, span=span, name_span=name.span)
            case (e.Name(parts=("std",)), e.Name(parts=("as",)), e.Name(parts=(alias,)) as name):
                return m.Import.model_construct(source="std", alias=alias, span=span, name_span=name.span)
            case (names, e.Name(parts=("from",)), e.Text() | e.Name() as origin):
                listed = names.items if isinstance(names, e.ListOf) else (names,)
                wanted = tuple(n.parts[0] for n in listed if isinstance(n, e.Name) and len(n.parts) == 1)
                if wanted and len(wanted) == len(listed):
                    path = origin.value if isinstance(origin, e.Text) else origin.text
                    return m.Import.model_construct(
                        source=path, names=wanted, span=span, name_span=names.span
                    )
            case _:
                pass
        self.malformed(head, "import", "NL0128")
        return None

    def let(self, head: Head) -> m.Let | None:
        if (
            head.value is None
            or len(head.words) != 2
            or not isinstance(head.words[1], e.Name)
            or len(head.words[1].parts) != 1
        ):
            self.malformed(head, "let")
            return None
        name = head.words[1]
        return m.Let.model_construct(
            name=name.text, value=head.value, span=head.statement.span, name_span=name.span
        )

    # -- memories and rules ----------------------------------------------------------------

    def memory(self, head: Head) -> m.Memory | None:
        parts = self.named(head, "memory")
        if parts is None:
            return None
        name, parameters, body = parts
        fields, chain = Fields(), None
        chain_place: Span | None = None
        for statement in body.statements:
            inner = head_of(statement)
            if inner.word != "chain" or (inner.assigns and len(inner.words) == 1):
                self.assign(inner, fields, "a memory", ("chain",))
            elif chain_place is not None:
                self.twice("NL0124", "field", "chain", inner.span, chain_place)
            else:
                chain_place = inner.span
                chain = self.chain(inner)
        return m.Memory.model_construct(
            name=name.text, parameters=parameters, fields=fields.values, field_spans=fields.spans,
            chain=chain, span=head.statement.span, name_span=name.span,
        )  # fmt: skip

    def chain(self, head: Head) -> m.Chain | None:
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
            inner = head_of(statement)
            if inner.word == "level":
                self.add_level(inner, levels)
            else:
                self.unknown(inner, "a chain", ("level",))
        return m.Chain.model_construct(
            variant=name.text,
            arguments=arguments,
            levels=levels,
            span=head.statement.span,
            name_span=name.span,
        )

    def add_level(self, head: Head, levels: list[m.Level]) -> None:
        parts = self.named(head, "level")
        if parts is None:
            return
        name, _, body = parts
        first = next((v for v in levels if v.name == name.text), None)
        if first is not None:
            self.twice("NL0126", "level", name.text, name.span, first.name_span)
            return
        fields = Fields()
        for statement in body.statements:
            self.assign(head_of(statement), fields, "a level")
        levels.append(
            m.Level.model_construct(
                name=name.text,
                fields=fields.values,
                field_spans=fields.spans,
                span=head.statement.span,
                name_span=name.span,
            )
        )

    def optimizer(self, head: Head) -> m.Optimizer | None:
        parts = self.named(head, "optimizer")
        if parts is None:
            return None
        name, parameters, body = parts
        fields, memories = Fields(), list[m.Memory]()
        otherwise: e.Expr | None = None
        for statement in body.statements:
            inner = head_of(statement)
            word = inner.word if inner.word is not None else first_word(statement)
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
                rest = without_leading(statement.value, 1)
                if rest is None:
                    self.malformed(inner, "otherwise")
                elif otherwise is not None:
                    self.twice("NL0124", "field", "otherwise", statement.span, otherwise.span)
                else:
                    otherwise = rest
            else:
                self.assign(inner, fields, "an optimizer", ("memory", "otherwise"))
        return m.Optimizer.model_construct(
            name=name.text, parameters=parameters, memories=memories, fields=fields.values,
            field_spans=fields.spans,
            otherwise=otherwise, span=head.statement.span, name_span=name.span,
        )  # fmt: skip

    # -- blocks and models -----------------------------------------------------------------

    def block(self, head: Head) -> m.Block | None:
        return self._flow(head, "block", m.Block)

    def model(self, head: Head) -> m.Model | None:
        return self._flow(head, "model", m.Model)

    def _flow(self, head: Head, word: str, kind: Any) -> Any:
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
        return kind.model_construct(
            name=name.text,
            parameters=parameters,
            body=list(body.statements),
            span=head.statement.span,
            name_span=name.span,
        )

    # -- training --------------------------------------------------------------------------

    def train(self, head: Head) -> m.Train | None:
        parts = self.named(head, "train")
        if parts is None:
            return None
        name, parameters, body = parts
        if parameters:
            self.malformed(head, "train")
        fields, levels, evaluations = Fields(), list[m.Level](), list[m.Evaluation]()
        for statement in body.statements:
            inner = head_of(statement)
            if inner.word == "level" and not inner.assigns:
                self.add_level(inner, levels)
            elif inner.word == "eval" and not inner.assigns:
                self.evaluation(inner, evaluations)
            else:
                self.assign(inner, fields, "a train", ("level", "eval"))
        return m.Train.model_construct(
            name=name.text, fields=fields.values, field_spans=fields.spans, levels=levels,
            evaluations=evaluations, span=head.statement.span, name_span=name.span,
        )  # fmt: skip

    def evaluation(self, head: Head, evaluations: list[m.Evaluation]) -> None:
        bare = head.body is not None and all(
            s.target is None and s.label is None for s in head.body.statements
        )
        if head.body is None or len(head.words) < 2 or not bare:
            self.malformed(head, "eval")
            return
        measures = [s.value for s in head.body.statements]
        evaluations.append(
            m.Evaluation.model_construct(
                clock=phrase_of(head.words[1:]), measures=measures, span=head.statement.span
            )
        )
