"""YAML to the statement tree: the second surface of a spec, with nothing that `.nl` text does not have.

A YAML spec is YAML 1.2 whose scalars hold the same little expressions as `.nl` text:

| in `.nl` text                       | in YAML                                    |
|-------------------------------------|--------------------------------------------|
| `field = value`, `set a.b = 1`      | `field: value`, `set a.b: 1`               |
| `vary A.rule = [gd, dgd]`           | `vary A.rule: [gd, dgd]`                   |
| `without = [A.b, [C.d, E.f]]`       | `without: [A.b, [C.d, E.f]]`               |
| `level fast { ... }`                | `level fast: { ... }`, or an indented body |
| `edition 2026`, `keep p within 2%`  | `edition: 2026`, `keep: p within 2%`       |
| `otherwise adamw(rate)`             | `otherwise: adamw(rate)`                   |
| `remove a.b`, `import [A] from std` | `remove a.b:`, `import [A] from std:`      |
| statements of a `block` or `model`  | a list                                     |
| `y = x * 2` in such a list          | `- y = x * 2`                              |
| `mixer: x = x + a` in such a list   | `- mixer: x = x + a`                       |
| `segments(64) { ... }` in it        | `- segments(64): [...]`                    |

So a key with a value assigns, a key with a mapping (or a list) is a head with a body, and a key with
nothing is a statement of its own.  A list is a list of values behind a plain name and behind `set`, `add`,
`let`, `vary`, `replace`, `grid` and `zip`; elsewhere it is a body.  Quotes of YAML are YAML's: a string of
the language is written `'"sotu"'`, or inside an expression, as in `text("sotu")`.  Anything, comments
included, may also be given as `.nl` text in a block scalar (`|`).  Anchors, aliases, tags and several
documents in one file are findings.

Non-goals: what statements mean; see `elaborate`.  Writing YAML: see `yaml_writer`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from nldsl.diagnostics.model import Diagnostic, Label, Source, Span
from nldsl.document import expr as e
from nldsl.syntax.comments import Comment, CommentBook, Draft, comment_text
from nldsl.syntax.moving import move_tree, moved_finding
from nldsl.syntax.nesting import MAX_NESTING, nested_too_deep
from nldsl.syntax.parse import parse_statements
from nldsl.syntax.yaml_writer import assigns_list, joins_value, to_yaml

__all__ = ["parse_yaml", "to_yaml"]


@dataclass(slots=True)
class _Node:
    """A YAML node: a scalar with its `value`, or a mapping or list (keys and values alternate)."""

    kind: str
    start: int
    end: int
    value: str = ""
    style: str | None = None
    flow: bool = False
    items: list[_Node] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return self.kind == "scalar" and self.value == "" and self.style is None


class _TooDeep(Exception):
    """The file nests deeper than a spec may; the finding is recorded."""


def parse_yaml(source: Source) -> tuple[e.Body, list[Diagnostic]]:
    """The statements of a YAML spec with every syntax finding; spans point into the YAML text."""
    reader = _Reader(source)
    nothing = e.Body((), span=Span(source, 0, len(source.text)))
    try:
        root = reader.compose()
    except _TooDeep:
        return nothing, reader.findings
    except MarkedYAMLError as stop:
        return nothing, [*reader.findings, _yaml_finding(source, stop)]
    except YAMLError as stop:
        whole = Span(source, 0, min(1, len(source.text)))
        said = str(stop).splitlines()[0] if str(stop) else "it cannot be read"
        return nothing, [Diagnostic("NL0140", f"the file is not YAML: {said}", (Label(whole),))]
    if root is None or root.empty:
        message = "the file holds no declaration"
        label = Label(Span(source, 0, min(1, len(source.text))), "nothing to compile")
        return nothing, [
            *reader.findings,
            Diagnostic("NL0001", message, (label,), help="a spec starts with `edition: 2026`"),
        ]
    body = reader.body(root, 0, len(source.text))
    return body, sorted(reader.findings, key=lambda d: d.labels[0].span.start if d.labels else 0)


def _yaml_finding(source: Source, stop: MarkedYAMLError) -> Diagnostic:
    mark = stop.problem_mark or stop.context_mark
    at = min(mark.index, len(source.text)) if mark is not None else 0
    labels = [Label(Span(source, at, min(at + 1, len(source.text))), "here")]
    if stop.context_mark is not None and stop.context_mark.index != at:
        begin = stop.context_mark.index
        labels.append(Label(Span(source, begin, begin + 1), str(stop.context or "")))
    return Diagnostic("NL0140", f"the file is not YAML: {stop.problem or stop.context}", tuple(labels))


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.findings: list[Diagnostic] = []
        self.scalars: list[tuple[int, int]] = []

    def report(
        self, code: str, message: str, start: int, end: int, label: str = "", help: str | None = None
    ) -> None:
        self.findings.append(
            Diagnostic(code, message, (Label(Span(self.source, start, end), label),), help=help)
        )

    # -- YAML to nodes -------------------------------------------------------------------

    def compose(self) -> _Node | None:
        """The root node; comments are collected on the way."""
        text = self.source.text
        root: _Node | None = None
        stack: list[_Node] = []
        documents = 0
        for event in YAML(typ="safe", pure=True).parse(text):
            node: _Node | None = None
            match event:
                case DocumentStartEvent():
                    documents += 1
                    if documents == 2:
                        at = event.start_mark.index
                        self.report(
                            "NL0142",
                            "a spec is one YAML document",
                            at,
                            at + 3,
                            "a second one begins",
                            "remove the `---`",
                        )
                case ScalarEvent() | AliasEvent():
                    node = self._leaf(event)
                case MappingStartEvent() | SequenceStartEvent():
                    self._judge(event)
                    kind = "map" if isinstance(event, MappingStartEvent) else "seq"
                    at = event.start_mark.index
                    node = _Node(kind, at, at, flow=bool(event.flow_style))
                case MappingEndEvent() | SequenceEndEvent():
                    done = stack.pop()
                    done.end = self._end_of(done, event.end_mark.index)
                case _:
                    pass
            if node is None:
                continue
            if stack:
                stack[-1].items.append(node)
            elif documents <= 1:
                root = node
            if node.kind != "scalar":
                stack.append(node)
            if len(stack) > MAX_NESTING:
                at = event.start_mark.index
                self.findings.append(nested_too_deep(Span(self.source, at, at + 1)))
                raise _TooDeep
        self.book = CommentBook(text, self._comments())
        return root

    def _end_of(self, node: _Node, mark: int) -> int:
        if node.flow or not node.items:
            return mark
        return node.items[-1].end

    def _judge(self, event: Any) -> None:
        at = event.start_mark.index
        if getattr(event, "anchor", None) is not None:
            self.report(
                "NL0142",
                f"the anchor `&{event.anchor}` has no meaning in a spec",
                at,
                at + 1,
                "an anchor",
                _REUSE,
            )
        if getattr(event, "tag", None) is not None:
            self.report("NL0142", f"the tag `{event.tag}` has no meaning in a spec", at, at + 1, "a tag")

    def _leaf(self, event: Any) -> _Node:
        start, end = event.start_mark.index, event.end_mark.index
        if isinstance(event, AliasEvent):
            self.report(
                "NL0142",
                f"the alias `*{event.anchor}` has no meaning in a spec",
                start,
                end,
                "an alias",
                _REUSE,
            )
            return _Node("scalar", start, end, "alias")
        self._judge(event)
        block = event.style in ("|", ">")
        if block:
            start = self.source.text.index(event.style, start)
            head = self.source.text.find("\n", start)
            end = min(end, len(self.source.text))
            end = start + len(self.source.text[start:end].rstrip())
            self.scalars.append((head if head >= 0 else end, end))
        elif end > start:
            self.scalars.append((start, end))
        value = event.value.rstrip("\n") if block else event.value
        return _Node("scalar", start, end, value, event.style or None)

    def _comments(self) -> list[Comment]:
        """Every `#` outside of scalars that starts a comment."""
        text, found, at = self.source.text, [], 0
        for start, end in [*self.scalars, (len(text), len(text))]:
            while (mark := text.find("#", at, start)) >= 0:
                line_end = text.find("\n", mark)
                at = len(text) if line_end < 0 else line_end
                if mark == 0 or text[mark - 1] in " \t\n\r":
                    found.append(Comment(mark, at, comment_text(text[mark:at])))
            at = max(at, end)
        return found

    # -- nodes to statements -------------------------------------------------------------

    def body(self, node: _Node, start: int, end: int) -> e.Body:
        """The body that a mapping or list stands for; `[start, end)` is where its comments may be."""
        if node.kind == "map":
            drafts = self._mapping(node)
        elif node.kind == "seq":
            drafts = [d for d in map(self._item, node.items) if d is not None]
        else:
            drafts = []
            self.report(
                "NL0143", "a mapping or a list is expected here", node.start, node.end, "a single value"
            )
        statements, closing = self.book.finish(drafts, start, end)
        span = Span(self.source, node.start, node.end)
        return e.Body(statements, span=span, closing_comments=closing, inline=node.flow and not closing)

    def _mapping(self, node: _Node) -> list[Draft]:
        drafts: list[Draft] = []
        seen: dict[str, _Node] = {}
        for key, value in zip(node.items[::2], node.items[1::2], strict=True):
            if key.kind != "scalar" or key.value == "<<":
                self.report(
                    "NL0142", "a key is a plain line of text", key.start, key.end, "not a plain key", _REUSE
                )
                continue
            name = " ".join(key.value.split())
            if name in seen:
                self._twice(name, key, seen[name])
                continue
            seen[name] = key
            draft = self._entry(key, value)
            if draft is not None:
                drafts.append(draft)
        return drafts

    def _twice(self, name: str, key: _Node, first: _Node) -> None:
        labels = (
            Label(Span(self.source, key.start, key.end), "given again here"),
            Label(Span(self.source, first.start, first.end), "first given here"),
        )
        self.findings.append(
            Diagnostic(
                "NL0141",
                f"the key `{name}` stands twice in one mapping",
                labels,
                help="a list may repeat statements",
            )
        )

    def _entry(self, key: _Node, value: _Node) -> Draft | None:
        if value.kind == "scalar" and joins_value(key.value) and not value.empty:
            return self._joined(key, value)
        if value.empty:
            return self._statement(key)
        head = self._value(key)
        if head is None:
            return None
        if value.kind == "map" or (value.kind == "seq" and not assigns_list(head)):
            return self._headed(head, key, value)
        right = self._list(value) if value.kind == "seq" else self._value(value)
        if right is None:
            return None
        return self._draft(key.start, value, right, target=head)

    def _item(self, item: _Node) -> Draft | None:
        if item.kind == "scalar":
            return self._statement(item)
        if item.kind == "seq" or len(item.items) != 2:
            self.report(
                "NL0143", "an item of a list is one statement", item.start, item.end, "not one statement"
            )
            return None
        key, value = item.items
        if value.kind != "scalar":
            head = self._value(key)
            return None if head is None else self._headed(head, key, value)
        name = self._value(key)
        if name is None:
            return None
        if not isinstance(name, e.Name) or value.empty:
            help = "a key in a list is a label, as in `- mixer: x = x + a`"
            self.report("NL0143", f"`{key.value}` is not a label", key.start, key.end, "not one word", help)
            return None
        inner = self._statement(value)
        if inner is None or inner.value is None:
            return None
        if inner.label is not None:
            self.report("NL0143", "a statement has one label", value.start, value.end, "a second label")
            return None
        return replace(
            inner, start=key.start, label=name, span=Span(self.source, key.start, value.end),
            head_end=inner.head_end,
        )  # fmt: skip

    def _headed(self, head: e.Expr, key: _Node, value: _Node) -> Draft:
        inner_end = value.end if value.flow else self._tail(value)
        body = self.body(value, value.start, inner_end)
        words = head.words if isinstance(head, e.Phrase) else (head,)
        span = Span(self.source, key.start, value.end)
        phrase = e.Phrase((*words, body), span=span)
        end = value.end if not body.closing_comments else inner_end
        return Draft(key.start, end, phrase, span=span, head_end=None if value.flow else key.end)

    def _tail(self, node: _Node) -> int:
        """Where a block body ends, comments below it that are indented as it is included."""
        text = self.source.text
        column = node.start - (text.rfind("\n", 0, node.start) + 1)
        last_line_end = text.find("\n", node.end)
        end = len(text) if last_line_end < 0 else last_line_end
        while last_line_end >= 0:
            start = last_line_end + 1
            last_line_end = text.find("\n", start)
            line = text[start : len(text) if last_line_end < 0 else last_line_end]
            bare = line.lstrip(" ")
            if bare.strip() and (not bare.startswith("#") or len(line) - len(bare) < column):
                break
            if bare.strip():
                end = start + len(line)
        return end

    def _draft(self, start: int, value: _Node, right: e.Expr, target: e.Expr | None = None) -> Draft:
        span = Span(self.source, start, value.end)
        head_end = value.start + 1 if value.style in ("|", ">") else None
        return Draft(start, value.end, right, target, span=span, head_end=head_end)

    def _list(self, node: _Node) -> e.ListOf | None:
        items: list[e.Expr] = []
        for item in node.items:
            if item.kind == "map":
                self.report("NL0143", "a list of values holds no mapping", item.start, item.end, "a mapping")
                return None
            value = self._list(item) if item.kind == "seq" else self._value(item)
            if value is None:
                return None
            items.append(value)
        return e.ListOf(tuple(items), span=Span(self.source, node.start, node.end))

    # -- scalars -------------------------------------------------------------------------

    def _value(self, node: _Node) -> e.Expr | None:
        """The one value that a scalar holds."""
        body = self._read(node, node.value)
        if body is None:
            return None
        if (
            len(body.statements) != 1
            or body.statements[0].target is not None
            or body.statements[0].label is not None
        ):
            said = (
                "a value is missing" if not body.statements else f"expected one value, found `{node.value}`"
            )
            help = "a value that holds `,` or `=` outside of parentheses is not one value"
            code = "NL0106" if not body.statements else "NL0107"
            self.report(
                code, said, node.start, node.end, "not a single value", help if body.statements else None
            )
            return None
        return body.statements[0].value

    def _statement(self, node: _Node) -> Draft | None:
        """The one statement that a scalar spells."""
        return self._single(self._read(node, node.value), node, node.start)

    def _joined(self, key: _Node, value: _Node) -> Draft | None:
        """`keep: parameters within 2%` as `keep parameters within 2%`."""
        lead = key.value + " "
        return self._single(self._read(value, lead + value.value, key), value, key.start)

    def _single(self, body: e.Body | None, node: _Node, start: int) -> Draft | None:
        if body is None:
            return None
        if len(body.statements) != 1:
            self.report(
                "NL0143", "expected one statement", node.start, node.end, f"{len(body.statements)} statements"
            )
            return None
        inner = body.statements[0]
        draft = self._draft(start, node, inner.value, inner.target)
        draft.label = inner.label
        draft.inner_comments = (*inner.comments, *body.closing_comments)
        draft.inner_trailing = inner.trailing
        return draft

    def _read(self, node: _Node, text: str, key: _Node | None = None) -> e.Body | None:
        """The statements of a scalar's text, which may begin with the `key` in front of it."""
        local = Source(self.source.name, text)
        body, findings = parse_statements(local)
        place = self._places(node)
        if key is not None:
            place = self._behind(key, place)
        exact = node.style in (None, "'", '"', "|")
        self.findings += [moved_finding(d, place, exact) for d in findings]
        if findings:
            return None
        move_tree(body, place)
        return body

    def _behind(self, key: _Node, place: Callable[[Span], Span]) -> Callable[[Span], Span]:
        """Like `place`, for text that begins with the word of `key` and a space."""
        lead = len(key.value) + 1

        def moved(span: Span) -> Span:
            start, end = max(0, span.start - lead), max(0, span.end - lead)
            inside = place(Span(span.source, start, end))
            if span.start >= lead:
                return inside
            return Span(self.source, key.start, inside.end if end else key.end)

        return moved

    def _places(self, node: _Node) -> Callable[[Span], Span]:
        """How a span of a scalar's text becomes a span of the file."""
        source, text = self.source, self.source.text
        start = node.start + (1 if node.style in ("'", '"') else 0)
        if text.startswith(node.value, start):
            return lambda s: Span(source, start + s.start, start + s.end)
        lines = _block_lines(text, node) if node.style == "|" else None
        if lines is not None:
            local = Source("", node.value)

            def place(span: Span) -> Span:
                ends: list[int] = []
                for offset in (span.start, span.end):
                    row, column = local.position(min(offset, len(node.value)))
                    ends.append(lines[row - 1] + column - 1)
                return Span(source, ends[0], ends[1])

            return place
        return lambda _: Span(source, node.start, node.end)


_REUSE = "`let`, parameters and `variant` say what is shared"


def _block_lines(text: str, node: _Node) -> list[int] | None:
    """Where each line of a literal block begins in the file, or None if that is not plain to see."""
    begin = text.find("\n", node.start) + 1
    wanted = node.value.split("\n")
    raw = text[begin : node.end].split("\n")
    first = next((line for line in raw if line.strip()), "")
    indent = len(first) - len(first.lstrip(" "))
    if len(raw) < len(wanted):
        return None
    starts: list[int] = []
    for line, said in zip(raw, wanted, strict=False):
        if line[indent:].rstrip("\r") != said.rstrip("\r"):
            return None
        starts.append(begin + min(indent, len(line)))
        begin += len(line) + 1
    return starts
