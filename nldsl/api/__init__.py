"""The verbs of nldsl as functions: what the command line, notebooks and tests call."""

from __future__ import annotations

from nldsl.api.cores import Core, core
from nldsl.api.difference import diff
from nldsl.api.reading import check, check_source, reader_beside
from nldsl.api.rules import rule
from nldsl.api.spec import PASSES, Spec, load
from nldsl.diagnostics.model import Diagnostic, Source, SpecError

__all__ = [
    "PASSES",
    "Core",
    "Diagnostic",
    "Source",
    "Spec",
    "SpecError",
    "check",
    "check_source",
    "core",
    "diff",
    "load",
    "reader_beside",
    "rule",
]
