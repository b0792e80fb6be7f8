"""The verbs of nldsl as functions: what the command line, notebooks and tests call.

Each is loaded when it is first used, so that `nldsl check` pays for checking alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nldsl.api.cores import Core, core
    from nldsl.api.difference import diff
    from nldsl.api.reading import check, check_source, reader_beside
    from nldsl.api.rules import rule
    from nldsl.api.spec import PASSES, Spec, load
    from nldsl.api.studies import open_study, study
    from nldsl.diagnostics.model import Diagnostic, Source, SpecError

_HOMES = {
    "Core": "nldsl.api.cores", "core": "nldsl.api.cores",
    "diff": "nldsl.api.difference",
    "check": "nldsl.api.reading", "check_source": "nldsl.api.reading", "reader_beside": "nldsl.api.reading",
    "rule": "nldsl.api.rules",
    "PASSES": "nldsl.api.spec", "Spec": "nldsl.api.spec", "load": "nldsl.api.spec",
    "open_study": "nldsl.api.studies", "study": "nldsl.api.studies",
    "Diagnostic": "nldsl.diagnostics.model", "Source": "nldsl.diagnostics.model",
    "SpecError": "nldsl.diagnostics.model",
}  # fmt: skip

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
    "open_study",
    "reader_beside",
    "rule",
    "study",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `nldsl.api` has no attribute `{name}`")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
