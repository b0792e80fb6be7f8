"""SVG elements in the making, with a record of where every text stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from nldsl.levels.draw.words import em_width, plain, shorten

CORNER = 6.0
BOLD = 1.09  # a bold face is that much wider


@dataclass(frozen=True, slots=True)
class TextBox:
    """The room a text takes, by a generous estimate, in px."""

    text: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(slots=True)
class Scene:
    """A growing list of elements."""

    parts: list[str] = field(default_factory=list)
    texts: list[TextBox] = field(default_factory=list)

    def text(
        self,
        x: float,
        y: float,
        content: str,
        *,
        size: float = 11,
        look: str = "ink",
        bold: bool = False,
        anchor: Literal["start", "middle", "end"] = "start",
        room: float | None = None,
    ) -> None:
        """Write on the baseline (x, y); what is longer than `room` px is shortened, with a tooltip."""
        whole = plain(content)
        factor = size * (BOLD if bold else 1.0)
        shown = whole if room is None else shorten(whole, room / factor, em_width)
        width = em_width(shown) * factor
        left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
        self.texts.append(TextBox(shown, left, y - size * 0.8, left + width, y + size * 0.22))
        weight = ' font-weight="600"' if bold else ""
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        tip = f"<title>{escape(whole)}</title>" if shown != whole else ""
        attributes = f'class="{look}" x="{px(x)}" y="{px(y)}" font-size="{px(size)}"{weight}{place}'
        self.parts.append(f"<text {attributes}>{tip}{escape(shown)}</text>")

    def rect(self, x: float, y: float, width: float, height: float, look: str, radius: float = 0) -> None:
        """A rectangle, with rounded corners if `radius` says so."""
        rounded = f' rx="{px(radius)}"' if radius else ""
        extent = f'x="{px(x)}" y="{px(y)}" width="{px(width)}" height="{px(height)}"'
        self.parts.append(f'<rect class="{look}" {extent}{rounded}/>')

    def path(self, d: str, look: str, *, more: str = "", title: str = "") -> None:
        """A path; `more` are further attributes, already escaped."""
        tip = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<path class="{look}"{more} d="{d}">{tip}</path>'
            if tip
            else f'<path class="{look}"{more} d="{d}"/>'
        )

    def open(self, attributes: str) -> None:
        """Start a group."""
        self.parts.append(f"<g {attributes}>")

    def close(self) -> None:
        """End a group."""
        self.parts.append("</g>")


def px(number: float) -> str:
    """A coordinate with at most one decimal.

    >>> px(3.0), px(2.25), px(-0.01)
    ('3', '2.2', '0')
    """
    text = f"{number:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """Path data through `points`, every corner rounded as far as its arms allow."""
    d = f"M{px(points[0][0])} {px(points[0][1])}"
    for (x0, y0), (x1, y1), (x2, y2) in zip(points, points[1:], points[2:], strict=False):
        before, after = abs(x1 - x0) + abs(y1 - y0), abs(x2 - x1) + abs(y2 - y1)
        radius = min(CORNER, before / 2, after / 2)
        ax, ay = x1 + (x0 - x1) / before * radius, y1 + (y0 - y1) / before * radius
        bx, by = x1 + (x2 - x1) / after * radius, y1 + (y2 - y1) / after * radius
        d += f"L{px(ax)} {px(ay)}Q{px(x1)} {px(y1)} {px(bx)} {px(by)}"
    return d + f"L{px(points[-1][0])} {px(points[-1][1])}"
