"""Compiled folders: made from a spec, or given as they are."""

from __future__ import annotations

import os
from pathlib import Path

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.problem import Problem
from nldsl.diagnostics.model import SpecError
from nldsl.run.files import SPEC_SUFFIXES


def default_folder(spec_path: str, variant: str | None) -> Path:
    """Where `train` compiles a spec to.

    >>> default_folder("specs/hope.nl", "Tiny").as_posix()
    'build/hope-tiny'
    """
    name = Path(spec_path).stem + (f"-{variant.lower()}" if variant else "")
    return Path("build") / name


def memory_of_the_machine() -> int | None:
    """Bytes of main memory, or None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def is_spec(path: str) -> bool:
    """Whether a path names a spec file rather than a folder."""
    return Path(path).suffix in SPEC_SUFFIXES and not Path(path).is_dir()


def folder_for(
    console: Console,
    path: str,
    *,
    settings: tuple[str, ...] = (),
    variant: str | None = None,
    force: bool = False,
    memory_bytes: int | None = None,
) -> tuple[Path, tuple[str, ...]]:
    """The compiled folder of a spec (compiled now) or folder, and the settings left for the run.

    Settings on a spec change the spec; on a folder they change the run.  A spec that needs more than
    `memory_bytes` is refused before anything is written.
    """
    if is_spec(path):
        spec = inputs.load_spec(console, path, settings=settings, variant=variant)
        if memory_bytes is not None and (short := spec.shortage(memory_bytes)):
            raise SpecError(short)
        folder = default_folder(path, variant)
        spec.compile(folder, force=force)
        console.say(f"compiled {path} to {folder}")
        return folder, ()
    if variant is not None:
        raise Problem(
            "`--variant` belongs to a spec, and a compiled folder is one variant", "give the spec file"
        )
    return inputs.build_folder(path), settings
