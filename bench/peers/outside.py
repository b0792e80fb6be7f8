"""Importing packages whose front door needs a GPU stack, and running float32 code in float64."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from typing import Any

import torch


def version(package: str) -> str | None:
    """The installed version of a distribution, or nothing."""
    try:
        return _version(package)
    except PackageNotFoundError:
        return None


def installed(package: str) -> bool:
    return version(package) is not None


def fla(module: str) -> types.ModuleType:
    """A module of fla-core by its path below `fla.ops`, such as `gated_delta_rule.naive`.

    The parents import triton, which the plain formulas do not need: they are entered as empty packages that
    know only their folder.

    Raises:
        ModuleNotFoundError: fla-core is not installed.
    """
    parts = f"fla.ops.{module}".split(".")[:-1]
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if name not in sys.modules:
            sys.modules[name] = _hollow(name)
    return importlib.import_module(f"fla.ops.{module}")


def _hollow(name: str) -> types.ModuleType:
    """A package with its real search path and none of its code."""
    parent, _, last = name.rpartition(".")
    places = sys.modules[parent].__path__ if parent else sys.path
    spec = importlib.machinery.PathFinder.find_spec(name, places)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"no package `{name}`", name=name)
    made = types.ModuleType(name)
    made.__path__ = list(spec.submodule_search_locations)
    made.__spec__ = spec
    if parent:
        setattr(sys.modules[parent], last, made)
    return made


class _Wide(types.ModuleType):
    """torch, with float64 wherever a module says float32."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name in ("float32", "float") else getattr(torch, name)


@contextlib.contextmanager
def widened(*functions: Callable[..., Any]) -> Iterator[None]:
    """Run functions of other packages in float64, though they round their inputs to float32.

    Within the block, `torch.float32` and `torch.float` in the modules of these functions, `Tensor.float()`
    and torch's default type mean float64.  The arithmetic stays theirs.
    """
    modules = [sys.modules[f.__module__] for f in functions]
    kept, narrow, default = (
        [m.__dict__["torch"] for m in modules],
        torch.Tensor.float,
        torch.get_default_dtype(),
    )
    torch.set_default_dtype(torch.float64)
    for module in modules:
        module.__dict__["torch"] = _Wide("torch")
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.set_default_dtype(default)
        torch.Tensor.float = narrow  # type: ignore[method-assign]
        for module, was in zip(modules, kept, strict=True):
            module.__dict__["torch"] = was
