"""`nldsl expand`: a spec with every default and import written out."""

from __future__ import annotations

import click

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.options import set_option, variant_option, with_console
from nldsl.cli.output import deliver
from nldsl.cli.problem import Problem
from nldsl.diagnostics.model import Source


def expand(
    console: Console,
    path: str,
    *,
    why: str | None = None,
    yaml: bool = False,
    output: str | None = None,
    settings: tuple[str, ...] = (),
    variant: str | None = None,
) -> int:
    """Print the expanded spec, or where the value at the path `why` came from."""
    if why is not None and yaml:
        raise Problem(
            "`--why` explains one value, and `--yaml` prints the whole spec", "leave one of them out"
        )
    spec = inputs.load_spec(console, path, settings=settings, variant=variant)
    if why is not None:
        deliver(console, spec.why(why), output)
        return 0
    text = spec.expand()
    deliver(console, _as_yaml(text) if yaml else text, output)
    return 0


def _as_yaml(text: str) -> str:
    from nldsl.diagnostics.model import SpecError
    from nldsl.syntax import parse_body
    from nldsl.syntax.yaml import to_yaml

    body, diagnostics = parse_body(Source("<expanded>.nl", text))
    if any(d.severity == "error" for d in diagnostics):
        raise SpecError(diagnostics)
    return to_yaml(body)


@click.command("expand")
@click.argument("spec", type=click.Path())
@click.option(
    "--why", metavar="PATH", help="Say where one value came from, as in `--why Continuum.slow.update`."
)
@variant_option
@set_option
@click.option("--yaml", is_flag=True, help="Print YAML.")
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="Write here; default: standard output."
)
@with_console
def command(
    console: Console,
    spec: str,
    why: str | None,
    variant: str | None,
    settings: tuple[str, ...],
    yaml: bool,
    output: str | None,
) -> int:
    """Print SPEC with imports, presets, parameters and defaults written out."""
    return expand(console, spec, why=why, yaml=yaml, output=output, settings=settings, variant=variant)
