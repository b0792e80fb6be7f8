"""Everything that `check` finds in a text, for tests."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib.resources import files

from nldsl import checks
from nldsl.diagnostics.model import Diagnostic, Source
from nldsl.resolve import Library, link, resolve
from nldsl.syntax import read

MARK = re.compile(r"#\s*((?:(?:error|warning): NL\d{4}[,\s]*)+)$")
ONE = re.compile(r"(error|warning): (NL\d{4})")
BLOCK = re.compile(r"^```nl\n(.*?)^```", re.DOTALL | re.MULTILINE)


@functools.cache
def library() -> Library:
    folder = files("nldsl.lib")
    texts = {f.name[:-3]: f.read_text(encoding="utf-8") for f in folder.iterdir() if f.name.endswith(".nl")}
    rules = {f.name[:-3]: f.read_text(encoding="utf-8") for f in (folder / "rules").iterdir()}
    names = tuple(sorted(texts)) + tuple(sorted(rules))
    return Library(names, lambda n: Source(f"std/{n}.nl", (texts | rules)[n]), tuple(sorted(rules)))


def no_files(path: str) -> Source:
    raise FileNotFoundError(2, "No such file or directory", path)


def find(source: Source, *, variant: str | None = None, memory_bytes: int | None = None) -> list[Diagnostic]:
    """Findings of reading, linking, resolving and checking; later stages only where no error stands."""
    document, found = read(source)
    if any(d.severity == "error" for d in found):
        return found
    module, linked = link(source.name, source, document, no_files, read, library())
    resolution = resolve(module, variant=variant)
    return [
        *found,
        *linked,
        *resolution.findings,
        *checks.run(resolution, original=module, memory_bytes=memory_bytes),
    ]


@dataclass(frozen=True)
class Case:
    """One block of a page and the line in which it starts."""

    page: str
    line: int
    text: str

    @property
    def source(self) -> Source:
        return Source(f"{self.page}:{self.line}", self.text)

    @property
    def wanted(self) -> list[tuple[int, str, str]]:
        marks = []
        for number, line in enumerate(self.text.split("\n"), 1):
            mark = MARK.search(line)
            marks += [(number, *one) for one in ONE.findall(mark[1])] if mark else []
        return sorted(marks)


def cases(page: str, text: str, *, edition: bool = True) -> list[Case]:
    """The `nl` blocks of a page, each with an edition if it has none and `edition` is asked for."""
    found = []
    for block in BLOCK.finditer(text):
        body = block[1]
        line = text.count("\n", 0, block.start()) + 2
        if edition and not re.search(r"^edition ", body, re.MULTILINE):
            body, line = "edition 2026\n" + body, line - 1
        found.append(Case(page, line, body))
    return found


def placed(found: list[Diagnostic]) -> list[tuple[int, str, str]]:
    """Line, severity and code of each finding; line 0 where it points at nothing."""
    return sorted(
        (d.span.source.position(d.span.start)[0] if d.span else 0, d.severity, d.code) for d in found
    )
