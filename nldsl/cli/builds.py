"""Compiled folders: made from a spec, or given as they are."""

from __future__ import annotations

from pathlib import Path

from nldsl.cli import inputs
from nldsl.cli.console import Console
from nldsl.cli.problem import Problem
from nldsl.run.files import SPEC_SUFFIXES


def default_folder(spec_path: str, variant: str | None) -> Path:
    """Where `train` compiles a spec to.

    >>> default_folder("specs/hope.nl", "Tiny").as_posix()
    'build/hope-tiny'
    """
    name = Path(spec_path).stem + (f"-{variant.lower()}" if variant else "")
    return Path("build") / name


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
) -> tuple[Path, tuple[str, ...]]:
    """The compiled folder of a spec (compiled now) or folder, and the settings left for the run.

    Settings on a spec change the spec; on a folder they change the run.
    """
    if is_spec(path):
        spec = inputs.load_spec(console, path, settings=settings, variant=variant)
        folder = default_folder(path, variant)
        spec.compile(folder, force=force)
        console.say(f"compiled {path} to {folder}")
        return folder, ()
    if variant is not None:
        raise Problem(
            "`--variant` belongs to a spec, and a compiled folder is one variant", "give the spec file"
        )
    return inputs.build_folder(path), settings
