"""The version of nldsl."""

from __future__ import annotations

from functools import cache


@cache
def version() -> str:
    """The version of the package that runs, installed or not."""
    import nldsl

    stated = getattr(nldsl, "__version__", None)
    if isinstance(stated, str):
        return stated
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("nldsl")
    except PackageNotFoundError:
        return "unknown"
