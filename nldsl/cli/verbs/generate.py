"""`nldsl generate`: continue a text with a trained folder."""

from __future__ import annotations

import sys

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import with_plain_console


def generate(
    console: Console,
    folder: str,
    *,
    prompt: str = "The ",
    tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
    checkpoint: str | None = None,
) -> int:
    """Write the continuation of `prompt` piece by piece as it is made."""
    from nldsl.run import generate as runner

    pieces = runner.generate(
        inputs.build_folder(folder),
        prompt=prompt,
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        checkpoint=checkpoint,
    )
    sys.stdout.write(prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    console.out("")
    return 0


@click.command("generate")
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.option("--prompt", default="The ", show_default=True, metavar="TEXT", help="What to continue.")
@click.option("--tokens", type=click.IntRange(min=1), default=200, show_default=True, metavar="N")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.8, show_default=True, metavar="T")
@click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Draw from the K likeliest tokens.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--checkpoint", type=click.Path(), metavar="FILE", help="Default: the last one.")
@with_plain_console
def command(
    console: Console,
    folder: str,
    prompt: str,
    tokens: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    checkpoint: str | None,
) -> int:
    """Continue a text with the trained folder DIR, streaming."""
    return generate(
        console,
        folder,
        prompt=prompt,
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        checkpoint=checkpoint,
    )
