"""Where things stand in the SVG: a grid of boxes in lanes, and edges routed in the channels between them.

Every level is a lane, fastest on top; boxes stand in columns by depth.  Edges run in *channels*, never over a
box: horizontal tracks between rows, vertical trunks between columns or through empty cells.  Edges of one
kind that meet in a component share a *net*, so that ten sources of one target make one bus with one arrow.
All lengths are in px.  The layout is exact arithmetic on small integers: same graph, same drawing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from nldsl.levels.draw.nets import Net, nets_of
from nldsl.levels.graph import Component, LevelGraph

GUTTER = 168  # room for rank and clock at the left of a lane
BOX_WIDTH = 174
BOX_HEIGHT = 58
MAX_COLUMNS = 6
LANE_PAD = 12
TRACK = 9  # distance of parallel edges
PORT = 11  # distance of ports along a box
MIN_GAP = 26  # between columns
MIN_CHANNEL = 14  # between lanes
RIGHT = 14


_Point = tuple[float, float]
_Line = tuple[_Point, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A component's rectangle; `row` counts over all lanes from the top."""

    component: Component
    row: int
    column: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Lane:
    """A level's band across the drawing."""

    level: tuple[Component, ...]
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Wire:
    """A routed net: `lines` to draw once, and each edge's own way from source to target.

    `arrows` are tips with a direction: 1 points down, -1 up.  `joints` are where three or more lines meet, to
    be told from mere crossings by a dot.
    """

    net: Net
    lines: tuple[_Line, ...]
    routes: tuple[tuple[str, str, _Line], ...]
    arrows: tuple[tuple[float, float, int], ...]
    joints: tuple[_Point, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The picture above the legend: boxes, lanes and wires within `width` x `height`."""

    boxes: tuple[Box, ...]
    lanes: tuple[Lane, ...]
    wires: tuple[Wire, ...]
    loops: tuple[tuple[Box, str], ...]  # edges from a component to itself, with their kind
    width: float
    height: float


@dataclass(slots=True)
class _Grid:
    cells: dict[tuple[int, int], Component]
    where: dict[str, tuple[int, int]]
    lane_of_row: list[int]
    column_count: int


@dataclass(slots=True)
class _Route:
    """A net on the grid: its channels, its trunk, then the tracks it was given."""

    net: Net
    stubs: list[tuple[str, int, int]]  # path, column, channel
    top: int
    bottom: int
    trunk: tuple[str, int] | None = None  # ("column", c) through cells, or ("gap", g) between columns
    slots: dict[int, float] = field(default_factory=dict)  # offset of the port or trunk in each column
    lane: float = 0.0  # offset of the trunk in its gap
    tracks: dict[int, int] = field(default_factory=dict)  # track number in each channel


def layout(graph: LevelGraph, least_width: float = 0.0) -> Layout:
    """Place the components of `graph` and route its edges.

    A graph narrower than `least_width` px stands in the middle of it.
    """
    grid = _grid(graph)
    known = [e for e in graph.edges if e.source in grid.where and e.target in grid.where]
    routes = [_on_grid(net, grid) for net in nets_of(known, {p: r for p, (r, _) in grid.where.items()})]
    gap_sizes = _give_trunks(routes, grid)
    _give_slots(routes, grid.column_count)
    own_width = GUTTER + grid.column_count * BOX_WIDTH + sum(gap_sizes) + RIGHT
    lefts = _column_lefts(gap_sizes, max(least_width - own_width, 0.0) / 2)
    channel_tracks = _give_tracks(routes, grid, lefts, gap_sizes)
    tops, lanes, height, channel_y = _rows(graph, grid, channel_tracks)
    boxes = tuple(
        Box(c, row, col, lefts[col], tops[row])
        for (row, col), c in sorted(grid.cells.items(), key=lambda i: i[0])
    )
    by_path = {b.component.path: b for b in boxes}
    wires = tuple(_wire(r, by_path, lefts, gap_sizes, channel_y) for r in routes)
    loops = tuple((by_path[e.source], e.kind) for e in known if e.source == e.target)
    return Layout(boxes, lanes, wires, loops, max(own_width, least_width), height)


# -- boxes -----------------------------------------------------------------------------------------


def _grid(graph: LevelGraph) -> _Grid:
    """Rows and columns: one column for each place in depth, or `MAX_COLUMNS` in proportion to it."""
    depths = sorted({c.depth for c in graph.components})
    most = {d: max(sum(c.depth == d for c in level) for level in graph.levels) for d in depths}
    first = {d: sum(most[e] for e in depths if e < d) for d in depths}
    total = sum(most.values())
    widest = max((len(level) for level in graph.levels), default=1)
    count = max(min(total, MAX_COLUMNS), min(widest, MAX_COLUMNS), 1)
    grid = _Grid({}, {}, [], count)
    for lane, level in enumerate(graph.levels):
        ordered = sorted(level, key=lambda c: c.depth)
        rows = -(-len(ordered) // count)
        per_row = -(-len(ordered) // rows)
        for start in range(0, len(ordered), per_row):
            row = len(grid.lane_of_row)
            grid.lane_of_row.append(lane)
            chunk = ordered[start : start + per_row]
            wanted = [first[c.depth] * count / max(total, 1) for c in chunk]
            for column, component in zip(_spread(wanted, count), chunk, strict=True):
                grid.cells[row, column] = component
                grid.where[component.path] = (row, column)
    return grid


def _spread(wanted: list[float], count: int) -> list[int]:
    """Distinct columns in order, each as near to what is wanted as the others leave room for."""
    taken: list[int] = []
    for i, place in enumerate(wanted):
        latest = count - (len(wanted) - i)
        earliest = taken[-1] + 1 if taken else 0
        taken.append(min(max(int(place), earliest), latest))
    return taken


# -- edges on the grid -----------------------------------------------------------------------------


def _on_grid(net: Net, grid: _Grid) -> _Route:
    """Channel `c` lies above row `c`: a stub leaves its box towards the hub, the hub's towards its spokes."""
    hub_row = grid.where[net.hubs[0]][0]
    below = net.side == "below"
    stubs = [(hub, grid.where[hub][1], hub_row + 1 if below else hub_row) for hub in net.hubs]
    for spoke in net.spokes:
        row, column = grid.where[spoke]
        channel = row if below or row == hub_row else row + 1
        stubs.append((spoke, column, channel))
    channels = [channel for _, _, channel in stubs]
    return _Route(net, stubs, min(channels), max(channels))


def _give_trunks(routes: list[_Route], grid: _Grid) -> list[float]:
    """Choose where each net changes rows: through empty cells if it can, else between columns.

    Returns the widths of the gaps, from the left of the first column to the right of the last.
    """
    taken: dict[int, list[tuple[int, int, int]]] = {}  # gap: (top, bottom, track)
    for route in sorted(routes, key=lambda r: (r.top - r.bottom, r.net.hubs)):
        if route.top == route.bottom:
            continue
        columns = [column for _, column, _ in route.stubs]
        middle = sum(columns) / len(columns)
        free = [
            c for c in columns if all((row, c) not in grid.cells for row in range(route.top, route.bottom))
        ]
        if free:
            route.trunk = ("column", min(free, key=lambda c: (c != columns[0], abs(c - middle))))
            continue
        sides = sorted({g for c in columns for g in (c, c + 1)})
        crowd = {g: sum(a < route.bottom and route.top < b for a, b, _ in taken.get(g, [])) for g in sides}
        gap = min(sides, key=lambda g: (abs(g - 0.5 - middle) + 0.4 * crowd[g], g))
        used = {t for a, b, t in taken.get(gap, []) if a <= route.bottom and route.top <= b}
        track = next(t for t in range(len(used) + 1) if t not in used)
        taken.setdefault(gap, []).append((route.top, route.bottom, track))
        route.trunk, route.lane = ("gap", gap), track
    counts = [
        max((t + 1 for _, _, t in taken.get(gap, [])), default=0) for gap in range(grid.column_count + 1)
    ]
    return [
        (0.0 if gap in (0, grid.column_count) and n == 0 else max(MIN_GAP, (n + 1) * TRACK))
        for gap, n in enumerate(counts)
    ]


def _give_slots(routes: list[_Route], column_count: int) -> None:
    """Give each port and trunk in a column its own x, the centre first, so that no two verticals coincide."""
    for column in range(column_count):
        wants = [
            (route, *_reach(route, column))
            for route in routes
            if _reach(route, column)[0] <= _reach(route, column)[1]
        ]
        taken: list[tuple[int, int, int]] = []
        placed: list[tuple[_Route, int]] = []
        for route, top, bottom in sorted(wants, key=lambda w: (w[1] - w[2], w[1])):
            others = [c for _, c, _ in route.stubs if c != column]
            lean = sum((c > column) - (c < column) for c in others)
            used = {slot for a, b, slot in taken if a <= bottom and top <= b}
            slot = min(
                (s for s in range(-len(used) - 1, len(used) + 2) if s not in used),
                key=lambda s: (abs(s), -s * lean, -s),
            )
            taken.append((top, bottom, slot))
            placed.append((route, slot))
        reach = max((abs(slot) for _, slot in placed), default=0)
        pitch = min(PORT, (BOX_WIDTH / 2 - 12) / max(reach, 1))
        for route, slot in placed:
            route.slots[column] = slot * pitch


def _reach(route: _Route, column: int) -> tuple[int, int]:
    """The channels in which a route needs the column's x; empty (1, 0) when none."""
    if route.trunk == ("column", column):
        return route.top, route.bottom
    channels = [channel for _, c, channel in route.stubs if c == column]
    return (min(channels), max(channels)) if channels else (1, 0)


def _column_lefts(gap_sizes: list[float], shift: float) -> list[float]:
    lefts, x = [], GUTTER + shift
    for gap in gap_sizes[:-1]:
        x += gap
        lefts.append(x)
        x += BOX_WIDTH
    return lefts


def _port_x(route: _Route, column: int, lefts: list[float]) -> float:
    return lefts[column] + BOX_WIDTH / 2 + route.slots[column]


def _trunk_x(route: _Route, lefts: list[float], gap_sizes: list[float]) -> float:
    assert route.trunk is not None
    kind, place = route.trunk
    if kind == "column":
        return _port_x(route, place, lefts)
    left = lefts[place - 1] + BOX_WIDTH if place else lefts[0] - gap_sizes[0]
    tracks = int((gap_sizes[place]) // TRACK) - 1
    start = left + (gap_sizes[place] - (tracks - 1) * TRACK) / 2
    # The middle track first: one trunk alone stands in the middle of its gap.
    order = sorted(range(tracks), key=lambda t: (abs(t - (tracks - 1) / 2), t))
    return start + order[int(route.lane)] * TRACK


def _spans(route: _Route, lefts: list[float], gap_sizes: list[float]) -> dict[int, _Point]:
    """The stretch of x that a route takes in each channel where it turns."""
    xs: dict[int, list[float]] = {}
    for _, column, channel in route.stubs:
        xs.setdefault(channel, []).append(_port_x(route, column, lefts))
    if route.trunk is not None:
        for places in xs.values():
            places.append(_trunk_x(route, lefts, gap_sizes))
    return {channel: (min(x), max(x)) for channel, x in xs.items() if max(x) - min(x) > 0.01}


def _give_tracks(routes: list[_Route], grid: _Grid, lefts: list[float], gap_sizes: list[float]) -> list[int]:
    """Left-edge routing: nets that overlap in a channel get different tracks.  Returns how many each has."""
    counts = [0] * (len(grid.lane_of_row) + 1)
    spans = [
        (route, channel, span)
        for route in routes
        for channel, span in _spans(route, lefts, gap_sizes).items()
    ]
    ends: dict[int, list[float]] = {}
    for route, channel, (left, right) in sorted(spans, key=lambda s: (s[1], s[2])):
        tracks = ends.setdefault(channel, [])
        track = next((i for i, end in enumerate(tracks) if end + PORT < left), len(tracks))
        tracks[track : track + 1] = [right]
        route.tracks[channel] = track
        counts[channel] = len(tracks)
    return counts


def _rows(
    graph: LevelGraph, grid: _Grid, tracks: list[int]
) -> tuple[list[float], tuple[Lane, ...], float, list[_Point]]:
    """Tops of the rows, the lanes, the whole height, and the stretch of y of each channel."""
    tops: list[float] = []
    channels: list[_Point] = []
    bands: list[list[float]] = []
    rows = len(grid.lane_of_row)
    y = 0.0
    for row in range(rows + 1):
        height = (tracks[row] + 1) * TRACK if tracks[row] else 0.0
        between = row in (0, rows) or grid.lane_of_row[row] != grid.lane_of_row[row - 1]
        if between and row:
            y += LANE_PAD
            bands[-1].append(y)
        size = max(height, 0.0 if row in (0, rows) else MIN_CHANNEL)
        channels.append((y, y + size))
        y += size
        if row == rows:
            break
        if between:
            bands.append([y])
            y += LANE_PAD
        tops.append(y)
        y += BOX_HEIGHT
    lanes = tuple(
        Lane(level, top, bottom - top) for level, (top, bottom) in zip(graph.levels, bands, strict=True)
    )
    return tops, lanes, y, channels


# -- lines -----------------------------------------------------------------------------------------


def _wire(
    route: _Route, boxes: dict[str, Box], lefts: list[float], gap_sizes: list[float], channels: list[_Point]
) -> Wire:
    def track_y(channel: int) -> float:
        top, bottom = channels[channel]
        return top + (route.tracks[channel] + 1) * TRACK if channel in route.tracks else (top + bottom) / 2

    trunk = _trunk_x(route, lefts, gap_sizes) if route.trunk is not None else None
    ports: dict[str, tuple[_Point, _Point, int]] = {}
    for path, column, channel in route.stubs:
        box = boxes[path]
        x = _port_x(route, column, lefts)
        above = channel == box.row
        ports[path] = ((x, box.y if above else box.y + BOX_HEIGHT), (x, track_y(channel)), channel)

    def way(path: str) -> list[_Point]:
        start, turn, _ = ports[path]
        return [start, turn]

    def between(a: str, b: str) -> _Line:
        (_, turn_a, channel_a), (_, turn_b, channel_b) = ports[a], ports[b]
        middle = [] if channel_a == channel_b or trunk is None else [(trunk, turn_a[1]), (trunk, turn_b[1])]
        return _tidy([*way(a), *middle, *reversed(way(b))])

    routes = tuple((e.source, e.target, between(e.source, e.target)) for e in route.net.edges)
    arrows = tuple(
        (ports[target][0][0], ports[target][0][1], 1 if ports[target][2] == boxes[target].row else -1)
        for target in dict.fromkeys(e.target for e in route.net.edges)
    )
    return Wire(
        route.net, _lines(ports, trunk, routes), routes, arrows, _joints([way for _, _, way in routes])
    )


def _bus(
    stubs: list[tuple[_Point, _Point]], y: float, left: float, right: float, trunk: float | None = None
) -> list[_Line]:
    """A track with its stubs; a stub alone at an end of the track goes on round the corner."""
    line: list[_Point] = [(left, y), (right, y)]
    rest = list(stubs)
    for end, place in ((left, 0), (right, 2)):
        here = [stub for stub in stubs if abs(stub[1][0] - end) < 0.01]
        if len(here) == 1 and left < right and (trunk is None or abs(trunk - end) > 0.01):
            line.insert(place if place == 0 else len(line), here[0][0])
            rest.remove(here[0])
    return [piece for piece in (_tidy(line), *rest) if len(piece) > 1]


def _joints(ways: list[_Line]) -> tuple[_Point, ...]:
    """Corners of some way from which the ways of a net leave in three or four directions."""
    arms = {(a, b) for way in ways for a, b in pairwise(way)}
    arms |= {(b, a) for a, b in arms}
    corners = dict.fromkeys(point for way in ways for point in way[1:-1])
    return tuple(p for p in corners if len({d for a, b in arms for d in _directions(p, a, b)}) > 2)


def _directions(point: _Point, a: _Point, b: _Point) -> list[tuple[int, int]]:
    """Where the stretch from `a` to `b` leads from `point`, if it passes or ends there."""
    if any(abs(a[i] - b[i]) < 0.01 and abs(point[i] - a[i]) > 0.01 for i in (0, 1)):
        return []
    if not all(min(a[i], b[i]) - 0.01 <= point[i] <= max(a[i], b[i]) + 0.01 for i in (0, 1)):
        return []
    ends = [end for end in (a, b) if max(abs(end[i] - point[i]) for i in (0, 1)) > 0.01]
    return [(_sign(end[0] - point[0]), _sign(end[1] - point[1])) for end in ends]


def _sign(number: float) -> int:
    return 0 if abs(number) < 0.01 else 1 if number > 0 else -1


def _lines(
    ports: dict[str, tuple[_Point, _Point, int]],
    trunk: float | None,
    routes: tuple[tuple[str, str, _Line], ...],
) -> tuple[_Line, ...]:
    """The union of the routes without drawing a piece twice, so that dashes stay dashes."""
    if len(routes) == 1:
        return (routes[0][2],)
    lines: list[_Line] = []
    levels: dict[int, list[tuple[_Point, _Point]]] = {}
    for port, turn, channel in ports.values():
        levels.setdefault(channel, []).append((port, turn))
    heights = sorted(stubs[0][1][1] for stubs in levels.values())
    high, low = heights[0], heights[-1]
    cut_high, cut_low = high, low
    for stubs in levels.values():
        ordered = sorted(stubs)
        y = ordered[0][1][1]
        left, right = ordered[0][1][0], ordered[-1][1][0]
        if trunk is None:
            lines += _bus(ordered, y, left, right)
            continue
        outside = trunk < left - 0.01 or trunk > right + 0.01
        far, near = (
            (right, ordered[-1][0]) if abs(right - trunk) > abs(left - trunk) else (left, ordered[0][0])
        )
        if not outside or y not in (high, low) or low - high < 4 * TRACK:
            lines += _bus(ordered, y, min(left, trunk), max(right, trunk), trunk)
            continue
        # The far stub, the track and the head of the trunk are one line, so that its corners are round.
        head = high + TRACK if y == high else low - TRACK
        cut_high, cut_low = (head, cut_low) if y == high else (cut_high, head)
        lines.append(_tidy([near, (far, y), (trunk, y), (trunk, head)]))
        lines += [stub for stub in ordered if stub[0] != near]
    if trunk is not None:
        lines.append(((trunk, cut_high), (trunk, cut_low)))
    return tuple(line for line in lines if len(line) > 1)


def _tidy(points: list[_Point]) -> _Line:
    """Without repeated points and without points in the middle of a straight stretch."""
    out: list[_Point] = []
    for point in points:
        if out and abs(out[-1][0] - point[0]) < 0.01 and abs(out[-1][1] - point[1]) < 0.01:
            continue
        if len(out) > 1 and any(
            abs(out[-2][i] - out[-1][i]) < 0.01 and abs(out[-1][i] - point[i]) < 0.01 for i in (0, 1)
        ):
            out[-1] = point
            continue
        out.append(point)
    return tuple(out)
