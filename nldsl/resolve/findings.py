"""Collecting findings without stopping: a failed part raises `Unresolved`, the rest goes on."""

from __future__ import annotations

from nldsl.diagnostics.model import Diagnostic, Fix, Label, Severity, Span


class Unresolved(Exception):
    """This part cannot be resolved; its finding is recorded already."""


class Findings:
    """A list of findings that never holds the same one twice."""

    def __init__(self) -> None:
        self.items: list[Diagnostic] = []

    def add(
        self,
        code: str,
        message: str,
        span: Span | None,
        label: str = "",
        *,
        others: tuple[tuple[Span | None, str], ...] = (),
        help: str | None = None,
        notes: tuple[str, ...] = (),
        fix: Fix | None = None,
        severity: Severity = "error",
    ) -> None:
        """Record a finding; `others` are secondary places with their labels (None spans are left out)."""
        labels = [Label(span, label)] if span is not None else []
        labels += [Label(s, text) for s, text in others if s is not None]
        finding = Diagnostic(code, message, tuple(labels), notes, help, fix, severity)
        if finding not in self.items:
            self.items.append(finding)

    def stop(
        self,
        code: str,
        message: str,
        span: Span | None,
        label: str = "",
        *,
        others: tuple[tuple[Span | None, str], ...] = (),
        help: str | None = None,
        notes: tuple[str, ...] = (),
        fix: Fix | None = None,
    ) -> Unresolved:
        """Record an error and return the exception to raise."""
        self.add(code, message, span, label, others=others, help=help, notes=notes, fix=fix)
        return Unresolved(message)

    @property
    def has_errors(self) -> bool:
        return any(d.severity == "error" for d in self.items)
