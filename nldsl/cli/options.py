"""Options that several verbs share, and the step from click to a verb's handler."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from nldsl.cli.console import Console

if TYPE_CHECKING:
    from nldsl.diagnostics.model import SpecError

FORMATS = ("full", "concise", "json", "github", "sarif")
COLORS = ("auto", "always", "never")

set_option = click.option(
    "--set", "settings", multiple=True, metavar="PATH=VALUE", help="Change one value of the spec. Repeatable."
)
variant_option = click.option("--variant", metavar="NAME", help="Use this variant of the spec.")


def with_console(handler: Callable[..., int]) -> Callable[..., int]:
    """Give `handler` a `Console` as its first argument, made from `--format` and `--color`.

    A `SpecError` that the handler lets out is reported as findings, with exit code 1.
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
            findings = _findings(error)
            if findings is None:
                raise
            console.report(findings.diagnostics)
            return 1

    return command


def _findings(error: Exception) -> SpecError | None:
    from nldsl.diagnostics.model import SpecError

    return error if isinstance(error, SpecError) else None


def check_settings(settings: tuple[str, ...]) -> tuple[str, ...]:
    """The `--set` arguments, each of the form `path=value`; raises `Problem` for another."""
    from nldsl.cli.problem import Problem

    for text in settings:
        path, equals, value = text.partition("=")
        if not equals or not path.strip() or not value.strip():
            raise Problem(f"`--set {text}` is not of the form `path=value`", "write `--set model.dim=64`")
    return settings
