"""`nldsl schema`: the JSON Schema of the document."""

from __future__ import annotations

import json

import click

from nldsl.cli.console import Console
from nldsl.cli.options import with_plain_console
from nldsl.cli.output import deliver


def schema(console: Console, *, output: str | None = None) -> int:
    """Print the JSON Schema (2020-12) of the document that both surfaces become."""
    from nldsl.document.model import Document

    described = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Document.model_json_schema(mode="serialization"),
    }
    deliver(console, json.dumps(described, indent=2, ensure_ascii=False), output)
    return 0


@click.command("schema")
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="Write here; default: standard output."
)
@with_plain_console
def command(console: Console, output: str | None) -> int:
    """Print the JSON Schema of the document: what a spec says, whichever surface it was written in."""
    return schema(console, output=output)
