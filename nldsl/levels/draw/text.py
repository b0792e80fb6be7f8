"""The level graph as a table for terminals: levels fast to slow, then edges, then totals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nldsl.levels.draw.words import (
    amount,
    clock_words,
    columns,
    count,
    level_clocks,
    plain,
    short_names,
    short_path,
    shorten,
    state_words,
    totals,
)
from nldsl.levels.graph import Component, LevelGraph

GAP = 2
INDENT = 3
MIN_WIDTH = 40

BOLD, DIM, ACCENT = "1", "2", "36"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table.

    `least` is how narrow it may get; where room is short, the column with the lowest `keep` goes first.
    """

    title: str
    cell: Callable[[Component], str]
    least: int
    keep: int
    right: bool = False


COLUMNS = (
    Column("component", lambda c: plain(c.path) + (f" x{c.copies}" if c.copies > 1 else ""), 24, 99),
    Column("kind", lambda c: c.kind, 11, 5),
    Column("clock", lambda c: str(c.clock), 12, 8),
    Column("learns from", lambda c: plain(c.learns_from), 11, 4),
    Column("rule", lambda c: plain(c.rule), 8, 6),
    Column("taught by", lambda c: plain(c.taught_by or ""), 9, 2),
    Column("params", lambda c: count(c.parameters) if c.parameters else "", 6, 9, right=True),
    Column("state", state_words, 10, 7, right=True),
    Column("FLOPs/tok", lambda c: count(c.flops_per_token) if c.flops_per_token else "", 9, 3, right=True),
)


def as_text(graph: LevelGraph, *, width: int = 100, color: bool = False) -> str:
    """A table of at most `width` columns (at least 40), the edges by kind, and a line of totals.

    A level's rule carries its rank and clock; a column of clocks appears only where components of one
    level have different ones.  Columns that do not fit are left out and named below the table.
    """
    width = max(width, MIN_WIDTH)
    paint = _painter(color)
    if not graph.components:
        return f"{paint(plain(graph.name), BOLD)}: no components\n"
    shown, widths, dropped = fit_columns(_useful_columns(graph), graph.components, width)
    lines = [paint(shorten(plain(graph.name), width), BOLD), ""]
    lines.append(paint(_row([c.title for c in shown], shown, widths), DIM))
    for level in graph.levels:
        lines.append(_rule(level, width, paint))
        lines += [_row([c.cell(part) for c in shown], shown, widths) for part in level]
    lines.append(paint("─" * width, DIM))
    if dropped:
        lines += _wrapped("not shown at this width: ", [c.title for c in dropped], width, paint)
    lines += ["", *_edge_lines(graph, width, paint), *_facts(graph, width, paint)]
    lines += _wrapped("", list(totals(graph)), width, lambda text, _: text)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _painter(color: bool) -> Callable[[str, str], str]:
    return (lambda text, code: f"\x1b[{code}m{text}\x1b[0m") if color else (lambda text, _: text)


def _useful_columns(graph: LevelGraph) -> tuple[Column, ...]:
    mixed = any(len(level_clocks(level)) > 1 for level in graph.levels)
    return tuple(
        c for c in COLUMNS if (c.title != "clock" or mixed) and any(c.cell(part) for part in graph.components)
    )


def fit_columns(
    candidates: tuple[Column, ...], parts: tuple[Component, ...], width: int
) -> tuple[tuple[Column, ...], list[int], list[Column]]:
    """Which columns to show in `width`, how wide each is, and which were left out."""
    shown = list(candidates)
    dropped: list[Column] = []
    while True:
        natural = [max(columns(c.title), *(columns(c.cell(part)) for part in parts)) for c in shown]
        # A number is shown whole or not at all.
        least = [n if c.right else c.least for n, c in zip(natural, shown, strict=True)]
        widths = _squeezed(natural, least, width - INDENT - GAP * (len(shown) - 1))
        if widths is not None or len(shown) == 1:
            break
        cheapest = min(shown, key=lambda c: c.keep)
        shown.remove(cheapest)
        dropped.append(cheapest)
    return tuple(shown), widths or [width - INDENT], [c for c in candidates if c in dropped]


def _squeezed(natural: list[int], least: list[int], room: int) -> list[int] | None:
    """`natural` widths, the widest narrowed first, until they fit; None where even the least do not."""
    widths = list(natural)
    while sum(widths) > room:
        loose = [i for i, w in enumerate(widths) if w > least[i]]
        if not loose:
            return None
        widest = max(loose, key=lambda i: (widths[i], -i))
        widths[widest] -= 1
    return widths


def _row(cells: list[str], shown: tuple[Column, ...], widths: list[int]) -> str:
    padded = []
    for text, column, room in zip(cells, shown, widths, strict=True):
        short = _name_cell(text, room) if column.title == "component" else shorten(text, room)
        blanks = " " * (room - columns(short))
        padded.append(blanks + short if column.right else short + blanks)
    return " " * INDENT + (" " * GAP).join(padded)


def _name_cell(text: str, room: int) -> str:
    name, mark, copies = text.rpartition(" x")
    if not mark or not copies.isdigit():
        return short_path(text, room)
    return short_path(name, room - len(copies) - 2) + mark + copies


def _rule(level: tuple[Component, ...], width: int, paint: Callable[[str, str], str]) -> str:
    rank = str(level[0].rank)
    clocks = shorten(" | ".join(clock_words(*clock) for clock in level_clocks(level)), width - len(rank) - 12)
    rest = width - columns(clocks) - len(rank) - 6
    return f"{paint('──', DIM)} {paint(rank, BOLD)} {paint(clocks, ACCENT)} {paint('─' * max(rest, 0), DIM)}"


def _edge_lines(graph: LevelGraph, width: int, paint: Callable[[str, str], str]) -> list[str]:
    if not graph.edges:
        return [paint("no edges", DIM), ""]
    lines: list[str] = []
    short = short_names(graph)
    for kind in dict.fromkeys(e.kind for e in graph.edges):
        lines.append(paint(kind, ACCENT))
        by_target: dict[str, list[str]] = {}
        for edge in graph.edges:
            if edge.kind == kind:
                by_target.setdefault(edge.target, []).append(edge.source)
        # Targets with the same sources share a line.
        merged: dict[tuple[str, ...], list[str]] = {}
        for target, sources in by_target.items():
            merged.setdefault(tuple(dict.fromkeys(sources)), []).append(target)
        for sources, targets in merged.items():
            names = [
                *(short.get(s, plain(s)) for s in sources),
                "",
                *(short.get(t, plain(t)) for t in targets),
            ]
            lines += _arrow(names, len(sources), width)
    return [*lines, *_life_lines(graph, short, width, paint), ""]


def _life_lines(
    graph: LevelGraph, short: dict[str, str], width: int, paint: Callable[[str, str], str]
) -> list[str]:
    """Which shared weights return to their start and when, and which go on learning at test time."""
    lines: list[str] = []
    returning = [c for c in graph.components if c.reset not in ("", "never")]
    if returning:
        lines.append(paint("returns to its start", ACCENT))
        lines += [
            shorten(f"{' ' * INDENT}{short.get(c.path, plain(c.path))} {plain(c.reset)}", width)
            for c in returning
        ]
    plastic = [short.get(c.path, plain(c.path)) for c in graph.components if c.plastic]
    if plastic:
        lines.append(paint("goes on learning at test time", ACCENT))
        lines += [shorten(f"{' ' * INDENT}{name}", width) for name in plastic]
    return lines


def _arrow(names: list[str], sources: int, width: int) -> list[str]:
    """`a, b -> c, d`, wrapped at `width`."""
    room = width - INDENT - 4
    words: list[str] = []
    for i, name in enumerate(names):
        if i == sources:
            words.append("->")
        else:
            last = i in (sources - 1, len(names) - 1)
            words.append(short_path(name, room) + ("" if last else ","))
    lines, line = [], " " * INDENT
    for word in words:
        if columns(line) + columns(word) + 1 > width and line.strip():
            lines.append(line)
            line = " " * (INDENT + 2)
        line += word if not line.strip() else f" {word}"
    return [*lines, line]


def _facts(graph: LevelGraph, width: int, paint: Callable[[str, str], str]) -> list[str]:
    facts = [f"1 {unit} = {amount(n, 'token')}" for unit, n in graph.facts.items() if unit != "token"]
    facts += [f"{graph.steps:,} steps in the run"] if graph.steps is not None else []
    return _wrapped("", facts, width, paint) if facts else []


def _wrapped(head: str, phrases: list[str], width: int, paint: Callable[[str, str], str]) -> list[str]:
    """Phrases joined by commas, broken only between phrases."""
    lines, line = [], head
    for i, phrase in enumerate(phrases):
        piece = phrase + ("," if i + 1 < len(phrases) else "")
        if columns(line) + columns(piece) + 1 > width and line.strip():
            lines.append(line.rstrip())
            line = ""
        line += piece if not line or line.endswith(" ") else f" {piece}"
    return [paint(text, DIM) for text in [*lines, line]]
