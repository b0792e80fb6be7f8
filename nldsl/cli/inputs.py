"""From what stands on the command line to the texts a verb works on."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nldsl.diagnostics.model import Source
from nldsl.run.files import LARGEST_SPEC, SPEC_SUFFIXES, FileProblem, decode, read_import, read_text

if TYPE_CHECKING:
    from nldsl.api import Spec
    from nldsl.cli.console import Console

STDIN = "-"
_SKIPPED_FOLDERS = frozenset({"build", "dist", "runs", "node_modules", "__pycache__"})
_EDITION_KEY = re.compile(r"^edition\s*:", re.MULTILINE)


def sources(paths: Sequence[str], stdin_name: str, complain: Callable[[FileProblem], None]) -> list[Source]:
    """The texts of files, folders (every spec below them) and `-` (standard input), each once.

    A path that cannot be read is handed to `complain` and left out.
    """
    found: list[Source] = []
    for path in _files(paths, complain):
        try:
            found.append(stdin_source(stdin_name) if path == STDIN else Source(path, read_text(path)))
        except FileProblem as problem:
            complain(problem)
    return found


def stdin_source(name: str) -> Source:
    """Standard input as a source called `name`."""
    data = sys.stdin.buffer.read(LARGEST_SPEC + 1)
    if len(data) > LARGEST_SPEC:
        raise FileProblem(f"standard input holds more than {LARGEST_SPEC // 2**20} MiB")
    return Source(name, decode(name, data))


def one_source(path: str, stdin_name: str = "<stdin>.nl") -> Source:
    """The text of one file, or of standard input for `-`; raises `FileProblem`."""
    return stdin_source(stdin_name) if path == STDIN else Source(path, read_text(path))


def importer(source: Source) -> Callable[[str], Source]:
    """A reader of the files that `source` imports, by paths relative to its folder.

    It raises `OSError` or `UnicodeError`.
    """
    return lambda path: Source(*read_import(source.name, path))


def load_spec(
    console: Console, path: str, *, settings: tuple[str, ...] = (), variant: str | None = None
) -> Spec:
    """The checked spec in a file, its warnings reported.  Raises `FileProblem`, `Problem` or `SpecError`."""
    from nldsl import api
    from nldsl.cli.options import check_settings

    read_text(path)  # the file itself may be the problem, and then that is the message
    spec = api.load(path, set=check_settings(settings) or None, variant=variant)
    console.report(spec.diagnostics)
    return spec


def is_build_folder(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder that `compile` wrote."""
    return (Path(path) / "levels.json").is_file() and (Path(path) / "model.py").is_file()


def build_folder(path: str) -> Path:
    """`path` as a folder; raises `FileProblem` for a file.  What the folder lacks, the runner says."""
    folder = Path(path)
    if folder.is_file():
        fact = f"`{path}` is a file, and a compiled folder is needed"
        raise FileProblem(
            fact, f"`nldsl compile {path} -o DIR` makes one" if folder.suffix in SPEC_SUFFIXES else None
        )
    return folder


def _files(paths: Sequence[str], complain: Callable[[FileProblem], None]) -> list[str]:
    """Every file the paths mean, in order, each once."""
    files: dict[str, str] = {}
    for path in paths:
        if path == STDIN:
            files.setdefault(STDIN, STDIN)
        elif not path:
            complain(FileProblem("a path is empty", "name a file, a folder, or `-` for standard input"))
        elif Path(path).is_dir():
            inside = specs_below(path)
            if not inside:
                complain(FileProblem(f"no .nl file and no YAML spec is below `{path}`"))
            for file in inside:
                files.setdefault(os.path.realpath(file), file)
        else:
            files.setdefault(os.path.realpath(path), path)
    return list(files.values())


def specs_below(folder: str) -> list[str]:
    """Specs below a folder, sorted: .nl files, and YAML files with an `edition:` key at the top level.

    Hidden folders, what `compile` wrote, and `build`, `dist` and `runs` are left out.
    """
    found: list[str] = []
    for where, folders, names in os.walk(folder):
        if is_build_folder(where):
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _SKIPPED_FOLDERS)
        found += [str(Path(where) / name) for name in sorted(names) if _is_spec(Path(where) / name)]
    return found


def _is_spec(file: Path) -> bool:
    if file.name.startswith(".") or file.suffix not in SPEC_SUFFIXES:
        return False
    if file.suffix == ".nl":
        return True
    try:
        head = file.read_bytes()[:65536].decode("utf-8", errors="replace")
    except OSError:
        return False
    return _EDITION_KEY.search(head) is not None
