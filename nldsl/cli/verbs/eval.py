"""`nldsl eval`: measure a trained folder on held-out data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import rate_option, with_plain_console


def evaluate(
    console: Console,
    folder: str,
    *,
    checkpoint: str | None = None,
    as_json: bool = False,
    learn: bool | None = None,
    rates: tuple[str, ...] = (),
    learn_tokens: int | None = None,
) -> int:
    """Print the measures of a trained folder."""
    from nldsl.cli.options import check_rates
    from nldsl.run import evaluate as runner

    measured = runner.evaluate(
        inputs.build_folder(folder),
        checkpoint=checkpoint,
        learn=learn,
        rates=check_rates(rates),
        learn_tokens=learn_tokens,
    )
    console.out(json.dumps(measured, indent=2) if as_json else table(measured))
    return 0


def table(measured: Mapping[str, Any]) -> str:
    """Names and numbers in two columns; nested measures are indented.

    >>> print(table({"loss": 1.25, "needle": {"64": 1}}))
    loss    1.25
    needle
      64    1
    """
    rows = _rows(measured, "")
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def _rows(measured: Mapping[str, Any], indent: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in measured.items():
        if isinstance(value, Mapping):
            rows += [(indent + name, ""), *_rows(value, indent + "  ")]
        else:
            rows.append((indent + name, f"{value:.6g}" if isinstance(value, float) else str(value)))
    return rows


@click.command("eval")
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.option("--checkpoint", type=click.Path(), metavar="FILE", help="Default: the last one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--learn/--no-learn",
    default=None,
    help="Also let plastic levels learn on while they read. Default: where there are such levels.",
)
@rate_option
@click.option(
    "--learn-tokens",
    type=click.IntRange(min=2),
    metavar="N",
    help="About how many tokens to read while learning.",
)
@with_plain_console
def command(
    console: Console,
    folder: str,
    checkpoint: str | None,
    as_json: bool,
    learn: bool | None,
    rates: tuple[str, ...],
    learn_tokens: int | None,
) -> int:
    """Measure the trained folder DIR on held-out data."""
    return evaluate(
        console,
        folder,
        checkpoint=checkpoint,
        as_json=as_json,
        learn=learn,
        rates=rates,
        learn_tokens=learn_tokens,
    )
