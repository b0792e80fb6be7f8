"""Files with one mistake each, and what is said about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nldsl.diagnostics.codes import registry
from nldsl.diagnostics.model import Diagnostic, Source
from nldsl.syntax import read

BAD = Path(__file__).parent / "bad"
FILES = sorted(p for p in BAD.iterdir() if p.suffix in (".nl", ".yaml"))


def transcript(findings: list[Diagnostic]) -> str:
    """Findings as people read them in one line each, their second places and help below."""
    lines: list[str] = []
    for finding in findings:
        where = finding.span.where if finding.span is not None else "?"
        lines.append(f"{where}: {finding.severity}[{finding.code}]: {finding.message}")
        lines += [f"  {label.span.where}: {label.text}" for label in finding.labels[1:]]
        lines += [f"  help: {finding.help}"] if finding.help else []
        lines += [f"  fix: {finding.fix.title}"] if finding.fix else []
    return "\n".join(lines) + "\n"


def findings_of(path: Path) -> list[Diagnostic]:
    """Everything `read` finds in a file."""
    return read(Source(path.name, path.read_bytes().decode()))[1]


def test_messages(golden: Callable[[Path, str], None]) -> None:
    golden(BAD / "expected.txt", "\n".join(transcript(findings_of(path)) for path in FILES))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_one_mistake_is_one_finding(path: Path) -> None:
    assert len(findings_of(path)) == 1


def test_every_code_has_a_page() -> None:
    used = {finding.code for path in FILES for finding in findings_of(path)}
    assert used <= set(registry())
