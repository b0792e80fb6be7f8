"""GitHub workflow commands: `::error file=...,line=...::message`, shown beside a change."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.diagnostics.codes import name_of
from nldsl.diagnostics.model import Diagnostic
from nldsl.diagnostics.render.positions import range_of

_COMMAND = {"error": "error", "warning": "warning", "note": "notice"}


def render(diagnostics: Sequence[Diagnostic]) -> str:
    """One workflow command for each finding."""
    return "".join(_command(diagnostic) + "\n" for diagnostic in diagnostics)


def _command(diagnostic: Diagnostic) -> str:
    name = name_of(diagnostic.code)
    properties = [("title", f"{diagnostic.code}: {name}" if name else diagnostic.code)]
    place = ""
    if diagnostic.span is not None:
        span, at = diagnostic.span, range_of(diagnostic.span)
        place = f"{span.where}: "
        properties += [("file", span.source.name), ("line", str(at.line)), ("endLine", str(at.end_line))]
        if at.line == at.end_line:
            # GitHub drops an annotation that has a column and covers several lines.
            properties[3:3] = [("col", str(at.column))]
            properties.append(("endColumn", str(max(at.column, at.end_column))))
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties)
    text = [f"{place}{diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}"]
    text += [f"{label.span.where}: {label.text}" for label in diagnostic.labels[1:] if label.text]
    text += [f"note: {note}" for note in diagnostic.notes]
    text += [f"help: {diagnostic.help}"] if diagnostic.help else []
    return f"::{_COMMAND[diagnostic.severity]} {listed}::{_data(chr(10).join(text))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
