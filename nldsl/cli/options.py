"""Options that several verbs share, and the step from click to a verb's handler."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from nldsl.cli.console import Console

if TYPE_CHECKING:
    from nldsl.diagnostics.model import Diagnostic
    from nldsl.run.folder import RunError

FORMATS = ("full", "concise", "json", "github", "sarif")
COLORS = ("auto", "always", "never")

set_option = click.option(
    "--set", "settings", multiple=True, metavar="PATH=VALUE", help="Change one value of the spec. Repeatable."
)
rate_option = click.option(
    "--rate",
    "rates",
    multiple=True,
    metavar="LEVEL=X",
    help="The rate at which a plastic level learns. Repeatable.",
)
variant_option = click.option("--variant", metavar="NAME", help="Use this variant of the spec.")


def with_console(handler: Callable[..., int]) -> Callable[..., int]:
    """Give `handler` a `Console` as its first argument, made from `--format` and `--color`.

    A `SpecError` or `RunError` that the handler lets out is reported as findings, in that format.
    """
    option = click.option(
        "--format", type=click.Choice(FORMATS), default="full", help="How findings are shown."
    )
    return option(with_plain_console(handler))


def with_plain_console(handler: Callable[..., int]) -> Callable[..., int]:
    """As `with_console`, for verbs whose `--format` means something else or that have no findings."""

    @click.option("--color", type=click.Choice(COLORS), default="auto", help="Colour the output.")
    @functools.wraps(handler)
    def command(*args: Any, color: Any, format: Any = "full", **options: Any) -> int:
        console = Console(format=format, color=color)
        try:
            return handler(console, *args, **options)
        except Exception as error:
            findings, code = _findings(error)
            if not findings:
                raise
            console.report(findings)
            return code

    return command


def _findings(error: Exception) -> tuple[Sequence[Diagnostic], int]:
    """The findings that an exception carries and the exit code they mean; none for any other exception."""
    from nldsl.diagnostics.model import SpecError

    if isinstance(error, SpecError):
        return error.diagnostics, 1
    runner = sys.modules.get("nldsl.run.folder")  # an error of a run can only come from a loaded runner
    known: type[RunError] | None = getattr(runner, "RunError", None)
    if known is not None and isinstance(error, known):
        return [error.diagnostic], error.exit_code
    return (), 0


def check_settings(settings: tuple[str, ...]) -> tuple[str, ...]:
    """The `--set` arguments, each of the form `path=value`; raises `Problem` for another."""
    from nldsl.cli.problem import Problem

    for text in settings:
        path, equals, value = text.partition("=")
        if not equals or not path.strip() or not value.strip():
            raise Problem(f"`--set {text}` is not of the form `path=value`", "write `--set model.dim=64`")
    return settings


def check_rates(rates: tuple[str, ...]) -> dict[str, float]:
    """The `--rate` arguments by level; raises `Problem` for one that is not of the form `level=number`.

    >>> check_rates(("slow=1e-3",))
    {'slow': 0.001}
    """
    from nldsl.cli.problem import Problem

    found: dict[str, float] = {}
    for text in rates:
        name, _, number = text.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise Problem(
                f"`--rate {text}` is not of the form `level=number`", "write `--rate slow=1e-3`"
            ) from None
    return found
