"""Spans and findings of text that was read by itself, such as a scalar of YAML, moved to its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nldsl.diagnostics.model import Diagnostic, Edit, Fix, Span
from nldsl.document import expr as e


def moved_finding(finding: Diagnostic, place: Callable[[Span], Span], exact: bool) -> Diagnostic:
    """A finding in text that was cut out, in the file; its edits only where places are `exact`."""
    labels = tuple(replace(label, span=place(label.span)) for label in finding.labels)
    fix = None
    if finding.fix is not None and exact:
        edits = tuple(Edit(place(edit.span), edit.text) for edit in finding.fix.edits)
        fix = Fix(finding.fix.title, edits, finding.fix.safe)
    return replace(finding, labels=labels, fix=fix)


def move_tree(body: e.Body, place: Callable[[Span], Span]) -> None:
    """Point every span below `body`, which was just read and is not shared, into the file."""
    stack: list[e.Expr] = [body]
    while stack:
        node = stack.pop()
        if node.span is not None:
            object.__setattr__(node, "span", place(node.span))
        if isinstance(node, e.Call):
            stack.append(node.function)
        stack.extend(c for c in node.children() if not (isinstance(node, e.Call) and c is node.function))
