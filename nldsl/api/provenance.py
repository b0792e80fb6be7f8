"""Where each value of a spec came from: a line of a file, a variant, `--set`, or the edition's defaults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nldsl.diagnostics.model import Span
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve import Module

DEFAULT_EDITION = 2026


@dataclass(frozen=True, slots=True)
class Origin:
    """Who wrote a value: `who` is what two values of one author share, `text` what people see."""

    who: str
    text: str


class Provenance:
    """Tells origins by spans: every value that someone wrote knows its place, and a default has none."""

    def __init__(self, module: Module) -> None:
        self.default = Origin("default", f"default (edition {module.document.edition or DEFAULT_EDITION})")
        self.shown = {m.source.name: _shown(m) for m in modules(module)}
        self.variants = list(_amended(module))

    def of_span(self, span: Span | None) -> Origin:
        """The origin of what stands at `span`."""
        if span is None:
            return self.default
        name = span.source.name
        if name.startswith("--set "):
            return Origin(name, "--set")
        place = f"{self.shown.get(name, name)}:{span.source.position(span.start)[0]}"
        for variant, value in self.variants:
            if value.source == span.source and value.start <= span.start < value.end:
                return Origin(f"variant {variant}", f"variant {variant}, {place}")
        return Origin(name, place)

    def of(self, node: e.Expr) -> Origin:
        """The origin of a value: of the first of its parts that stands in a text."""
        return self.of_span(next((n.span for n in node.walk() if n.span is not None), None))

    def remark(self, value: e.Expr, span: Span | None = None) -> str:
        """The origin of a value in words, and of those parts of it that came from elsewhere."""
        whole = self.of(value) if span is None else self.of_span(span)
        return self.together(whole, self.parts(value, whole, ""))

    def together(self, whole: Origin, parts: list[tuple[str, Origin]]) -> str:
        """`hope.nl:3; length: variant Tiny, hope.nl:30`."""
        words: dict[str, list[str]] = {}
        for name, origin in sorted(parts, key=lambda part: part[1] == self.default):  # defaults last
            words.setdefault(origin.text, []).append(name)
        return "; ".join(
            [whole.text, *(f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in words.items())]
        )

    def parts(self, node: e.Expr, whole: Origin, name: str) -> list[tuple[str, Origin]]:
        """The outermost parts of `node` that are not of the origin `whole`, by name."""
        found: list[tuple[str, Origin]] = []
        known = _argument_names(node)
        for child in node.children():
            if isinstance(child, e.Name) and isinstance(node, e.Call) and child is node.function:
                continue
            label = known.get(id(child)) or name
            origin = self.of(child)
            if origin.who != whole.who:
                found.append((label or _short(child), origin))
            else:
                found += self.parts(child, origin, label if isinstance(child, e.Argument) else "")
        return found


def _argument_names(node: e.Expr) -> dict[int, str]:
    if not isinstance(node, e.Call):
        return {}
    return {id(a): a.name for a in node.arguments if a.name is not None}


def _short(node: e.Expr) -> str:
    if isinstance(node, e.Statement) and isinstance(node.target, e.Name):
        return node.target.text
    text = print_expr(node)
    return f"`{text}`" if len(text) <= 24 else f"`{text[:21]}...`"


def _shown(module: Module) -> str:
    return module.source.name if module.path.startswith("std/") else module.path


def modules(module: Module) -> Iterator[Module]:
    """The module and all that it imports, each once."""
    seen: dict[int, Module] = {}
    waiting = [module]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen[id(one)] = one
        yield one
        waiting += [m for m, _ in one.imported.values()]
        waiting += one.aliases.values()
        waiting += one.rules.loaded.values()


def _amended(module: Module) -> Iterator[tuple[str, Span]]:
    for declaration in module.document.declarations:
        if isinstance(declaration, doc.Variant):
            for amendment in declaration.amendments:
                if amendment.value is not None and amendment.value.span is not None:
                    yield declaration.name, amendment.value.span
