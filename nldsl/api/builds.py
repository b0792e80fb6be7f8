"""Build folders: written from a spec, read back as a model."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nldsl.diagnostics.model import Diagnostic, Label, SpecError

if TYPE_CHECKING:
    from torch import nn

    from nldsl.api.spec import Spec


@dataclass(frozen=True, slots=True)
class Build:
    """A folder of PyTorch code that runs without nldsl.

    Attributes:
        folder: where it lies.
        files: the names of its files, sorted.
        parameters: learned numbers in the model.
    """

    folder: Path
    files: tuple[str, ...]
    parameters: int

    def model(self, seed: int = 0) -> nn.Module:
        """The model with fresh weights drawn from `seed`.

        It maps `(tokens [batch, length] int64, state=None)` to `(logits [batch, length, vocab], state)`;
        the state of one call given to the next goes on where it stopped.

        Raises:
            nldsl.run.folder.RunError: the folder is damaged.
        """
        import torch

        from nldsl.run.folder import load

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built: Any = load(self.folder).model
            return built.build()


def files(spec: Spec) -> dict[str, str | bytes]:
    """Every file of the spec's build folder by name.

    Raises:
        SpecError: the spec has no model (NL0703), or its own text file cannot be read (NL0704).
    """
    from nldsl import __version__
    from nldsl.codegen.build import Request
    from nldsl.codegen.build import files as written
    from nldsl.data.carried import carried
    from nldsl.levels.outer import assign

    expanded = spec.expanded
    if expanded.model is None:
        raise SpecError(
            [
                Diagnostic(
                    "NL0703",
                    f"`{spec.source.name}` has no model, so there is nothing to compile",
                    help="declare a `model`, and a `train` block that uses it",
                )
            ]
        )
    own = own_texts(spec)
    request = Request(
        expanded,
        assign(expanded),
        spec.levels(),
        spec.source.name,
        spec.expand(),
        __version__,
        lambda name: {name: own[name]} if name in own else carried(name),
    )
    return written(request)


def own_texts(spec: Spec) -> dict[str, bytes]:
    """The files beside a spec that it learns from, by name, without those that come with the package.

    Raises:
        SpecError: one does not lie beside the spec, or cannot be read (NL0704).
    """
    from nldsl.data.carried import names

    training = spec.expanded.training
    sources = training.data.sources if training is not None else ()
    return {name: _own_text(spec, name) for name in sources if name not in names()}


def _own_text(spec: Spec, name: str) -> bytes:
    """A file that the spec names, to travel with the build."""
    from nldsl.codegen.build import own_names
    from nldsl.data.carried import names
    from nldsl.run.files import FileProblem, read_bytes

    training = spec.expanded.training
    assert training is not None
    task = next((one for one in training.data.tasks if one.source == name), None)
    span = task.span if task is not None else training.data.spans.get("source")
    labels = (Label(span, "named here"),) if span is not None else ()
    if Path(name).is_absolute() or ".." in Path(name).parts or "/" in name or os.sep in name:
        raise SpecError(
            [
                Diagnostic(
                    "NL0704",
                    f"the text `{name}` does not lie beside the spec",
                    labels,
                    help="copy the file into the folder of the spec and name it without a path",
                )
            ]
        )
    if name in own_names() or name.endswith(".py"):
        raise SpecError(
            [
                Diagnostic(
                    "NL0704",
                    f"the text `{name}` has a name that files of a build have",
                    labels,
                    help="call it for instance `text.txt`: it lies beside the code in the compiled folder",
                )
            ]
        )
    path = Path(spec.source.name).parent / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent)):
        raise SpecError(
            [
                Diagnostic(
                    "NL0704",
                    f"the text `{name}` is a link that leads outside the folder of the spec",
                    labels,
                    help="copy the file itself into the folder of the spec: a build carries its text along",
                )
            ]
        )
    try:
        return read_bytes(path)
    except FileProblem as problem:
        known = ", ".join(f"`{k}`" for k in names())
        raise SpecError(
            [
                Diagnostic(
                    "NL0704",
                    problem.message,
                    labels,
                    help=f"{problem.help or 'put the file beside the spec'}; known corpora are {known}",
                )
            ]
        ) from problem


def write(spec: Spec, folder: str | os.PathLike[str], *, force: bool = False) -> Build:
    """Write the build folder; see `Spec.compile`."""
    from nldsl.codegen.build import RECORD
    from nldsl.run.files import FileProblem, make_folder, write_bytes

    found = files(spec)
    target = Path(folder)
    old = _record(target)
    if not force:
        _protect(target, old)
    fresh = not target.exists() or not any(target.iterdir())
    make_folder(target)
    try:
        for name, content in found.items():
            if name != RECORD:
                write_bytes(target / name, _bytes(content))
        write_bytes(target / RECORD, _bytes(found[RECORD]))
    except BaseException:
        if fresh:  # half a build is none: the next `compile` finds the folder as this one did
            for name in found:
                (target / name).unlink(missing_ok=True)
        raise
    for name in set(old or {}) - set(found):
        try:
            (target / name).unlink(missing_ok=True)
        except OSError as error:
            raise FileProblem(
                f"cannot remove `{target / name}`: {error.strerror}", "remove it by hand"
            ) from error
    return Build(target, tuple(found), spec.levels().parameters)


def stale(spec: Spec, folder: str | os.PathLike[str]) -> list[str]:
    """What differs between a folder and what `compile` would now write; empty where it is up to date."""
    from nldsl.codegen.build import digest

    target = Path(folder)
    if not target.is_dir():
        return [f"{target}: there is no such folder"]
    lines = []
    for name, content in files(spec).items():
        path = target / name
        if not path.is_file():
            lines.append(f"{name}: missing")
        elif digest(path.read_bytes()) != digest(content):
            lines.append(f"{name}: differs")
    return lines


def _bytes(content: str | bytes) -> bytes:
    return content.encode("utf-8") if isinstance(content, str) else content


def _record(folder: Path) -> dict[str, str] | None:
    """The hashes of what was last written there; None where nothing was."""
    from nldsl.codegen.build import RECORD

    try:
        files_ = json.loads((folder / RECORD).read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {str(k): str(v) for k, v in files_.items()} if isinstance(files_, dict) else None


def _protect(folder: Path, record: dict[str, str] | None) -> None:
    """Refuse to write over what somebody else wrote."""
    from nldsl.codegen.build import digest
    from nldsl.run.files import FileProblem

    if not folder.is_dir():
        return
    if record is None:
        if any(folder.iterdir()):
            raise FileProblem(
                f"`{folder}` is not empty and no build folder",
                "name an empty folder, or add `--force` to write into it",
            )
        return
    edited = [
        n
        for n, hashed in record.items()
        if (folder / n).is_file() and digest((folder / n).read_bytes()) != hashed
    ]
    if edited:
        listed = ", ".join(f"`{n}`" for n in edited)
        raise FileProblem(
            f"{listed} in `{folder}` {'was' if len(edited) == 1 else 'were'} edited by hand",
            "write to another folder, or add `--force` to overwrite",
        )
