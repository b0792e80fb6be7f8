"""A report as text for a terminal, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from nldsl.ablate.report import words as w
from nldsl.ablate.report.facts import Facts
from nldsl.ablate.report.tables import (
    Cell,
    Table,
    main_table,
    measures_table,
    reasons_table,
    tasks_table,
    trials_table,
)

WIDE = 120
"""Characters of a line where nobody says how wide the terminal is."""
WORDS, SHORT = 44, 20
"""Characters of a cell, and of one in words where the terminal is narrow."""
_DISPENSABLE = ("state", "verdict", "FLOPs", "seconds", "parameters", "seeds")
"""Columns of the main table that a narrow terminal does without, the first first."""


def as_text(facts: Facts, *, width: int = 0) -> str:
    """The report for a terminal of `width` characters: what was found, the table, and what is missing."""
    parts = [f"{facts.name}: {w.heading(facts)}", *(f"{text}." for text in w.caveats(facts)), ""]
    parts += [text for _, text in w.findings(facts)]
    main = _brief(main_table(facts), facts)
    parts += ["", *_fitted(main, width or WIDE, _DISPENSABLE), "", w.legend(facts)]
    for table in (measures_table(facts), tasks_table(facts)):
        if table is not None:
            parts += ["", *_fitted(table, width or WIDE)]
    missing = w.reasons(facts)
    if missing:
        parts += ["", "Not in the table, or only in part:"]
        parts += [f"  {name}: {what}{f' ({why})' if why else ''}" for name, what, why in missing]
    parts += ["", *w.method(facts)]
    return "\n".join(parts).rstrip() + "\n"


def _brief(table: Table, facts: Facts) -> Table:
    """The main table with numbers of seeds in place of seeds, and changes in place of what variants cost."""
    costs = [i for i, c in enumerate(table.columns) if c.title in ("parameters", "FLOPs", "state", "seconds")]
    rows: list[tuple[Cell, ...]] = []
    for line, row in zip(facts.lines, table.rows, strict=True):
        cells = [Cell(str(len(cell.more))) if cell.more else cell for cell in row]
        if line is not facts.baseline:
            for i in costs:
                cells[i] = Cell(cells[i].note or ("=" if cells[i].text else ""))
        rows.append(tuple(cells))
    return replace(table, rows=tuple(rows))


def _fitted(table: Table, width: int, dispensable: Sequence[str] = ()) -> list[str]:
    """The table, its dispensable columns left out and its longest cells cut until it fits, if it can."""
    lines = _aligned(table, WORDS)
    for title in dispensable:
        if len(lines[1]) <= width:
            return lines
        table = table.of([i for i, column in enumerate(table.columns) if column.title != title])
        lines = _aligned(table, WORDS)
    for longest in range(WORDS - 1, SHORT - 1, -1):
        if len(lines[1]) <= width:
            break
        lines = _aligned(table, longest)
    return lines


def _aligned(table: Table, longest: int) -> list[str]:
    """Lines of the cells side by side, without columns that are empty; words have `longest` characters."""
    table = table.filled
    sides: list[list[str]] = []
    for place, column in enumerate(table.columns):
        most = WORDS if column.number else longest
        cells = [column.title, *(w.short(_plain(row[place]), most) for row in table.rows)]
        size = max(len(cell) for cell in cells)
        sides.append([cell.rjust(size) if column.number else cell.ljust(size) for cell in cells])
    lines = ["  ".join(cells).rstrip() for cells in zip(*sides, strict=True)]
    return [lines[0], "-" * max(len(line) for line in lines), *lines[1:]]


def _plain(cell: Cell) -> str:
    return f"{cell.text} {cell.note}".strip()


# --------------------------------------------------------------------------- Markdown


def as_markdown(
    facts: Facts, *, top: int = 1, pictures: Sequence[tuple[str, str]] = (), base: str = ""
) -> str:
    """The report as Markdown.

    `top` is the level of its heading; `pictures` are (file, what it shows); `base` comes before every link,
    for a page that lies elsewhere, and with `base = "-"` there are no links at all.
    """
    mark = "#" * top
    parts = [f"{mark} {_escaped(facts.name)}", "", f"{_escaped(w.heading(facts))}.", ""]
    parts += [f"> {_escaped(text)}.\n>" for text in w.caveats(facts)]
    if w.caveats(facts):
        parts[-1] = parts[-1].removesuffix("\n>")
        parts.append("")
    parts += [f"{mark}# What came out", ""]
    parts += [f"- {_escaped(text)}" for _, text in w.findings(facts)]
    parts += ["", *_piped(main_table(facts), base), ""]
    parts += [w.legend(facts), ""]
    for file, alt in pictures:
        parts += [f"![{alt}]({file})", ""]
    for title, table in (
        ("Other measures", measures_table(facts)),
        ("Tasks", tasks_table(facts)),
        ("Not in the table, or only in part", reasons_table(facts)),
    ):
        if table is not None:
            parts += [f"{mark}# {title}", "", *_piped(table, base), ""]
    parts += [f"{mark}# How it was compared", "", _escaped(" ".join(w.method(facts))), ""]
    if base != "-":
        parts += [f"{mark}# Trials", ""]
        for line in facts.lines:
            parts += [f"{mark}## {line.number}. {_escaped(line.row.words)}", ""]
            parts += [*_piped(trials_table(line, facts), base), ""]
    return "\n".join(parts).rstrip() + "\n"


def _piped(table: Table, base: str) -> list[str]:
    table = table.filled
    head = "| " + " | ".join(_escaped(column.title) for column in table.columns) + " |"
    rule = "|" + "|".join("---:" if column.number else "---" for column in table.columns) + "|"
    rows = ["| " + " | ".join(_marked(cell, base) for cell in row) + " |" for row in table.rows]
    return [head, rule, *rows]


def _marked(cell: Cell, base: str) -> str:
    parts = [_linked(cell, base), *(_linked(one, base) for one in cell.more)]
    text = " ".join(part for part in parts if part)
    return f"{text} {_escaped(cell.note)}".strip() if cell.note else text


def _linked(cell: Cell, base: str) -> str:
    text = _escaped(cell.text)
    if not cell.link or base == "-" or not text:
        return text
    return f"[{text}]({base}{cell.link})"


def _escaped(text: str) -> str:
    r"""Text in which nothing is markup.

    >>> _escaped("a_b |> c[1] <x>")
    'a\\_b \\|> c\\[1\\] \\<x>'
    """
    return re.sub(r"([\\`*_\[\]|<#])", r"\\\1", text).replace("\n", " ")
