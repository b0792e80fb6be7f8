"""A report as LaTeX: a document of one table, by booktabs, whose rows name what they come from."""

from __future__ import annotations

import re

from nldsl.ablate.report import words as w
from nldsl.ablate.report.facts import Facts
from nldsl.ablate.report.tables import Cell, main_table

_PLAIN = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    w.MINUS: "$-$",
    "…": r"\ldots{}",
}
_LEFT_OUT = frozenset({"seeds", "#"})

HEAD = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
"""


def as_latex(facts: Facts) -> str:
    """A whole document; its `table` can be cut out and needs booktabs and graphicx."""
    return f"{HEAD}\n{table(facts)}\n\\end{{document}}\n"


def table(facts: Facts) -> str:
    """The main table.  Before each row, a comment names its spec, its runs and their seeds."""
    made = main_table(facts)
    used = [i for i, c in enumerate(made.columns) if c.title not in _LEFT_OUT]
    used = [i for i in used if any(row[i].text for row in made.rows)]
    columns = [made.columns[i] for i in used]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(_caption(facts))}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{''.join('r' if c.number else 'l' for c in columns)}@{{}}}}",
        r"\toprule",
        " & ".join(escaped(c.long or c.title) for c in columns) + r" \\",
        r"\midrule",
    ]
    for line, row in zip(facts.lines, made.rows, strict=True):
        seeds = ", ".join(str(one.seed) for one in line.done) or "none"
        lines.append(f"% variants/{line.row.name}/spec.nl; runs/{line.row.name}/seed-N, N = {seeds}")
        lines.append(" & ".join(_cell(row[i]) for i in used) + r" \\")
        if line is facts.baseline:
            lines.append(r"\midrule")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    r"""Text in which nothing is a command.

    >>> escaped("50 % of a_b |> c")
    '50 \\% of a\\_b \\textbar{}\\textgreater{} c'
    """
    return re.sub(r"[\\{}$&#%_~^|<>\"±−…]", lambda found: _PLAIN[found.group()], text).replace("\n", " ")


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    return f"{text} {{\\small {escaped(cell.note)}}}" if cell.note else text


def _caption(facts: Facts) -> str:
    caveats = "".join(f" {text}." for text in w.caveats(facts))
    return f"{facts.name}: {w.heading(facts)}. {w.legend(facts)} {' '.join(w.method(facts))}{caveats}"
