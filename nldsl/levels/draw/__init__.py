"""Drawings of a level graph: `render(graph, format)` gives one string, in one of six formats."""

from __future__ import annotations

from nldsl.levels.draw.data import as_json
from nldsl.levels.draw.dot import as_dot
from nldsl.levels.draw.mermaid import as_mermaid
from nldsl.levels.draw.page import as_html
from nldsl.levels.draw.svg import as_svg
from nldsl.levels.draw.text import as_text
from nldsl.levels.graph import LevelGraph

__all__ = ["FORMATS", "as_dot", "as_html", "as_json", "as_mermaid", "as_svg", "as_text", "render"]

FORMATS = ("text", "mermaid", "dot", "svg", "html", "json")


def render(graph: LevelGraph, format: str, *, width: int = 100, color: bool = False) -> str:
    """Draw `graph`; `width` (in columns) and `color` (ANSI escapes) matter to `text` alone.

    The result ends in a newline and depends on the arguments only: no time, no machine, no
    random identifiers.  Raises `ValueError` for a format that is not in `FORMATS`.

    >>> from nldsl.levels.graph import LevelGraph
    >>> render(LevelGraph("Empty", (), (), {"token": 1}), "dot").splitlines()[0]
    'digraph "Empty" {'
    """
    match format:
        case "text":
            return as_text(graph, width=width, color=color)
        case "mermaid":
            return as_mermaid(graph)
        case "dot":
            return as_dot(graph)
        case "svg":
            return as_svg(graph)
        case "html":
            return as_html(graph)
        case "json":
            return as_json(graph)
        case _:
            raise ValueError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
