"""Reports of studies: what was found, in words, tables and pictures, each number with its run."""

from __future__ import annotations

from pathlib import Path

from nldsl.ablate.report.facts import Facts

__all__ = ["FOLDER", "PICTURES", "pictures_of", "text", "write"]

FOLDER = "report"
PICTURES = {
    "effects": "effects with their intervals",
    "differences": "differences from the baseline while learning",
    "curves": "learning curves",
    "costs": "cost and quality",
    "forgetting": "what is left of each task",
}


def write(folder: Path | str) -> Path:
    """Write the report of the study in `folder`, finished or not, into its `report/`; returns the page.

    `report.html` is one page with nothing outside it; `report.md`, `report.tex`, `runs.csv`, `effects.csv`
    and the pictures are the same in other forms.  The same study gives the same bytes.

    Raises:
        RunError: there is no study, it is damaged, or the report cannot be written (NL0945).
    """
    from nldsl.ablate.report import csvs, latex, page, texts
    from nldsl.ablate.report.gather import gather
    from nldsl.diagnostics.model import Diagnostic
    from nldsl.run.files import FileProblem, make_folder, write_text
    from nldsl.run.folder import RunError

    facts = gather(folder)
    place = Path(folder) / FOLDER
    pictures = pictures_of(facts)
    files = {f"{name}.svg": f"{picture}\n" for name, picture in pictures.items()}
    shown = [(f"{name}.svg", PICTURES[name]) for name in pictures]
    files |= {
        "report.md": texts.as_markdown(facts, pictures=shown),
        "report.tex": latex.as_latex(facts),
        "runs.csv": csvs.runs(facts),
        "effects.csv": csvs.effects(facts),
        "report.html": page.as_html(facts, pictures),
    }
    try:
        make_folder(place)
        for stale in PICTURES.keys() - pictures.keys():
            (place / f"{stale}.svg").unlink(missing_ok=True)
        for name, content in files.items():
            write_text(place / name, content)
    except (FileProblem, OSError) as error:
        raise RunError(
            Diagnostic(
                "NL0945",
                f"the report of `{folder}` cannot be written: {error}",
                help="make room or a writable folder, and report again; the study itself is as it was",
            ),
            exit_code=2,
        ) from error
    return place / "report.html"


def text(folder: Path | str, *, width: int = 0) -> str:
    """The report of the study in `folder` for a terminal; raises `RunError` where there is none."""
    from nldsl.ablate.report import texts
    from nldsl.ablate.report.gather import gather

    return texts.as_text(gather(folder), width=width)


def pictures_of(facts: Facts) -> dict[str, str]:
    """The pictures of a report that have something to show, as SVG, by the names of `PICTURES`."""
    from nldsl.ablate.report import plots

    drawn = {
        "effects": plots.effects(facts),
        "differences": plots.differences(facts),
        "curves": plots.curves(facts),
        "costs": plots.costs(facts),
        "forgetting": plots.forgetting(facts),
    }
    return {name: picture for name, picture in drawn.items() if picture}
