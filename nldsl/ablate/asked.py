"""`study.json`: what a study asks, as plain values that programs and later versions can read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nldsl import __version__
from nldsl.ablate.rows import Keep, Row
from nldsl.diagnostics.model import Diagnostic
from nldsl.run.files import reason, write_text
from nldsl.run.folder import RunError

if TYPE_CHECKING:
    from nldsl.ablate.plan import Plan

NAME = "study.json"
FORMAT = 1


@dataclass(frozen=True)
class Asked:
    """What a study asks.

    Attributes:
        name: of the `ablate` block.
        base: the run that every variant changes.
        block: the text of the block; "" where it was made by a program.
        seeds, measures, baseline, keep: as in `nldsl.ablate.plan.Plan`.
        rows: the variants, the base first; their `amendments` are left out.
        sets: what each row changes, in words, by its name.
        bytes: what the training of a row needs at least, by its name.
        left: names of rows that are no longer asked for.
        version: the nldsl that made the study.
    """

    name: str
    base: str
    rows: tuple[Row, ...]
    block: str = ""
    seeds: tuple[int, ...] = (0,)
    measures: tuple[str, ...] = ("loss",)
    baseline: str = "base"
    keep: Keep | None = None
    sets: dict[str, list[str]] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    version: str = __version__


def of_plan(plan: Plan) -> Asked:
    """What `plan` asks."""
    from nldsl.resolve.amend import in_words

    return Asked(
        name=plan.name,
        base=plan.base,
        rows=tuple(replace(row, amendments=(), span=None) for row in plan.rows),
        block=plan.block,
        seeds=tuple(plan.seeds),
        measures=tuple(plan.measures),
        baseline=plan.baseline,
        keep=None if plan.keep is None else replace(plan.keep, span=None),
        sets={row.name: [in_words(one) for one in row.amendments] for row in plan.rows},
        bytes={row.name: plan.spec_of(row).training_bytes for row in plan.runnable},
    )


def join(before: Asked, wanted: Asked) -> Asked:
    """`wanted`, with the rows of `before` that it does not have marked as left.

    A row that is there already keeps its name, whatever it is called now: its runs are in a folder of that
    name.
    """
    names = {row.digest: row.name for row in before.rows if row.digest}
    called = {row.name: names.get(row.digest, row.name) for row in wanted.rows}
    rows = tuple(replace(row, name=called[row.name]) for row in wanted.rows)
    here = {row.name for row in rows}
    gone = tuple(row for row in before.rows if row.name not in here and row.digest)
    return replace(
        wanted,
        rows=(*rows, *gone),
        baseline=called.get(wanted.baseline, wanted.baseline),
        sets={**before.sets, **{called[name]: words for name, words in wanted.sets.items()}},
        bytes={**before.bytes, **{called[name]: size for name, size in wanted.bytes.items()}},
        left=tuple(row.name for row in gone),
        version=before.version,
    )


def write(folder: Path, asked: Asked) -> None:
    """Write `study.json`, whole or not at all; raises `FileProblem`."""
    write_text(folder / NAME, json.dumps(_plain(asked), indent=1, ensure_ascii=False) + "\n")


def read(folder: Path) -> Asked:
    """What the study in `folder` asks; raises `RunError` where there is none (NL0902) or it is damaged."""
    path = folder / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("format") != FORMAT:
            raise _damaged(path, f"its format is {data.get('format')!r}, and this nldsl reads {FORMAT}")
        return _of_plain(data)
    except FileNotFoundError as error:
        what = "has no `study.json`" if folder.is_dir() else "does not exist"
        raise RunError(
            Diagnostic("NL0902", f"`{folder}` {what}", help="name the folder of a study"), exit_code=2
        ) from error
    except NotADirectoryError as error:
        raise RunError(
            Diagnostic("NL0902", f"`{folder}` is a file", help="name the folder of a study"), exit_code=2
        ) from error
    except OSError as error:
        raise _damaged(path, f"it cannot be read: {reason(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"it does not say what is asked ({type(error).__name__}: {error})") from error


def _damaged(path: Path, why: str) -> RunError:
    return RunError(
        Diagnostic(
            "NL0904",
            f"`{path}` is damaged: {why}",
            help="put a copy of it back, or make the study in another folder; nothing has been changed",
        ),
        exit_code=2,
    )


def _plain(asked: Asked) -> dict[str, Any]:
    keep = asked.keep
    return {
        "format": FORMAT,
        "name": asked.name,
        "base": asked.base,
        "block": asked.block,
        "seeds": list(asked.seeds),
        "measures": list(asked.measures),
        "baseline": asked.baseline,
        "keep": None if keep is None else {"what": keep.what, "within": keep.within, "by": list(keep.by)},
        "rows": [_plain_row(row, asked) for row in asked.rows],
        "nldsl": asked.version,
    }


_FIGURES = ("parameters", "flops_per_token", "state_bytes", "steps")
_WORDS = ("name", "words", "question", "digest", "matched")


def _plain_row(row: Row, asked: Asked) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in (*_WORDS, *_FIGURES)},
        "training_bytes": asked.bytes.get(row.name, 0),
        "sets": asked.sets.get(row.name, []),
        "changes": list(row.changes),
        "merged": list(row.merged),
        "problem": row.problem,
        "asked": row.name not in asked.left,
    }


def _of_plain(data: dict[str, Any]) -> Asked:
    rows = data["rows"]
    return Asked(
        name=str(data["name"]),
        base=str(data["base"]),
        rows=tuple(_row(one) for one in rows),
        block=str(data["block"]),
        seeds=tuple(int(seed) for seed in data["seeds"]),
        measures=tuple(str(one) for one in data["measures"]),
        baseline=str(data["baseline"]),
        keep=_keep(data["keep"]),
        sets={one["name"]: [str(word) for word in one["sets"]] for one in rows},
        bytes={one["name"]: int(one["training_bytes"]) for one in rows},
        left=tuple(one["name"] for one in rows if not one["asked"]),
        version=str(data["nldsl"]),
    )


def _row(data: dict[str, Any]) -> Row:
    plain: dict[str, Any] = {name: str(data[name]) for name in _WORDS}
    plain |= {name: int(data[name]) for name in _FIGURES}
    return Row(
        **plain,
        changes=tuple(str(one) for one in data["changes"]),
        merged=tuple(str(one) for one in data["merged"]),
        problem=None if data["problem"] is None else str(data["problem"]),
    )


def _keep(data: dict[str, Any] | None) -> Keep | None:
    if data is None:
        return None
    return Keep(data["what"], float(data["within"]), tuple(str(path) for path in data["by"]))


__all__ = ["FORMAT", "NAME", "Asked", "join", "of_plan", "read", "write"]
