"""Build folders for tests, each compiled once in a session.

Test folders are no packages: load this file by its path, as `tests/verify/conftest.py` does.
"""

from __future__ import annotations

from pathlib import Path

import nldsl

ROOT = Path(__file__).resolve().parents[1]
SPECS = tuple(sorted(path.stem for path in (ROOT / "specs").glob("*.nl")))

_made: dict[tuple[str, str | None, Path], Path] = {}


def build_folder(spec: str, variant: str | None, tmp: Path) -> Path:
    """The folder of `specs/SPEC.nl` as `variant`, below `tmp`; compiled when it is first asked for.

    Nobody changes what is in it: copy it for that.
    """
    key = (spec, variant, tmp)
    if key not in _made:
        folder = tmp / (spec if variant is None else f"{spec}-{variant}")
        nldsl.load(ROOT / "specs" / f"{spec}.nl", variant=variant).compile(folder)
        _made[key] = folder
    return _made[key]
