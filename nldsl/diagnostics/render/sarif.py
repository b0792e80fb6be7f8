"""SARIF 2.1.0 (OASIS), for code scanning services and editors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from nldsl.diagnostics.codes import Code, lookup, page
from nldsl.diagnostics.model import Diagnostic, Fix, Span
from nldsl.diagnostics.render.positions import range_of

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(diagnostics: Sequence[Diagnostic], *, version: str | None = None) -> str:
    """One SARIF log with one run; `version` is that of the tool, left out where None."""
    codes = sorted({diagnostic.code for diagnostic in diagnostics})
    driver: dict[str, Any] = {"name": "nldsl"}
    if version is not None:
        driver["version"] = version
    driver["rules"] = [_rule(code, lookup(code)) for code in codes]
    index = {code: i for i, code in enumerate(codes)}
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": [_result(diagnostic, index[diagnostic.code]) for diagnostic in diagnostics],
            }
        ],
    }
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _rule(code: str, known: Code | None) -> dict[str, Any]:
    if known is None:
        return {"id": code}
    text = page(code) or ""
    return {
        "id": code,
        "name": known.name,
        "shortDescription": {"text": known.summary},
        "help": {"text": f"nldsl explain {code}", "markdown": text},
        "defaultConfiguration": {"level": known.severity},
        "properties": {"group": known.group},
    }


def _result(diagnostic: Diagnostic, rule_index: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": diagnostic.code,
        "ruleIndex": rule_index,
        "level": diagnostic.severity,
        "message": {"text": _message(diagnostic)},
    }
    if diagnostic.labels:
        primary = diagnostic.labels[0]
        location: dict[str, Any] = {"physicalLocation": _place(primary.span)}
        if primary.text:
            location["message"] = {"text": primary.text}
        result["locations"] = [location]
    related = [
        {"id": i, "physicalLocation": _place(label.span), "message": {"text": label.text or "related"}}
        for i, label in enumerate(diagnostic.labels[1:], 1)
    ]
    if related:
        result["relatedLocations"] = related
    if diagnostic.fix is not None and diagnostic.fix.edits:
        result["fixes"] = [_fix(diagnostic.fix)]
    return result


def _message(diagnostic: Diagnostic) -> str:
    parts = [diagnostic.message]
    parts += [f"note: {note}" for note in diagnostic.notes]
    parts += [f"help: {diagnostic.help}"] if diagnostic.help else []
    return "\n".join(parts)


def _place(span: Span) -> dict[str, Any]:
    return {"artifactLocation": _artifact(span), "region": _region(span)}


def _fix(fix: Fix) -> dict[str, Any]:
    by_file: dict[str, list[Any]] = {}
    artifacts: dict[str, dict[str, str]] = {}
    for edit in fix.edits:
        artifacts[edit.span.source.name] = _artifact(edit.span)
        by_file.setdefault(edit.span.source.name, []).append(
            {"deletedRegion": _region(edit.span), "insertedContent": {"text": edit.text}}
        )
    changes = [
        {"artifactLocation": artifacts[name], "replacements": edits} for name, edits in by_file.items()
    ]
    return {"description": {"text": fix.title}, "artifactChanges": changes}


def _artifact(span: Span) -> dict[str, str]:
    return {"uri": quote(span.source.name.replace("\\", "/"), safe="/-._~")}


def _region(span: Span) -> dict[str, int]:
    at = range_of(span)
    return {
        "startLine": at.line,
        "startColumn": at.column,
        "endLine": at.end_line,
        "endColumn": at.end_column,
    }
