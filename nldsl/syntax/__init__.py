"""From the text of a spec, in `.nl` or YAML, to the document; never stopping at the first mistake."""

from __future__ import annotations

from nldsl.diagnostics.model import Diagnostic, Source
from nldsl.document.expr import Body
from nldsl.document.model import Document

YAML_SUFFIXES = (".yaml", ".yml")


def is_yaml(source: Source) -> bool:
    """Whether a source is YAML, judged by its name."""
    return source.name.lower().endswith(YAML_SUFFIXES)


def parse_body(source: Source) -> tuple[Body, list[Diagnostic]]:
    """The statement tree of a spec in either surface, and what is wrong with its text."""
    if is_yaml(source):
        from nldsl.syntax.yaml import parse_yaml

        return parse_yaml(source)
    from nldsl.syntax.parse import parse_nl

    return parse_nl(source)


def read(source: Source) -> tuple[Document, list[Diagnostic]]:
    """The document of a spec in either surface (by suffix), and every finding of syntax and form."""
    from nldsl.syntax.elaborate import elaborate

    body, findings = parse_body(source)
    document, more = elaborate(body, source)
    return document, findings + more


__all__ = ["YAML_SUFFIXES", "is_yaml", "parse_body", "read"]
