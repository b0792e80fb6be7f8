"""The level graph as one interactive HTML page, with nothing fetched from anywhere."""

from __future__ import annotations

import json
from html import escape

from nldsl.levels.draw.data import as_data
from nldsl.levels.draw.page_assets import SCRIPT, STYLE
from nldsl.levels.draw.svg import compose, document, time_line_document
from nldsl.levels.draw.timeline import PERIODS, rows_of
from nldsl.levels.draw.words import count, plain, size, tokens
from nldsl.levels.graph import Component, LevelGraph

HEADINGS = (
    *("level", "component", "kind", "clock", "tokens/update", "learns from", "rule", "taught by"),
    *("parameters", "state", "FLOPs/token", "copies"),
)


def as_html(graph: LevelGraph) -> str:
    """A page with the drawing, a panel of numbers, a sortable table and a time line to zoom."""
    scene, width, height = compose(graph, time_line=False)
    name = escape(plain(graph.name))
    drawing = document(scene, width, height, f"Level graph of {plain(graph.name)}")
    times = time_line_document(graph, width)
    rows = rows_of(graph)
    finite = [r.period for r in rows if 0 < r.period < float("inf")]
    facts = {
        "graph": as_data(graph),
        "rows": [
            {"rank": r.rank, "words": str(r.clock), "period": r.period if r.period in finite else None,
             "always": r.period == 0, "offset": r.offset if r.period in finite else 0}
            for r in rows
        ],
        "longest": max(finite, default=0) * PERIODS,
        "shortest": min(finite, default=0),
    }  # fmt: skip
    headings = "".join(f'<th scope="col"><button type="button">{h}</button></th>' for h in HEADINGS)
    zoom = (
        '<label class="zoom">zoom <input id="zoom" type="range" min="0" max="1000" value="0">'
        '<output id="span"></output></label>'
        if finite
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name}: level graph</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<figure id="drawing">
{drawing}</figure>
<aside id="panel" aria-live="polite">
<p>Point at a component to see its edges; click it for all its numbers.</p>
</aside>
<section><h2>Updates along one stream</h2>{zoom}
<figure id="times">
{times}</figure></section>
<section><h2>Levels</h2>
<div class="scroll"><table id="levels">
<thead><tr>{headings}</tr></thead>
<tbody>
{chr(10).join(_row(i, c) for i, c in enumerate(graph.components))}
</tbody>
</table></div></section>
</main>
<script type="application/json" id="facts">{script_json(facts)}</script>
<script>
{SCRIPT}</script>
</body>
</html>
"""


def _row(number: int, part: Component) -> str:
    state = (size(part.state_bytes) + ("/seq" if part.per_sequence else "")) if part.state_bytes else ""
    # Each cell with the value that it sorts by; 1e999 is JavaScript's infinity.
    cells: tuple[tuple[str, float | str], ...] = (
        (str(part.rank), part.rank),
        (part.path, part.path),
        (part.kind, part.kind),
        (str(part.clock), part.tokens_per_update),
        (tokens(part.tokens_per_update), part.tokens_per_update),
        (part.learns_from, part.learns_from),
        (part.rule, part.rule),
        (part.taught_by or "", part.taught_by or ""),
        (count(part.parameters), part.parameters),
        (state, part.state_bytes),
        (count(part.flops_per_token), part.flops_per_token),
        (str(part.copies), part.copies),
    )
    tds = "".join(_cell(text, value) for text, value in cells)
    return f'<tr data-i="{number}" tabindex="0">{tds}</tr>'


def _cell(text: str, value: float | str) -> str:
    if isinstance(value, str):
        return f"<td>{escape(plain(text))}</td>"
    number = "1e999" if value == float("inf") else f"{value:.15g}"
    return f'<td class="n" data-v="{number}">{escape(plain(text))}</td>'


def script_json(value: object) -> str:
    """JSON that no HTML parser takes for markup, whatever the strings in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
