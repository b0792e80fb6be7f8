"""Examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "codegen" / "runtime"
WRITTEN = ("kernels", "model", "settings")


class StandIn(ModuleType):
    """A module in place of one that the compiler writes: it has whatever public name is asked for."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def modules_with_examples() -> list[str]:
    """Dotted names of the modules whose text holds a prompt."""
    found: list[str] = []
    for folder in ("nldsl", "codegen", "grammar"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ">>>" not in path.read_text(encoding="utf-8"):
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            prefix = () if parts[0] == "nldsl" else ("nldsl",)
            found.append(".".join([*prefix, *parts]).removesuffix(".__init__"))
    return found


@pytest.fixture
def runtime_by_plain_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The runtime's files import each other as they do in a build folder; forgotten again afterwards."""
    names = ({path.stem for path in RUNTIME.glob("*.py")} | set(WRITTEN)) - {"__init__"}
    kept = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
    sys.modules.update({name: StandIn(name) for name in WRITTEN})
    monkeypatch.syspath_prepend(str(RUNTIME))
    yield
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name: str, runtime_by_plain_names: None) -> None:
    module = importlib.import_module(name.removeprefix("nldsl.codegen.runtime."))
    result = doctest.testmod(module)
    assert result.failed == 0
