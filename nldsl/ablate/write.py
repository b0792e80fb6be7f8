"""A plan as files: each variant as a complete spec that stands alone, and the whole as `plan.json`."""

from __future__ import annotations

import hashlib
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from nldsl.ablate.plan import Plan
from nldsl.ablate.rows import Row
from nldsl.ablate.table import as_json
from nldsl.run.files import FileProblem, make_folder, write_bytes

if TYPE_CHECKING:
    from nldsl.ablate.calibrate import Estimate

NAME = "plan.json"
WIDTH = 110


def write(plan: Plan, folder: Path | str, estimate: Estimate | None = None, *, jobs: int = 1) -> list[Path]:
    """Write the runnable variants of `plan` to `folder`, and return the files.

    Each is `NAME.nl`, which resolves without any other file and says in its first lines what it changes and
    asks.  Texts that lie beside the spec are copied along.  `plan.json` holds the plan and the digests of
    what was written; with these, a later call replaces its own files and removes those of variants that are
    gone, and never touches another file.

    Raises:
        SpecError: a text does not lie beside the spec (NL0704).
        FileProblem: the folder cannot be written, or holds files of these names that are not its own or were
            edited; nothing is written then.
    """
    from nldsl.api.builds import own_texts

    target = Path(folder)
    texts: dict[str, bytes] = {}
    for row in plan.runnable:
        spec = plan.spec_of(row)
        texts[f"{row.name}.nl"] = (_remarks(plan, row) + spec.expand()).encode()
        texts |= own_texts(spec)
    before = _written(target)
    _protect(target, texts, before)
    make_folder(target)
    whole = json.loads(as_json(plan, estimate, jobs=jobs))
    whole["files"] = {name: _digest(data) for name, data in texts.items()}
    for name, data in texts.items():
        write_bytes(target / name, data)
    write_bytes(target / NAME, (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode())
    for name, digest in before.items():
        gone = target / name
        if name not in texts and gone.is_file() and _digest(gone.read_bytes()) == digest:
            gone.unlink()
    return [*(target / name for name in texts), target / NAME]


def _remarks(plan: Plan, row: Row) -> str:
    """The first lines of a variant's spec."""
    if row is plan.rows[0]:
        told = [f"The base of {plan.name}: {plan.base}."]
    else:
        told = [f"{plan.name} of {plan.base}: {row.words}", row.question, *row.changes, row.matched]
    lines = (textwrap.wrap(text, WIDTH - 2, subsequent_indent="  ") for text in told if text)
    return "".join(f"# {line}\n" for wrapped in lines for line in wrapped)


def _written(folder: Path) -> dict[str, str]:
    """The digests of what a former call wrote there; nothing where there was none."""
    try:
        files = json.loads((folder / NAME).read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if not isinstance(files, dict):
        return {}
    return {str(name): str(digest) for name, digest in files.items() if Path(str(name)).name == name}


def _protect(folder: Path, texts: dict[str, bytes], before: dict[str, str]) -> None:
    """Refuse to write over what somebody else wrote."""
    if folder.is_file():
        raise FileProblem(f"`{folder}` is a file, and a folder is needed", "name another one")
    if not folder.is_dir():
        return
    if (folder / NAME).exists() and not before:
        raise FileProblem(f"`{folder / NAME}` is no plan that was written here", "name another folder")
    for name, data in texts.items():
        path = folder / name
        if not path.exists():
            continue
        there = _digest(path.read_bytes()) if path.is_file() else ""
        if there not in (before.get(name), _digest(data)):
            edited = "was edited by hand" if name in before else "was not written by this verb"
            raise FileProblem(f"`{path}` {edited}", "name another folder, or move the file away")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
