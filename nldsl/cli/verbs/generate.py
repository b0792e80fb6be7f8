"""`nldsl generate`: continue a text with a trained folder."""

from __future__ import annotations

import sys

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import rate_option, with_plain_console


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
    learn: bool = False,
    learn_own: bool = False,
    save_state: str | None = None,
    load_state: tuple[str, ...] = (),
    new_sequence: bool = False,
    rates: tuple[str, ...] = (),
) -> int:
    """Write the continuation of `prompt` piece by piece as it is made."""
    from nldsl.cli.options import check_rates
    from nldsl.run import generate as runner

    pieces = runner.generate(
        inputs.build_folder(folder),
        prompt=prompt,
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        checkpoint=checkpoint,
        learn=learn,
        learn_own=learn_own,
        save_state=save_state,
        load_state=load_state,
        new_sequence=new_sequence,
        rates=check_rates(rates),
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
@click.option("--learn", is_flag=True, help="Let plastic levels learn from the prompt.")
@click.option("--learn-own", is_flag=True, help="Let them learn from what they generate, too.")
@rate_option
@click.option("--save-state", type=click.Path(), metavar="FILE", help="Write the stream's state in the end.")
@click.option(
    "--load-state", type=click.Path(), metavar="FILE", multiple=True, help="Go on from it. Several: averaged."
)
@click.option("--new-sequence", is_flag=True, help="Of a loaded state, keep only what was learned.")
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
    learn: bool,
    learn_own: bool,
    rates: tuple[str, ...],
    save_state: str | None,
    load_state: tuple[str, ...],
    new_sequence: bool,
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
        learn=learn,
        learn_own=learn_own,
        save_state=save_state,
        load_state=load_state,
        new_sequence=new_sequence,
        rates=rates,
    )
