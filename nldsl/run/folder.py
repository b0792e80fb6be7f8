"""Load a build folder: its modules under names of their own, so that several folders live in one process."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from nldsl.diagnostics.model import Diagnostic

# The modules of a folder, each after those it imports.
ORDER = (
    "schedule",
    "settings",
    "kernels",
    "model",
    "rules",
    "tokens",
    "data",
    "items",
    "tasks",
    "finite",
    "checkpoint",
    "pretrained",
    "assign",
    "starts",
    "growth",
    "learners",
    "values",
    "plastic",
    "streams",
    "generate",
    "measures",
    "documents",
    "learning",
    "divergence",
    "session",
    "loop",
    "plan",
    "amend",
    "train",
)
OPTIONAL = frozenset({"kernels"})

_numbers = itertools.count(1)
_lock = threading.RLock()


class RunError(Exception):
    """A build folder or a run has a problem that the user can mend.

    `diagnostic` says which; `exit_code` is 1 for what is wrong in the run and 2 for usage and files.
    """

    def __init__(self, diagnostic: Diagnostic, exit_code: int = 1) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic
        self.exit_code = exit_code


@dataclass(frozen=True)
class Build:
    """A loaded build folder; `modules` by their plain names (`model`, `train`, ...)."""

    folder: Path
    modules: dict[str, ModuleType]

    def __getattr__(self, name: str) -> Any:
        """A module of the folder."""
        try:
            return self.modules[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def settings(self) -> Any:
        """The settings that the spec gave (a `schedule.Settings` of this folder)."""
        return self.modules["settings"].SETTINGS


def load(folder: Path | str, names: Sequence[str] = ORDER) -> Build:
    """Execute the modules of `folder` and return them; only those in `names`, which are in `ORDER`'s order.

    While one executes, the plain names that it imports mean the folder's own modules; afterwards
    `sys.modules` has only private names more than before.  Raises `RunError` (NL0801: no such
    folder; NL0802: something in it is missing or does not run).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise _missing(folder)
    needed = [name for name in names if name not in OPTIONAL]
    lacking = [name for name in needed if not (folder / f"{name}.py").is_file()]
    if len(lacking) == len(needed):
        raise _missing(folder)
    if lacking:
        raise _damaged(folder, f"it has no `{lacking[0]}.py`")
    package = f"_nldsl_build_{next(_numbers)}"
    modules: dict[str, ModuleType] = {}
    with _lock, _plain_names(modules, names[-1]):
        for name in names:
            path = folder / f"{name}.py"
            if path.is_file():
                modules[name] = sys.modules[name] = _execute(f"{package}_{name}", path, folder)
    if "settings" in modules and not isinstance(
        getattr(modules["settings"], "SETTINGS", None), modules["schedule"].Settings
    ):
        raise _damaged(folder, "`settings.py` defines no `SETTINGS` of the class `Settings`")
    return Build(folder, modules)


def _execute(name: str, path: Path, folder: Path) -> ModuleType:
    """The module at `path`, registered as `name`."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _damaged(folder, f"`{path.name}` cannot be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and torch.compile look modules up by name
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise _damaged(folder, f"`{path.name}`, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise _damaged(folder, f"`{path.name}` does not run: {type(error).__name__}: {error}") from error
    return module


@contextmanager
def _plain_names(modules: dict[str, ModuleType], last: str) -> Iterator[None]:
    """Set aside what the plain names mean outside, and put it back; write no byte code meanwhile."""
    before = {name: sys.modules.pop(name) for name in ORDER if name in sys.modules}
    dont_write = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a build folder holds what the compiler wrote, and nothing else
    try:
        yield
    finally:
        sys.dont_write_bytecode = dont_write
        for name in ORDER:
            sys.modules.pop(name, None)
        sys.modules.update(before)
        if last not in modules:  # loading failed: leave nothing behind
            for module in modules.values():
                sys.modules.pop(module.__name__, None)


def _missing(folder: Path) -> RunError:
    what = "is no build folder" if folder.exists() else "does not exist"
    return RunError(
        Diagnostic("NL0801", f"`{folder}` {what}", help="write one with `nldsl compile SPEC -o DIR`"),
        exit_code=2,
    )


def _damaged(folder: Path, what: str) -> RunError:
    return RunError(
        Diagnostic(
            "NL0802",
            f"the build folder `{folder}` is damaged: {what}",
            help="write it again with `nldsl compile SPEC -o DIR --force`",
        ),
        exit_code=2,
    )
