"""Terminal colours for findings, by parameter only."""

from __future__ import annotations

_RESET = "\x1b[0m"
_CODES = {
    "error": "\x1b[1;31m",
    "warning": "\x1b[1;33m",
    "note": "\x1b[1;36m",
    "frame": "\x1b[1;34m",
    "secondary": "\x1b[1;34m",
    "bold": "\x1b[1m",
    "help": "\x1b[1;32m",
    "dim": "\x1b[2m",
}


def paint(text: str, style: str, color: bool) -> str:
    """`text` in one of the styles above where `color` is set.

    >>> paint("x", "bold", False)
    'x'
    """
    if not color or not text:
        return text
    return f"{_CODES[style]}{text}{_RESET}"
