"""What the tests of the command line share: running it in this process, and stand-ins for the API."""

import io
import re
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Literal

import pytest

from nldsl.cli import main, verb_table
from nldsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Source, Span, SpecError
from nldsl.levels.graph import LevelGraph


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def nl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command line in this process."""
    for name in ("NO_COLOR", "FORCE_COLOR", "NLDSL_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object, stdin: str | bytes = b"") -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        verb_table.present.cache_clear()
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class StandIn:
    """Modules that handlers call, replaced; `calls` records how."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.calls: list[tuple[Any, ...]] = []

    def module(self, name: str, **contents: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(contents)
        made.__spec__ = ModuleSpec(name, None)
        self.monkeypatch.setitem(sys.modules, name, made)
        package, _, leaf = name.rpartition(".")
        self.monkeypatch.setattr(import_module(package), leaf, made, raising=False)

    def recorder(self, name: str, result: Any = None) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args, options))
            return result() if callable(result) else result

        return call


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(monkeypatch)


def find_words(source: Source) -> list[Diagnostic]:
    """A checker for tests: `bad` is an error with a fix, `worse` one without, `odd` a warning."""
    found: list[Diagnostic] = []
    for match in re.finditer(r"\b(bad|worse|odd)\b", source.text):
        word = match[0]
        span = Span(source, match.start(), match.end())
        fix = Fix("write `good`", (Edit(span, "good"),)) if word == "bad" else None
        severity: Literal["warning", "error"] = "warning" if word == "odd" else "error"
        label = (Label(span, "this word"),)
        found.append(Diagnostic("NL9901", f"`{word}` is no word", label, fix=fix, severity=severity))
    return found


@pytest.fixture
def api(stand_in: StandIn) -> StandIn:  # noqa: C901 -- a stand-in has as many methods as what it stands in for
    """An `nldsl.api` whose specs are their own text."""

    def check_source(
        source: Source, *, read_file: Any = None, variant: Any = None, **_: Any
    ) -> list[Diagnostic]:
        stand_in.calls.append(("check_source", (source.name,), {"variant": variant}))
        found = find_words(source)
        for match in re.finditer(r'import "(.*?)"', source.text):
            found += find_words(read_file(match[1]))
        return found

    class Spec:
        def __init__(self, text: str) -> None:
            self.text = text
            self.diagnostics = [d for d in find_words(Source("spec.nl", text)) if d.severity == "warning"]

        def expand(self) -> str:
            return f"# defaults stated\n{self.text}"

        def why(self, path: str) -> str:
            return f"{path} was set in line 1"

        def schedule(self) -> str:
            return "200 steps"

        def plan(self) -> str:
            return "Fast: E3, by its algebra"

        def shortage(self, memory_bytes: int) -> list[Diagnostic]:
            return []

        def print_after(self, name: str) -> str:
            return f"after {name}"

        def stale(self, folder: Any) -> list[str]:
            stand_in.calls.append(("stale", (str(folder),), {}))
            return [] if (Path(folder) / "model.py").exists() else ["model.py"]

        def compile(self, folder: Any, *, force: bool = False) -> Any:
            stand_in.calls.append(("compile", (Path(folder).as_posix(),), {"force": force}))
            Path(folder).mkdir(parents=True, exist_ok=True)
            files = ("model.py", "levels.json")
            for name in files:
                (Path(folder) / name).write_text("{}")
            return types.SimpleNamespace(files=files, parameters=0)

        def levels(self) -> LevelGraph:
            return LevelGraph("Tiny", (), (), {"token": 1})

    def load(path: Any, *, set: Any = None, variant: Any = None) -> Spec:
        stand_in.calls.append(("load", (str(path),), {"set": set, "variant": variant}))
        source = Source(str(path), Path(path).read_text(encoding="utf-8"))
        found = find_words(source)
        if any(d.severity == "error" for d in found):
            raise SpecError(found)
        return Spec(source.text)

    stand_in.module("nldsl.api", check_source=check_source, load=load, Spec=Spec)
    return stand_in
