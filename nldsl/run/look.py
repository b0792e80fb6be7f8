"""How pages and pictures about runs and studies look: one style, nothing outside the page."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable
from typing import Any

COLOURS = ("#2a6fbb", "#c8553d", "#3a8f5c", "#8a5fb0", "#b8860b", "#4a8c9c", "#a04878", "#6b7280")
GREY = "#7d8695"

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6472; --line: #d9dde3; --paper: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #343c48; --paper: #14181e; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 62rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem; }
p.lead { color: var(--soft); margin: .2rem 0 1.2rem; }
figure { margin: 0; } figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .87rem; margin-top: .3rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.6rem, 1fr)); gap: .75rem; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: .55rem .8rem; }
.tile b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; font-weight: 600; }
.tile span { color: var(--soft); font-size: .82rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top; }
tr { border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); border-radius: 8px;
      padding: .8rem 1rem; margin: 0; font: .85rem/1.5 ui-monospace, monospace; }
i.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em; }
details summary { cursor: pointer; color: var(--soft); }
.bad { border-left: 4px solid #c8553d; padding: .4rem .9rem; }
"""


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """A whole page of `parts`, which are HTML; `style` is CSS that this kind of page adds."""
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f"{meta}<title>{html.escape(title)}</title><style>{STYLE}{style}</style>"
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def figure(title: str, picture: str, caption: str) -> str:
    """A picture under its title, with what it shows."""
    return f"<h2>{title}</h2><figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


def svg(paint: Callable[[Any], None], *, width: float = 9, height: float = 3.4) -> str:
    """What `paint` draws on a matplotlib figure of `width` x `height` inches, as SVG, its text as text.

    The same drawing gives the same bytes.  Paper and panels are clear, so that it fits light and dark pages.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "nldsl",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": GREY,
        "axes.edgecolor": GREY,
        "axes.labelcolor": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
    }
    with mpl.rc_context(style):
        canvas = Figure(figsize=(width, height), layout="constrained")
        canvas.patch.set_alpha(0)
        paint(canvas)
        text = io.StringIO()
        FigureCanvasSVG(canvas).print_svg(text, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :].strip()


def smooth(values: list[float]) -> list[float]:
    """A running mean that forgets; corrected at the start.

    >>> smooth([2.0, 2.0, 2.0])
    [2.0, 2.0, 2.0]
    """
    keep = 1 - 1 / max(1.0, min(50.0, len(values) / 40))
    mean, weight, smoothed = 0.0, 0.0, []
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(mean / weight)
    return smoothed
