"""Measure how far memories are from other people's code, and write the tables of docs/oracles.md.

`make oracles` runs it.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.peers import version
from tests.oracles.cases import CASES
from tests.oracles.compare import Case, Difference, difference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "oracles.md"
MARKED = re.compile(r"(<!-- measured: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Run every comparison and write the page anew."""
    found = {case.name: [difference(case, lowering) for lowering in case.lowerings] for case in CASES}
    tables = {"differences": _differences(found), "conventions": _conventions()}
    text = PAGE.read_text(encoding="utf-8")
    text = MARKED.sub(lambda m: f"{m[1]}\n{tables[m[2]]}\n{m[3]}", text)
    PAGE.write_text(text, encoding="utf-8", newline="\n")


def _differences(found: dict[str, list[Difference]]) -> str:
    lines = ["| theirs | version | ours | by | read | state | gradient |", "|---|---|---|---|---|---|---|"]
    lines += [_row(case, found[case.name]) for case in CASES]
    return "\n".join(lines) + "\n"


def _row(case: Case, found: list[Difference]) -> str:
    by = "engine, token loop" if "chunked" in case.lowerings else "token loop"
    if case.memory == "rope":
        by = "function"
    plain = (version(case.package) or "").split("+")[0]
    worst = [
        _worst([d.read for d in found]),
        _worst([d.state for d in found]),
        _worst([d.gradient for d in found]),
    ]
    return f"| {case.name} | {plain} | `{case.memory}` | {by} | {' | '.join(worst)} |"


def _worst(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.0e}" if known else "none"


def _conventions() -> str:
    """One row for each way of differing, with all that differ so."""
    names: dict[str, list[str]] = {}
    for case in CASES:
        names.setdefault(case.differs, []).append(case.name.split(", ")[0])
    rows = [f"| {', '.join(dict.fromkeys(who))} | {differs} |" for differs, who in names.items()]
    return "\n".join(["| theirs | how it differs from a core |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    main()
