"""nldsl: a small language for sequence models that learn at several speeds, compiled to PyTorch.

    import nldsl

    spec = nldsl.load("specs/hope.nl", variant="Tiny")
    print(spec.levels())

Importing the package loads nothing else; each name below is loaded when it is first used, and torch only by
what computes with tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nldsl.api import Core, Spec, check, check_source, core, diff, load, open_study, rule, study
    from nldsl.diagnostics.model import Diagnostic, Source, SpecError

__version__ = "0.1.0"

__all__ = [
    "Core",
    "Diagnostic",
    "Source",
    "Spec",
    "SpecError",
    "__version__",
    "check",
    "check_source",
    "core",
    "diff",
    "load",
    "open_study",
    "rule",
    "study",
]

_FINDINGS = ("Diagnostic", "Source", "SpecError")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module `nldsl` has no attribute `{name}`")
    from importlib import import_module

    home = import_module("nldsl.diagnostics.model" if name in _FINDINGS else "nldsl.api")
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
