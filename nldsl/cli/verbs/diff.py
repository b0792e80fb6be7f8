"""`nldsl diff`: what differs in meaning between two specs."""

from __future__ import annotations

import difflib

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import with_console
from nldsl.cli.output import painted_diff_line


def diff(
    console: Console, first: str, second: str, *, variants: tuple[str | None, str | None] = (None, None)
) -> int:
    """Compare two specs as expanded, so that spelling, order of imports and stated defaults do not count.

    0 where they mean the same, 1 where they differ.
    """
    before = inputs.load_spec(console, first, variant=variants[0]).expand()
    after = inputs.load_spec(console, second, variant=variants[1]).expand()
    names = [f"{p} ({v})" if v else p for p, v in zip((first, second), variants, strict=True)]
    rows = changes(before, after, names[0], names[1])
    if not rows:
        console.say("the two mean the same")
        return 0
    console.out("\n".join(painted_diff_line(row, console.color_out) for row in rows))
    return 1


def changes(before: str, after: str, first: str, second: str) -> list[str]:
    """A unified diff of two expanded specs without their comments; empty where they are equal."""
    return list(difflib.unified_diff(_lines(before), _lines(after), first, second, lineterm="", n=2))


def _lines(text: str) -> list[str]:
    from nldsl.syntax.comments import find_comments

    for comment in reversed(find_comments(text)):
        text = text[: comment.start].rstrip(" ") + text[comment.end :]
    return [line for line in text.splitlines() if line.strip()]


@click.command("diff")
@click.argument("first", type=click.Path(), metavar="A")
@click.argument("second", type=click.Path(), metavar="B")
@click.option("--variant-a", metavar="NAME", help="The variant of A.")
@click.option("--variant-b", metavar="NAME", help="The variant of B.")
@with_console
def command(console: Console, first: str, second: str, variant_a: str | None, variant_b: str | None) -> int:
    """Show what differs in meaning between the specs A and B (which may be one file with two variants)."""
    return diff(console, first, second, variants=(variant_a, variant_b))
