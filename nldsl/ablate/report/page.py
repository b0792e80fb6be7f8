"""A report as one HTML page with nothing outside it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import replace

from nldsl.ablate.report import words as w
from nldsl.ablate.report.facts import Facts, Line
from nldsl.ablate.report.tables import (
    Cell,
    Column,
    Table,
    main_table,
    measures_table,
    place_of,
    reasons_table,
    spec_of,
    tasks_table,
    trials_table,
)
from nldsl.run.look import figure, page

STYLE = """
:root { --worse: #b5442d; --better: #2c7a4b; --link: #2a6fbb; --wash: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --worse: #ea8a74; --better: #74c795; --link: #7fb2ea; --wash: #1b212a; }
}
body { max-width: 74rem; }
a { color: inherit; text-decoration: underline; text-decoration-color: var(--line);
    text-underline-offset: .18em; }
a:hover { color: var(--link); text-decoration-color: currentColor; }
h3 { font-size: .95rem; margin: 1.3rem 0 .4rem; }
ul.found { list-style: none; padding: 0; margin: .4rem 0 0; display: grid; gap: .3rem; }
ul.found li { padding-left: 1.1rem; position: relative; overflow-wrap: anywhere; }
ul.found li::before { content: ""; position: absolute; left: 0; top: .48em; width: .6em; height: .6em;
    border-radius: 50%; border: 1.5px solid var(--soft); box-sizing: border-box; }
ul.found li.worse::before { background: var(--worse); border-color: var(--worse); }
ul.found li.better::before { background: var(--better); border-color: var(--better); }
ul.found li.soft, td.soft { color: var(--soft); }
td.worse { color: var(--worse); } td.better { color: var(--better); }
.wide { overflow-x: auto; } .wide td { white-space: nowrap; } .wide th { font-size: .85rem; }
.wide td.words { white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
td small { color: var(--soft); margin-left: .35em; font-size: .85em; }
td.n small { display: block; margin: 0; }
td.seeds a { display: inline-block; min-width: 1.1em; text-align: center; margin-right: .25em; }
tr.base { background: var(--wash); }
tr:target, section:target h3 { background: var(--wash); }
th { vertical-align: bottom; }
p.note { color: var(--soft); font-size: .87rem; margin: .6rem 0 0; }
.bad { margin: 0 0 1.2rem; } .bad p { margin: .15rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .9rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
details > summary { color: var(--ink); }
details .inside { padding: .4rem 0 .8rem 1.1rem; }
@media (max-width: 45rem) {
  figure { overflow-x: auto; } figure svg { min-width: 40rem; } figcaption { position: sticky; left: 0; }
}
@media print {
  :root { --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --worse: #a33;
          --better: #275; --wash: #eee; }
  html, body { font-size: 11px; } body { max-width: none; margin: 0; } a { text-decoration: none; }
  figure, table, .tile, li { break-inside: avoid; } .wide { overflow: visible; }
  .wide td, .wide th { white-space: normal; padding-right: .4rem; } .wide td.n { white-space: nowrap; }
  .wide td.words { min-width: 8rem; }
}
"""

TITLES = {
    "effects": "Effects",
    "curves": "Learning curves",
    "differences": "How the difference grew",
    "costs": "Cost and quality",
    "forgetting": "Tasks",
}
CAPTIONS = {
    "effects": """The mean effect with its interval, and a tick for each seed. An interval that holds 0 tells
        nothing; a hollow mark has too few seeds for a verdict. Numbers are rows of the table.""",
    "curves": "Means over seeds; thin lines are single seeds. The fall at the start is cut off.",
    "differences": """The held-out loss less that of the baseline with the same seed at the same step: thin
        lines are seeds, the thick one is their mean. Above 0 is worse.""",
    "costs": """Each variant by its number in the table, the baseline in blue. Bars are the standard deviation
        over seeds.""",
    "forgetting": "What each task gets from when it was learned to the end. Thin lines are single seeds.",
}


def as_html(facts: Facts, pictures: Mapping[str, str]) -> str:
    """The page; `pictures` are SVG by the names of `CAPTIONS`, and those that are empty are left out."""
    parts = [
        f"<h1>{_text(facts.name)}</h1>",
        f'<p class="lead">{_text(w.heading(facts))}</p>',
        _caveats(facts),
        _tiles(facts),
        "<h2>What came out</h2>",
        _found(facts),
    ]
    parts += _picture(pictures, "effects")
    parts += ["<h2>Variants</h2>", _table(_compact(main_table(facts)), facts)]
    parts.append(f'<p class="note">{_text(w.legend(facts))}</p>')
    measures, tasks, reasons = measures_table(facts), tasks_table(facts), reasons_table(facts)
    if measures is not None:
        parts += ["<h2>Other measures</h2>", _table(measures, facts)]
    for name in ("differences", "curves", "costs", "forgetting"):
        parts += _picture(pictures, name)
    if tasks is not None:
        parts.append(_table(tasks, facts))
    if reasons is not None:
        parts += ["<h2>Not in the table, or only in part</h2>", _table(reasons, None)]
    parts += ["<h2>Trials</h2>", *(_variant(line, facts) for line in facts.lines)]
    parts += ["<h2>How it was compared</h2>", *(f"<p>{_text(text)}</p>" for text in w.method(facts))]
    parts += _about(facts)
    return page(f"{facts.name}: report of a study", [part for part in parts if part], STYLE)


def _text(text: str) -> str:
    return html.escape(text)


def _caveats(facts: Facts) -> str:
    told = "".join(f"<p>{_text(text)}.</p>" for text in w.caveats(facts))
    return f'<div class="bad">{told}</div>' if told else ""


def _tiles(facts: Facts) -> str:
    done = sum(one.done for one in facts.trials)
    seconds = sum(one.seconds for one in facts.trials)
    mean, spread = facts.baseline.mean(facts.measure), facts.baseline.spread(facts.measure)
    tiles: list[tuple[str, str]] = []
    if mean is not None:
        unit = w.unit_of(facts.measure, facts)
        around = "" if spread is None else f" ± {spread:.3f}"
        tiles.append(
            (
                f"{mean:.3f}{around}",
                f"{w.title_of(facts.measure)} of the baseline{f', {unit}' if unit else ''}",
            )
        )
    verdicts = [line.effects[facts.measure].verdict for line in facts.others if facts.measure in line.effects]
    if any(verdict != "too few seeds" for verdict in verdicts):
        tiles.append((str(verdicts.count("worse")), "are worse"))
        tiles.append((str(verdicts.count("better")), "are better"))
        tiles.append((str(verdicts.count("nothing can be told")), "of which nothing can be told"))
    tiles.append((f"{done:,} of {len(facts.trials):,}", "trials done"))
    if seconds:
        tiles.append((w.seconds_of(seconds), "of processor time"))
    shown = "".join(f'<div class="tile"><b>{_text(n)}</b><span>{_text(t)}</span></div>' for n, t in tiles)
    return f'<div class="tiles">{shown}</div>'


def _found(facts: Facts) -> str:
    items: list[str] = []
    for line, text in w.findings(facts):
        effect = line.effects.get(facts.measure)
        verdict = "" if effect is None else effect.verdict
        tone = verdict if verdict in ("worse", "better") else "soft"
        items.append(
            f'<li class="{tone}"><a href="#v{line.number}">{line.number}</a>&ensp;{_text(text)}</li>'
        )
    return f'<ul class="found">{"".join(items)}</ul>'


def _picture(pictures: Mapping[str, str], name: str) -> list[str]:
    picture = pictures.get(name)
    caption = " ".join(CAPTIONS[name].split())
    return [figure(TITLES[name], picture, caption)] if picture else []


def _table(table: Table, facts: Facts | None) -> str:
    """A table; with `facts` its rows are the lines of the study, and their numbers lead to the trials."""
    table = table.filled
    head = "".join(_title(column) for column in table.columns)
    rows: list[str] = []
    for row in table.rows:
        number = row[0].text
        base = facts is not None and number == str(facts.baseline.number)
        cells = "".join(
            _cell(cell, column, anchored=facts is not None and cell is row[0])
            for cell, column in zip(row, table.columns, strict=True)
        )
        rows.append(f"<tr{' class=base' if base else ''}>{cells}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _compact(table: Table) -> Table:
    """The main table with intervals below their effects, so that it fits a page."""
    titles = [column.title for column in table.columns]
    effect, interval = titles.index("effect"), titles.index("interval")
    rows = tuple(
        tuple(
            replace(cell, note=row[interval].text) if i == effect else cell
            for i, cell in enumerate(row)
            if i != interval
        )
        for row in table.rows
    )
    return Table(tuple(column for i, column in enumerate(table.columns) if i != interval), rows)


def _title(column: Column) -> str:
    return f"<th{' class=n' if column.number else ''}>{_text(column.long or column.title)}</th>"


def _cell(cell: Cell, column: Column, *, anchored: bool = False) -> str:
    kinds = [name for name, on in (("n", column.number), ("words", column.title in ("variant", "why"))) if on]
    kinds += [cell.tone] if cell.tone else []
    kinds += ["seeds"] if cell.more else []
    inside = _linked(cell) + "".join(_linked(one) for one in cell.more)
    if anchored:
        inside = f'<a href="#v{cell.text}">{cell.text}</a>'
    note = f"<small>{_text(cell.note)}</small>" if cell.note else ""
    return f'<td class="{" ".join(kinds)}">{inside}{note}</td>' if kinds else f"<td>{inside}{note}</td>"


def _linked(cell: Cell) -> str:
    text = (
        _text(cell.text).replace(".", ".<wbr>") if "." in cell.text.strip(".0123456789") else _text(cell.text)
    )
    return f'<a href="{_text(cell.link)}">{text}</a>' if cell.link and text else text


def _variant(line: Line, facts: Facts) -> str:
    """All about one variant: what it changes and asks, its spec, and each of its trials."""
    row, runs = line.row, place_of(line)
    words = f"{line.number}. {row.words}{' (baseline)' if line is facts.baseline else ''}"
    said = [
        ("asks", _text(row.question)),
        ("changes", "<br>".join(_text(change) for change in row.changes)),
        ("budget", _text(row.matched)),
        ("the same as", "<br>".join(_text(one) for one in row.merged)),
        ("spec", f'<a href="{_text(spec_of(line))}">variants/{_text(row.name)}/spec.nl</a>'),
        ("runs", f'<a href="{_text(runs)}">runs/{_text(row.name)}/</a>' if runs else ""),
        ("digest", f"<code>{_text(row.digest[:16])}</code>" if row.digest else ""),
    ]
    facts_of = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in said if value)
    table = _table(trials_table(line, facts), None) if line.outcomes else ""
    inside = f'<div class="inside" id="v{line.number}"><dl>{facts_of}</dl><br>{table}</div>'
    return f"<details><summary>{_text(words)}</summary>{inside}</details>"


def _about(facts: Facts) -> list[str]:
    parts: list[str] = []
    if facts.about:
        told = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.about)
        parts += ["<h2>How it was run</h2>", f"<dl>{told}</dl>"]
    if facts.block:
        parts += ["<h2>The block</h2>", f"<pre>{_text(facts.block)}</pre>"]
    return parts
