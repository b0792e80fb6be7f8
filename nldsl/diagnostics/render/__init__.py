"""Renderers of findings: one list of `Diagnostic`, five ways to show it.

Each format is a module with `render(diagnostics) -> str`; the result ends with a newline unless it
is empty.  Nothing here looks at a terminal or the environment: colour and width are parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from nldsl.diagnostics.model import Diagnostic

Format = Literal["full", "concise", "json", "github", "sarif"]
FORMATS: tuple[Format, ...] = get_args(Format)


def render(
    diagnostics: Sequence[Diagnostic], format: Format = "full", *, color: bool = False, width: int = 110
) -> str:
    """The findings as text in `format`; `color` and `width` (in cells) only matter to the human formats."""
    if format == "full":
        from nldsl.diagnostics.render import full

        return full.render(diagnostics, color=color, width=width)
    if format == "concise":
        from nldsl.diagnostics.render import concise

        return concise.render(diagnostics, color=color)
    if format == "json":
        from nldsl.diagnostics.render import as_json

        return as_json.render(diagnostics)
    if format == "github":
        from nldsl.diagnostics.render import github

        return github.render(diagnostics)
    from nldsl.diagnostics.render import sarif

    return sarif.render(diagnostics)
