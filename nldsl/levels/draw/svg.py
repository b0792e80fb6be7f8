"""The level graph as SVG: lanes by frequency, a legend, and a time line of updates.

Self-contained, with system fonts, light or dark as the viewer prefers, and fit for inlining in a notebook.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from nldsl.levels.draw.layout import BOX_HEIGHT, BOX_WIDTH, GUTTER, Box, Layout, layout
from nldsl.levels.draw.scene import BOLD, Scene, polyline, px
from nldsl.levels.draw.style import EDGES, sheet, slug
from nldsl.levels.draw.timeline import Row, Scale, marks, rows_of, scale_for, ticks
from nldsl.levels.draw.words import (
    clock_words,
    count,
    em_width,
    level_clocks,
    plain,
    short_path,
    state_words,
    tokens,
    totals,
    where,
)
from nldsl.levels.graph import Clock, Component, LevelGraph

MARGIN = 18
LEAST_WIDTH = 640
ROW = 20  # of the time line
CLOCKS_SHOWN = 2  # in a lane's gutter


def as_svg(graph: LevelGraph) -> str:
    """One SVG document: title, lanes, legend, time line."""
    scene, width, height = compose(graph)
    return document(scene, width, height, f"Level graph of {plain(graph.name)}")


def compose(graph: LevelGraph, *, time_line: bool = True) -> tuple[Scene, float, float]:
    """The scene with its width and height in px; tests look at its texts."""
    scene = Scene()
    plan = layout(graph, LEAST_WIDTH) if graph.components else Layout((), (), (), (), LEAST_WIDTH, 0.0)
    width = plan.width + 2 * MARGIN
    y = _heading(scene, graph, width)
    y = _lanes(scene, graph, plan, y)
    y = _legend(scene, graph, width, y)
    if time_line:
        y = draw_time_line(scene, graph, width, y + 10)
    return scene, width, y + MARGIN


def time_line_document(graph: LevelGraph, width: float) -> str:
    """The time line on its own, for the page."""
    scene = Scene()
    height = draw_time_line(scene, graph, width, 0, title=False)
    return document(scene, width, height + 6, f"Time line of {plain(graph.name)}")


def document(scene: Scene, width: float, height: float, title: str) -> str:
    """The SVG text of a scene."""
    w, h = px(width), px(height)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nl-levels" role="img" viewBox="0 0 {w} {h}" '
        f'width="{w}" height="{h}" style="max-width:100%;height:auto">'
    )
    paper = f'<rect class="paper" width="{w}" height="{h}"/>'
    return (
        "\n".join(
            [
                head,
                f"<title>{escape(title)}</title>",
                f"<style>{sheet()}</style>",
                paper,
                *scene.parts,
                "</svg>",
            ]
        )
        + "\n"
    )


# -- heading ---------------------------------------------------------------------------------------


def _heading(scene: Scene, graph: LevelGraph, width: float) -> float:
    scene.text(MARGIN, MARGIN + 15, graph.name, size=17, bold=True, room=width - 2 * MARGIN)
    y = MARGIN + 34.0
    for line in flowed(totals(graph), " · ", width - 2 * MARGIN, 11.5):
        scene.text(MARGIN, y, line, size=11.5, look="soft")
        y += 16
    return y + 2


def flowed(phrases: Iterable[str], glue: str, room: float, size: float) -> list[str]:
    """Phrases joined by `glue` in lines of at most `room` px."""
    lines: list[str] = []
    for phrase in phrases:
        longer = f"{lines[-1]}{glue}{phrase}" if lines else phrase
        if lines and em_width(longer) * size <= room:
            lines[-1] = longer
        else:
            lines.append(phrase)
    return lines


# -- lanes -----------------------------------------------------------------------------------------


def _lanes(scene: Scene, graph: LevelGraph, plan: Layout, top: float) -> float:
    numbers = {c.path: i for i, c in enumerate(graph.components)}
    for lane in plan.lanes:
        y = top + lane.y
        scene.rect(MARGIN, y, plan.width, lane.height, "lane", 7)
        _gutter(scene, lane.level, y, lane.height)
    dx = float(MARGIN)
    scene.open('class="wires"')
    for wire in plan.wires:
        kind = wire.net.kind
        lines = "".join(polyline([(x + dx, y + top) for x, y in line]) for line in wire.lines)
        scene.path(lines, f"wire e-{slug(kind)}")
        for x, y in wire.joints:
            scene.path(
                f"M{px(x + dx - 2.6)} {px(y + top)}a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0 -5.2 0z",
                f"tip e-{slug(kind)}",
            )
        for x, y, down in wire.arrows:
            tip_x, tip_y, back = x + dx, y + top, -7 * down
            scene.path(f"M{px(tip_x)} {px(tip_y)}l-3.8 {px(back)}h7.6z", f"tip e-{slug(kind)}")
    scene.close()
    for wire in plan.wires:
        kind = wire.net.kind
        for source, target, route in wire.routes:
            scene.path(
                polyline([(x + dx, y + top) for x, y in route]),
                f"route e-{slug(kind)}",
                more=f' data-s="{numbers[source]}" data-t="{numbers[target]}"',
                title=f"{plain(source)} → {plain(target)}: {kind}",
            )
    for box, kind in plan.loops:
        x, y = box.x + dx + BOX_WIDTH, box.y + top + 20
        scene.path(
            f"M{px(x)} {px(y)}h6q5 0 5 5v8q0 5 -5 5h-4", f"wire e-{slug(kind)}", title=f"itself: {kind}"
        )
        scene.path(f"M{px(x)} {px(y + 18)}l6 -3.5v7z", f"tip e-{slug(kind)}")
    for box in plan.boxes:
        _box(scene, box, dx, top, numbers[box.component.path])
    return top + plan.height + 8


def _gutter(scene: Scene, level: tuple[Component, ...], y: float, height: float) -> None:
    clocks = level_clocks(level)
    lines = [line for clock in clocks[:CLOCKS_SHOWN] for line in clock_lines(*clock)]
    if len(clocks) > CLOCKS_SHOWN:
        lines = [line for clock in clocks[:CLOCKS_SHOWN] for line in clock_lines(*clock)[:1]]
        lines.append((f"and {len(clocks) - CLOCKS_SHOWN} more", "soft"))
    lines = lines[:4]
    middle = y + height / 2
    rank = str(level[0].rank)
    scene.text(MARGIN + 12, middle + 8, rank, size=23, bold=True, look="soft", room=40)
    start = middle - (len(lines) - 1) * 7.5 + 4
    for i, (words, look) in enumerate(lines):
        scene.text(
            MARGIN + 50, start + i * 15, words, size=12 if look == "ink" else 11, look=look, room=GUTTER - 54
        )


def clock_lines(clock: Clock, tokens_per_update: float) -> list[tuple[str, str]]:
    """A clock in one to three short lines, each with its look."""
    if clock.unit in ("always", "never"):
        return [(clock.unit, "ink"), ("non-parametric" if clock.unit == "always" else "frozen", "soft")]
    words = str(Clock(clock.period, clock.unit))
    lines = [(words, "ink")]
    extra = " ".join(
        ([f"offset {clock.offset}"] if clock.offset else []) + ([clock.partial] if clock.partial else [])
    )
    if extra:
        lines.append((extra, "soft"))
    if clock.unit != "token":
        lines.append((f"{tokens(tokens_per_update)} tokens", "soft"))
    return lines


def _box(scene: Scene, box: Box, dx: float, dy: float, number: int) -> None:
    part = box.component
    x, y = box.x + dx, box.y + dy
    scene.open(f'class="box" data-i="{number}"')
    scene.parts.append(f"<title>{escape(chr(10).join(full_words(part)))}</title>")
    scene.rect(x, y, BOX_WIDTH, BOX_HEIGHT, "card", 5)
    scene.path(
        f"M{px(x + 5)} {px(y)}h-1q-4 0 -4 4v{BOX_HEIGHT - 8}q0 4 4 4h1z",
        f"k-{slug(part.kind)}",
    )
    left, room = x + 13, BOX_WIDTH - 21.0
    copies = f"×{part.copies}" if part.copies > 1 else ""
    if copies:
        scene.text(x + BOX_WIDTH - 8, y + 18, copies, size=11, look="soft", bold=True, anchor="end")
    name_room = room - (em_width(copies) * 11 * BOLD + 6 if copies else 0)
    scene.text(left, y + 18, short_name(part.path, name_room / (12 * BOLD)), size=12, bold=True)
    scene.text(
        left,
        y + 33.5,
        " · ".join([part.kind, *([part.rule] if part.rule else [])]),
        size=10.5,
        look="soft",
        room=room,
    )
    scene.text(left, y + 48, numbers_words(part), size=10.5, look="soft", room=room)
    scene.close()


def short_name(path: str, room: float) -> str:
    """The last segments of a path that fit in `room` em; the tooltip has all of it."""
    short = short_path(plain(path), room, em_width)
    # Whole segments speak for themselves; a cut inside a segment stays visible.
    return short.removeprefix("…") if short.startswith("…") and path.endswith("." + short[1:]) else short


def numbers_words(part: Component) -> str:
    """Parameters and state, as far as there are any."""
    numbers = [f"{count(part.parameters)} params"] if part.parameters else []
    return " · ".join([*numbers, *([state_words(part)] if part.state_bytes else [])])


def full_words(part: Component) -> list[str]:
    """All that is known of a component, one line each."""
    place = where(part)
    lines = [
        plain(part.path) + (f" ×{part.copies}" if part.copies > 1 else ""),
        f"{part.kind}, {clock_words(part.clock, part.tokens_per_update)}",
        f"learns from {plain(part.learns_from)}" if part.learns_from else "",
        f"rule {plain(part.rule)}" if part.rule else "",
        f"taught by {plain(part.taught_by)}" if part.taught_by else "",
        f"{part.parameters:,} parameters" if part.parameters else "",
        f"state {state_words(part)}" if part.state_bytes else "",
        f"{part.flops_per_token:,} FLOPs per token" if part.flops_per_token else "",
        plain(place or ""),
    ]
    return [line for line in lines if line]


# -- legend ----------------------------------------------------------------------------------------


def _legend(scene: Scene, graph: LevelGraph, width: float, y: float) -> float:
    kinds = [k for k in EDGES if any(e.kind == k for e in graph.edges)]
    if not kinds:
        return y
    x, y = float(MARGIN), y + 14
    for kind in kinds:
        needed = 52 + em_width(kind) * 11.5 + 16
        if x > MARGIN and x + needed > width - MARGIN:
            x, y = float(MARGIN), y + 18
        scene.path(f"M{px(x + 2)} {px(y - 4)}h34", f"wire e-{slug(kind)}")
        scene.path(f"M{px(x + 44)} {px(y - 4)}l-7 -3.8v7.6z", f"tip e-{slug(kind)}")
        scene.text(x + 52, y, kind, size=11.5)
        x += needed
    return y + 8


# -- time line -------------------------------------------------------------------------------------


def draw_time_line(scene: Scene, graph: LevelGraph, width: float, top: float, *, title: bool = True) -> float:
    """Rows of marks, one for each clock of each level, over an axis in tokens; returns where it ends."""
    rows = rows_of(graph)
    left = float(MARGIN + GUTTER)
    scale = scale_for(rows, width - MARGIN - 14 - left)
    if scale is None:
        return top
    note = "" if scale.kind == "linear" else ", logarithmic"
    if title:
        scene.text(MARGIN, top + 14, "Updates along one stream", size=12.5, bold=True)
    scene.text(width - MARGIN, top + 14, f"tokens{note}", size=11, look="soft note", anchor="end")
    first = top + 28
    for i, row in enumerate(rows):
        _time_label(scene, row, first + (i + 0.5) * ROW, shows_rank=i == 0 or rows[i - 1].rank != row.rank)
    # The page's script redraws this group at other scales and reads where it stands.
    scene.open(
        f'class="plot" data-x="{px(left)}" data-y="{px(first)}" data-w="{px(scale.width)}" data-h="{ROW}"'
    )
    bottom = first + len(rows) * ROW
    labels = _tick_labels(rows, scale, left)
    scene.path("".join(f"M{px(x)} {px(first)}V{px(bottom + 4)}" for x, _ in labels), "grid")
    for i, row in enumerate(rows):
        _time_row(scene, row, scale, left, first + (i + 0.5) * ROW)
    for x, label in labels:
        scene.text(x, bottom + 17, label, size=10.5, look="soft", anchor="middle")
    scene.close()
    return bottom + 22


def _time_label(scene: Scene, row: Row, middle: float, *, shows_rank: bool) -> None:
    if shows_rank:
        scene.text(MARGIN + 12, middle + 4, str(row.rank), size=12, bold=True, look="soft", room=36)
    words = str(Clock(row.clock.period, row.clock.unit)) + (
        f" +{row.clock.offset}" if row.clock.offset else ""
    )
    scene.text(MARGIN + 50, middle + 4, words, size=11, room=GUTTER - 58)


def _time_row(scene: Scene, row: Row, scale: Scale, left: float, middle: float) -> None:
    scene.path(f"M{px(left)} {px(middle)}h{px(scale.width)}", "grid")
    lines, band = marks(row, scale)
    if band is not None:
        scene.rect(left + band, middle - 6, scale.width - band, 12, "band")
    if lines:
        scene.path(
            "".join(f"M{px(left + x)} {px(middle - 6)}v12" for x in lines), "mark", more=' stroke-width="1.5"'
        )


def _tick_labels(rows: tuple[Row, ...], scale: Scale, left: float) -> list[tuple[float, str]]:
    """Ticks far enough apart for their labels."""
    out: list[tuple[float, str]] = []
    free = -1e9
    for tick in ticks(rows, scale):
        label = tokens(tick)
        x, half = left + scale.x(tick), em_width(label) * 10.5 / 2
        if x - half > free:
            out.append((x, label))
            free = x + half + 8
    return out
