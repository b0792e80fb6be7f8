"""Where a verb writes: results to standard output, findings and progress to standard error."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from nldsl.diagnostics.model import Diagnostic
    from nldsl.diagnostics.render import Format

ColorChoice = Literal["auto", "always", "never"]


def wants_color(choice: ColorChoice, terminal: bool, environment: Mapping[str, str]) -> bool:
    """Whether to colour: the option first, then FORCE_COLOR, NO_COLOR and TERM=dumb, then the terminal.

    >>> wants_color("auto", True, {"NO_COLOR": "1"})
    False
    """
    if choice != "auto":
        return choice == "always"
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return terminal and environment.get("TERM") != "dumb"


@dataclass(slots=True)
class Console:
    """The two streams of one run of a verb, and how findings are shown on them."""

    format: Format = "full"
    color: ColorChoice = "auto"

    @property
    def width(self) -> int:
        """Cells in a row of the terminal; 100 where there is none."""
        return max(40, shutil.get_terminal_size((100, 24)).columns)

    def colored(self, stream: TextIO) -> bool:
        """Whether text on `stream` is coloured."""
        return wants_color(self.color, stream.isatty(), os.environ)

    @property
    def color_out(self) -> bool:
        return self.colored(sys.stdout)

    def out(self, text: str, *, end: str = "\n") -> None:
        """A result, to standard output; `end` is added where the text does not end with it."""
        sys.stdout.write(text if end and text.endswith(end) else text + end)

    def say(self, text: str) -> None:
        """Progress, to standard error."""
        sys.stderr.write(text + "\n")

    def problem(self, message: str, help: str | None = None) -> None:
        """A problem that is no finding in a spec."""
        from nldsl.diagnostics.render.cells import printable
        from nldsl.diagnostics.render.paint import paint

        color = self.colored(sys.stderr)
        self.say(f"{paint('error', 'error', color)}{paint(': ' + printable(message), 'bold', color)}")
        if help:
            self.say(f"  {paint('= help:', 'help', color)} {printable(help)}")

    def report(self, diagnostics: Sequence[Diagnostic], *, machine_to_stdout: bool = False) -> None:
        """Show findings in the chosen format, with a closing count for people.

        They go to standard error.  `machine_to_stdout` sends the formats for programs to standard
        output, for the verb whose result they are; these are written even when there is no finding.
        """
        from nldsl.diagnostics.render import render
        from nldsl.diagnostics.render.summary import in_order, summary

        ordered = in_order(diagnostics)
        if self.format in ("json", "github", "sarif"):
            if ordered or machine_to_stdout:
                stream = sys.stdout if machine_to_stdout else sys.stderr
                stream.write(self._machine(ordered))
            return
        if not ordered:
            return
        text = render(ordered, self.format, color=self.colored(sys.stderr), width=self.width)
        gap = "\n" if self.format == "full" else ""
        sys.stderr.write(f"{text}{gap}{summary(ordered)}\n")

    def _machine(self, diagnostics: Sequence[Diagnostic]) -> str:
        if self.format == "sarif":
            from nldsl.cli.about import version
            from nldsl.diagnostics.render import sarif

            return sarif.render(diagnostics, version=version())
        from nldsl.diagnostics.render import render

        return render(diagnostics, self.format)
