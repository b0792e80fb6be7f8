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
WORDS = 44
"""Characters of a cell."""
_DISPENSABLE = ("state", "verdict", "FLOPs", "seconds", "parameters", "seeds")
"""Columns of the main table that a narrow terminal does without, the first first."""


def as_text(facts: Facts, *, width: int = 0) -> str:
    """The report for a terminal of `width` characters: what was found, the table, and what is missing."""
    parts = [f"{facts.name}: {w.heading(facts)}", *(f"{text}." for text in w.caveats(facts)), ""]
    parts += [text for _, text in w.findings(facts)]
    main = _brief(main_table(facts), facts)
    parts += ["", *_fitted(main, width or WIDE), "", w.legend(facts)]
    for table in (measures_table(facts), tasks_table(facts), reasons_table(facts)):
        if table is not None:
            parts += ["", *_aligned(table)]
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


def _fitted(table: Table, width: int) -> list[str]:
    """The table without the columns that do not fit."""
    lines = _aligned(table)
    for title in _DISPENSABLE:
        if max(len(line) for line in lines) <= width:
            break
        kept = [i for i, column in enumerate(table.columns) if column.title != title]
        rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
        table = Table(tuple(table.columns[i] for i in kept), rows)
        lines = _aligned(table)
    return lines


def _aligned(table: Table) -> list[str]:
    """Lines of the cells side by side, without columns that are empty."""
    cells = [[column.title for column in table.columns], *([_plain(c) for c in row] for row in table.rows)]
    used = [i for i in range(len(table.columns)) if any(row[i] for row in cells[1:])]
    widths = {i: max(len(row[i]) for row in cells) for i in used}
    number = {i: table.columns[i].number for i in used}
    lines = [
        "  ".join(row[i].rjust(widths[i]) if number[i] else row[i].ljust(widths[i]) for i in used).rstrip()
        for row in cells
    ]
    return [lines[0], "-" * max(len(line) for line in lines), *lines[1:]]


def _plain(cell: Cell) -> str:
    whole = f"{cell.text} {cell.note}".strip()
    return whole if len(whole) <= WORDS else f"{whole[: WORDS - 1]}…"


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
    used = [i for i in range(len(table.columns)) if any(_has(row[i]) for row in table.rows)]
    columns = [table.columns[i] for i in used]
    head = "| " + " | ".join(_escaped(column.title) for column in columns) + " |"
    rule = "|" + "|".join("---:" if column.number else "---" for column in columns) + "|"
    rows = ["| " + " | ".join(_marked(row[i], base) for i in used) + " |" for row in table.rows]
    return [head, rule, *rows]


def _has(cell: Cell) -> bool:
    return bool(cell.text or cell.note or cell.more)


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
