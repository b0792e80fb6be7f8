"""The click group: verbs are imported when they are called, not before."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from nldsl.cli import verb_table
from nldsl.cli.about import version


class VerbGroup(click.Group):
    """A group whose commands come from `verb_table`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(verb_table.available())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in verb_table.available():
            return None
        command: click.Command = import_module(f"nldsl.cli.verbs.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None:
            raise click.UsageError(_unknown(word, self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for verb in verb_table.available().values():
            sections.setdefault(verb.section, []).append((verb.name, verb.summary))
        for section, rows in sections.items():
            with formatter.section(section.capitalize()):
                formatter.write_dl(rows, col_max=14)


def _unknown(word: str, verbs: list[str]) -> str:
    from difflib import get_close_matches
    from pathlib import Path

    from nldsl.run.files import SPEC_SUFFIXES

    if Path(word).suffix in SPEC_SUFFIXES:
        return f"`{word}` is a file, not a verb: did you mean `nldsl check {word}`?"
    near = get_close_matches(word.lower(), verbs, n=1, cutoff=0.5)
    return f"no verb is called `{word}`" + (f": did you mean `{near[0]}`?" if near else "")


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"nldsl {version()}")
        ctx.exit()


@click.group(
    cls=VerbGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 problems in the spec or run, 2 usage or files, 70 a bug in nldsl, "
    "130 interrupted.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print it."
)
def cli() -> None:
    """Write nested-learning sequence models as specs; check, draw, compile and train them."""
