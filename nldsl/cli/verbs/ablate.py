"""`nldsl ablate`: plan, write, run and report studies."""

from __future__ import annotations

from typing import Any

import click

from nldsl.cli import studies
from nldsl.cli.console import Console
from nldsl.cli.options import FORMATS, set_option, variant_option, with_plain_console
from nldsl.cli.problem import Problem
from nldsl.cli.studies import Running, Wish

REPORTS = ("text", "markdown", "latex", "csv", "html")
SECONDS = 20.0

_OF_SPECS = ("name", "variant", "settings", "auto", "families", "block", "only", "most", "seeds", "write")
_SPELLED = {
    "settings": "--set",
    "families": "--family",
    "most": "--max",
    "output": "-o",
    "as_json": "--json",
    "options": "--option",
    "form": "--format",
    "stop_early": "--stop-early",
}
_NEEDS = (
    ("block", "auto"),
    ("families", "auto"),
    ("variant", "auto"),
    ("output", "run"),
    ("on", "run"),
    ("stop_early", "run"),
    ("options", "run"),
)
_NOT_WITH = (
    ("write", "run"),
    ("block", "run"),
    ("block", "write"),
    ("block", "as_json"),
    ("as_json", "run"),
    ("as_json", "report"),
    ("write", "report"),
    ("block", "report"),
)


def ablate(console: Console, path: str, asked: dict[str, Any]) -> int:
    """Do with the spec or study at `path` what was asked for."""
    is_folder = studies.is_study(path)
    _fitting(asked, is_folder)
    running = Running(
        asked["jobs"], asked["on"] or "local", asked["stop_early"], studies.options(asked["options"])
    )
    if is_folder:
        return _of_folder(console, path, asked, running)
    if asked["report"] and not asked["run"]:
        raise Problem("a report is of a study that was run", studies.its_folder())
    names = ("name", "variant", "settings", "auto", "families", "only", "most", "seeds")
    wish = Wish(path, **{name: asked[name] for name in names})
    if asked["block"]:
        return studies.show_block(console, wish)
    if asked["run"]:
        seconds = SECONDS if asked["calibrate"] is None else asked["calibrate"]
        return studies.run(console, wish, running, folder=asked["output"], seconds=seconds, form=_form(asked))
    quiet = asked["write"] is not None or asked["as_json"]
    seconds = asked["calibrate"] if asked["calibrate"] is not None else 0.0 if quiet else SECONDS
    return studies.show(
        console,
        wish,
        seconds=seconds,
        jobs=asked["jobs"],
        as_json=asked["as_json"],
        folder=asked["write"],
    )


def _of_folder(console: Console, path: str, asked: dict[str, Any], running: Running) -> int:
    from nldsl.ablate.study import Study

    study = Study.open(path)
    if asked["run"]:
        return studies.go_on(console, study, running, _form(asked))
    if asked["report"]:
        console.report(study.warnings)
        return studies.report(console, study, _form(asked))
    return studies.status(console, study, as_json=asked["as_json"], jobs=asked["jobs"])


def _fitting(asked: dict[str, Any], is_folder: bool) -> None:
    """Refuse options that do not go together; raises `Problem`."""
    given = {name for name, value in asked.items() if value not in (None, False, ())}
    for name in _OF_SPECS if is_folder else ():
        if name in given:
            raise Problem(
                f"`{_option(name)}` belongs to a spec, and a study's folder was given",
                "give the spec, and the folder after `-o`",
            )
    for name, needed in _NEEDS:
        if name in given and needed not in given:
            raise Problem(f"`{_option(name)}` needs `{_option(needed)}`", "add it, or leave the other out")
    for name, other in _NOT_WITH:
        if name in given and other in given:
            raise Problem(f"`{_option(name)}` does not go with `{_option(other)}`", "leave one of them out")
    if "variant" in given and "name" in given:
        raise Problem("`--name` and `--variant` both say what is changed", "leave one of them out")
    if is_folder and "output" in given:
        raise Problem("`-o` names a study's folder, and one was given", "leave one of them out")
    if asked["form"] in REPORTS and not {"report", "run"} & given:
        raise Problem(f"`--format {asked['form']}` is for reports", "add `--report`")
    if "options" in given and (asked["on"] or "local") == "local":
        raise Problem("a run on this machine has no options", "add `--on ray` or `--on slurm`")
    if asked["stop_early"] and asked["on"] != "ray":
        raise Problem("only Ray stops trials early", "add `--on ray`")


def _form(asked: dict[str, Any]) -> str:
    return asked["form"] if asked["form"] in REPORTS else "text"


def _option(name: str) -> str:
    return _SPELLED.get(name, f"--{name}")


@click.command("ablate")
@click.argument("path", type=click.Path(), metavar="SPEC|DIR")
@click.option("--name", metavar="NAME", help="Which `ablate` block; default: the only one.")
@click.option("--auto", is_flag=True, help="Propose variants, in place of those of a block.")
@click.option("--family", "families", multiple=True, metavar="NAME", help="With --auto: only this family.")
@variant_option
@click.option("--block", is_flag=True, help="With --auto: print the proposals as an `ablate` block.")
@set_option
@click.option("--only", multiple=True, metavar="WORDS", help="Only variants with these words. Repeatable.")
@click.option("--max", "most", type=click.IntRange(min=0), metavar="N", help="At most N variants.")
@click.option("--seeds", type=click.IntRange(1, 1000), metavar="N", help="N seeds, in place of the block's.")
@click.option(
    "--calibrate",
    type=click.FloatRange(0, 3600, min_open=True),
    metavar="SECONDS",
    help="Time some steps of each variant, for so long at most; default: 20.",
)
@click.option("--no-calibrate", is_flag=True, help="Run nothing, and tell no times.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--write", type=click.Path(), metavar="DIR", help="Write each variant as a complete spec.")
@click.option("--run", is_flag=True, help="Run the study, or go on with it.")
@click.option("-o", "--output", type=click.Path(), metavar="DIR", help="Its folder; default: studies/NAME.")
@click.option("--jobs", type=click.IntRange(1, 4096), metavar="N", help="Trials at once; default: cores.")
@click.option("--on", type=click.Choice(["local", "ray", "slurm"]), help="Where it is run.")
@click.option("--stop-early", is_flag=True, help="On Ray: end trials that fall behind.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Of Ray or Slurm. Repeatable.")
@click.option("--report", is_flag=True, help="Write the report of a study, and print it.")
@click.option(
    "--format",
    "form",
    type=click.Choice([*REPORTS, *FORMATS]),
    help="How the report is printed, or how findings are shown.",
)
@with_plain_console
def command(console: Console, path: str, no_calibrate: bool, **asked: Any) -> int:
    """Plan the study of an `ablate` block of SPEC: its variants, what each changes and costs.

    --run runs it in a folder of its own. With such a folder DIR in place of SPEC: show how far it is, go on
    with it (--run), or report what was found (--report).
    """
    if asked["form"] in FORMATS:
        console.format = asked["form"]
    if no_calibrate and asked["calibrate"] is not None:
        raise Problem("`--calibrate` does not go with `--no-calibrate`", "leave one of them out")
    if no_calibrate:
        asked["calibrate"] = 0.0
    return ablate(console, path, asked)
