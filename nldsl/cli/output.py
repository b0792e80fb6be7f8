"""Results that may go to a file."""

from __future__ import annotations

from pathlib import Path

from nldsl.cli.console import Console
from nldsl.run.files import FileProblem, write_text


def deliver(console: Console, text: str, target: str | None, *, force: bool = True) -> None:
    """Print a result, or write it to `target`; without `force` an existing file is never overwritten."""
    if target is None or target == "-":
        console.out(text)
        return
    if Path(target).exists() and not force:
        raise FileProblem(f"`{target}` exists already", "`--force` overwrites it")
    write_text(target, text if text.endswith("\n") else text + "\n")
    console.say(f"wrote {target}")


def painted_diff_line(line: str, color: bool) -> str:
    """One line of a unified diff in its colour.

    >>> painted_diff_line("-old", False)
    '-old'
    """
    from nldsl.diagnostics.render.paint import paint

    if line.startswith(("---", "+++")):
        return paint(line, "bold", color)
    style = {"-": "error", "+": "help", "@": "note"}.get(line[:1])
    return paint(line, style, color) if style else line
