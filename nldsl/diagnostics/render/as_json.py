"""One versioned JSON object for programs.

`{"version": 1, "diagnostics": [...], "summary": {...}}`.  Lines and columns count from 1, columns and
offsets in code points, ends are exclusive.  New keys may be added within a version; none changes meaning.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nldsl.diagnostics.codes import name_of
from nldsl.diagnostics.model import Diagnostic, Fix, Label, Span
from nldsl.diagnostics.render.positions import range_of

VERSION = 1


def render(diagnostics: Sequence[Diagnostic]) -> str:
    """The findings as one JSON object, keys in a fixed order, ending in a newline."""
    document = {
        "version": VERSION,
        "diagnostics": [as_dict(diagnostic) for diagnostic in diagnostics],
        "summary": {
            "errors": sum(d.severity == "error" for d in diagnostics),
            "warnings": sum(d.severity == "warning" for d in diagnostics),
            "notes": sum(d.severity == "note" for d in diagnostics),
            "fixable": sum(d.fix is not None and d.fix.safe for d in diagnostics),
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def as_dict(diagnostic: Diagnostic) -> dict[str, Any]:
    """One finding as plain values."""
    span = diagnostic.span
    return {
        "code": diagnostic.code,
        "name": name_of(diagnostic.code),
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "file": span.source.name if span is not None else None,
        "range": _range(span) if span is not None else None,
        "labels": [_label(label, primary=i == 0) for i, label in enumerate(diagnostic.labels)],
        "notes": list(diagnostic.notes),
        "help": diagnostic.help,
        "fix": _fix(diagnostic.fix) if diagnostic.fix is not None else None,
        "explain": f"nldsl explain {diagnostic.code}",
    }


def _label(label: Label, *, primary: bool) -> dict[str, Any]:
    return {
        "file": label.span.source.name,
        "range": _range(label.span),
        "text": label.text,
        "primary": primary,
    }


def _fix(fix: Fix) -> dict[str, Any]:
    edits = [{"file": e.span.source.name, "range": _range(e.span), "text": e.text} for e in fix.edits]
    return {"title": fix.title, "applicability": "safe" if fix.safe else "unsafe", "edits": edits}


def _range(span: Span) -> dict[str, dict[str, int]]:
    place = range_of(span)
    return {
        "start": {"line": place.line, "column": place.column, "offset": span.start},
        "end": {"line": place.end_line, "column": place.end_column, "offset": max(span.start, span.end)},
    }
