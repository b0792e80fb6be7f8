"""How drawings write numbers, clocks and names; every format shares these rules.

Counts go by thousands (`k`, `M`, `G`, `T`, `P`), bytes by 1024 (`KiB`, `MiB`, ...).  A scaled
number has one decimal below 100 and none from there on, and never a trailing `.0`.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable

from nldsl.levels.graph import Clock, Component, LevelGraph

COUNT_UNITS = ("", "k", "M", "G", "T", "P")
BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
ELLIPSIS = "…"


def _scaled(value: float, base: int, units: tuple[str, ...], space: str) -> str:
    index = 0
    scaled = float(value)
    # The rounded number decides: 999,960 is `1M`, not `1000k`.
    while index + 1 < len(units) and float(_rounded(scaled, index)) >= base:
        scaled /= base
        index += 1
    return f"{_rounded(scaled, index)}{space if units[index] else ''}{units[index]}"


def _rounded(scaled: float, index: int) -> str:
    if index == 0:
        return f"{scaled:.0f}" if float(scaled).is_integer() else f"{scaled:.3g}"
    return f"{scaled:.1f}".removesuffix(".0") if scaled < 99.95 else f"{scaled:.0f}"


def count(value: float) -> str:
    """A count in a few characters.

    >>> [count(n) for n in (0, 999, 1_234, 34_000, 123_456, 999_960, 3_400_000)]
    ['0', '999', '1.2k', '34k', '123k', '1M', '3.4M']
    """
    return "∞" if math.isinf(value) else _scaled(value, 1000, COUNT_UNITS, "")


def size(value: int) -> str:
    """A number of bytes in a few characters.

    >>> [size(n) for n in (12, 16_384, 1_500_000)]
    ['12 B', '16 KiB', '1.4 MiB']
    """
    return _scaled(value, 1024, BYTE_UNITS, " ")


def tokens(value: float) -> str:
    """Tokens between updates, exact while that is short.

    >>> tokens(8192), tokens(16_777_216), tokens(float("inf"))
    ('8,192', '16.8M', '∞')
    """
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if value < 100_000 and float(value).is_integer() else count(value)


def amount(number: int, noun: str) -> str:
    """`1 level`, `2 levels`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clock_words(clock: Clock, tokens_per_update: float) -> str:
    """A clock for headings, with its length in tokens where its unit does not say it already."""
    if clock.unit == "always":
        return "always (non-parametric)"
    if clock.unit == "never":
        return "never (frozen)"
    if clock.unit == "token" or math.isinf(tokens_per_update) or tokens_per_update <= 0:
        return str(clock)
    return f"{clock} ({tokens(tokens_per_update)} {'token' if tokens_per_update == 1 else 'tokens'})"


def level_clocks(level: tuple[Component, ...]) -> tuple[tuple[Clock, float], ...]:
    """The distinct clocks of a level, in the order in which its components use them."""
    return tuple(dict.fromkeys((c.clock, c.tokens_per_update) for c in level))


def state_words(component: Component) -> str:
    """State of one copy: `16 KiB/seq` where every sequence holds its own, `16 KiB` otherwise."""
    if not component.state_bytes:
        return ""
    return size(component.state_bytes) + ("/seq" if component.per_sequence else "")


def where(component: Component) -> str | None:
    """`file:line` of the component in its spec."""
    if component.span is None:
        return None
    return f"{component.span.source.name}:{component.span.source.position(component.span.start)[0]}"


def totals(graph: LevelGraph) -> tuple[str, ...]:
    """The totals of a graph, copies included, as short phrases."""
    parts = graph.components
    copies = sum(c.copies for c in parts)
    components = amount(len(parts), "component") + (
        f" ({copies:,} with copies)" if copies != len(parts) else ""
    )
    shared = sum(c.state_bytes * c.copies for c in parts if not c.per_sequence)
    return (
        amount(len(graph.levels), "level"),
        components,
        f"{count(graph.parameters)} parameters",
        f"{size(graph.state_bytes)} state per sequence",
        f"{size(shared)} shared",
        f"{count(graph.flops_per_token)} FLOPs per token",
    )


def plain(text: str) -> str:
    """`text` on one line: line ends, control characters and what XML forbids become single spaces."""
    return " ".join("".join(" " if _forbidden(c) else c for c in text).split())


def _forbidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or character in "\ufffe\uffff"


def columns(text: str) -> int:
    """Terminal columns of `text`: East Asian wide characters take two, combining marks none."""
    return sum(
        0
        if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in text
    )


def em_width(text: str) -> float:
    """A generous estimate of the width of `text` in a proportional sans-serif face, in em."""
    return sum(_em(c) for c in text)


def _em(character: str) -> float:
    if columns(character) == 0:
        return 0.0
    if columns(character) == 2:
        return 1.05
    if character in "ijl.,:;'|!()[]ft ":
        return 0.36
    if character in "mwMWQO@%…→—∞":
        return 0.92
    return 0.7 if character.isupper() else 0.59


def shorten(text: str, room: float, measure: Callable[[str], float] = columns) -> str:
    """`text` in at most `room` columns (or em), cut in the middle; the end tells more and keeps more.

    >>> shorten("squared gradients", 12)
    'squ…radients'
    """
    if measure(text) <= room:
        return text
    left = room - measure(ELLIPSIS)
    if left <= 0:
        return ""
    head, tail = "", ""
    for character in text:
        if measure(head + character) > left * 0.34:
            break
        head += character
    for character in reversed(text):
        if measure(head + character + tail) > left:
            break
        tail = character + tail
    return head.rstrip() + ELLIPSIS + tail.lstrip()


def short_path(path: str, room: float, measure: Callable[[str], float] = columns) -> str:
    """A component path in `room`: as many whole last segments as fit, else the last one cut.

    >>> short_path("HopeBlock.mixer.SelfModifying.key.adaptive", 28)
    '…SelfModifying.key.adaptive'
    """
    if measure(path) <= room:
        return path
    segments = path.split(".")
    for first in range(1, len(segments)):
        short = ELLIPSIS + ".".join(segments[first:])
        # A last segment of a character or two says nothing on its own.
        if measure(short) <= room and len(short) > 3:
            return short
    return shorten(segments[-1] if len(segments[-1]) > 3 else path, room, measure)


def short_names(graph: LevelGraph) -> dict[str, str]:
    """For each path its shortest end, of two segments where it has two, that no other path ends in."""
    endings: dict[str, int] = {}
    split = {c.path: plain(c.path).split(".") for c in graph.components}
    for segments in split.values():
        for first in range(len(segments)):
            ending = ".".join(segments[first:])
            endings[ending] = endings.get(ending, 0) + 1
    return {path: _own_ending(segments, endings) for path, segments in split.items()}


def _own_ending(segments: list[str], endings: dict[str, int]) -> str:
    for first in range(max(len(segments) - 2, 0), 0, -1):
        ending = ".".join(segments[first:])
        if endings[ending] == 1:
            return ending
    return ".".join(segments)
