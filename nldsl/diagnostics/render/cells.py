"""How wide text is on a terminal, and what may be sent to one.

Spans count code points; a terminal counts cells.  Tabs become four spaces, East Asian wide
characters and emoji take two cells, combining marks none, and control or direction characters are
shown as symbols, so that a spec can neither move the cursor nor reverse a line.
"""

from __future__ import annotations

import unicodedata

TAB = "    "
_JOINER = "\u200d"
_EMOJI_STYLE = "\ufe0f"
_UNSAFE = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


def shown(character: str) -> str:
    """One character as it may be printed.

    >>> shown("\\t"), shown("\\x1b"), shown("\\u202e"), shown("a")
    ('    ', '␛', '<U+202E>', 'a')
    """
    if character == "\t":
        return TAB
    point = ord(character)
    if point < 0x20:
        return chr(0x2400 + point)
    if point == 0x7F:
        return "\u2421"
    if 0x80 <= point < 0xA0 or 0xD800 <= point < 0xE000 or character in _UNSAFE:
        return f"<U+{point:04X}>"
    return character


def printable(text: str) -> str:
    """`text` with every character as it may be printed; line ends stay."""
    return "".join(c if c == "\n" else shown(c) for c in text)


def char_widths(line: str) -> list[int]:
    """Cells taken by each code point of a line as shown; emoji sequences count once.

    >>> char_widths("a\\t中e\\u0301")
    [1, 4, 2, 1, 0]
    >>> sum(char_widths("👩\u200d💻"))
    2
    """
    widths: list[int] = []
    base = -1  # index of the last character that takes room
    for i, character in enumerate(line):
        if i > 0 and line[i - 1] == _JOINER and base >= 0 and widths[base] == 2:
            widths.append(0)
            continue
        if character == _EMOJI_STYLE:
            if base >= 0 and widths[base] == 1 and ord(line[base]) > 0xFF:
                widths[base] = 2
            widths.append(0)
            continue
        width = _width(character)
        if 0x1F3FB <= ord(character) <= 0x1F3FF and base == i - 1 and base >= 0 and widths[base] == 2:
            width = 0  # a skin tone joins the emoji before it
        if width:
            base = i
        widths.append(width)
    return widths


def cells(text: str) -> int:
    """Cells taken by a text as shown."""
    return sum(char_widths(text))


def _width(character: str) -> int:
    image = shown(character)
    if image != character:
        return len(image)
    if character == _JOINER or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
