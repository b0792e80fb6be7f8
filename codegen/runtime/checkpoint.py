"""Checkpoints: written whole or not at all, read without running code, compared before use."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finite import all_finite
from model import Config, build
from schedule import UserError

FORMAT = 1
NAME = "checkpoint.pt"


def construct(sizes: dict[str, Any]) -> nn.Module:
    """The model with these sizes; `UserError` for a size that it does not have or cannot take."""
    known = [f.name for f in dataclasses.fields(Config)]
    for name in sizes:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or known
            raise UserError(f"the model has no size `{name}`", help=f"it has `{'`, `'.join(near)}`", code=2)
    try:
        return build(Config(**sizes))
    except (ValueError, AssertionError) as error:
        listed = ", ".join(f"{name}={value}" for name, value in sizes.items())
        raise UserError(f"no model can be built with {listed}: {error}", help="change these sizes") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise UserError(
            "the machine has too little memory for this model",
            help="make the sizes of the model smaller",
            kind="device",
        ) from error


def save(path: Path, content: dict[str, Any], *, what: str = "checkpoint") -> None:
    """Write `content` to `path`, which holds either the old or the new `what` at any moment.

    The new one goes to a neighbour, reaches the disk, and then takes the name.  Raises `UserError`
    (status 2) when that fails; the old one is then as it was.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        part.unlink(missing_ok=True)
        full = cause.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        kept = f"the {what} written before is still there" if path.is_file() else "nothing was written"
        raise UserError(
            f"cannot write {path}: {cause.strerror}; {kept}",
            help="free some space and run again with --resume"
            if full
            else "choose a folder that can be written",
            code=2,
            kind="output",
        ) from error


def load(path: Path, *, what: str = "checkpoint", holds: str = "weights") -> dict[str, Any]:
    """The `what` at `path`, on the CPU; `UserError` if it is missing, damaged or does not have `holds`."""
    if not path.is_file():
        advice = "train first, or give its path" if what == "checkpoint" else "give its path"
        raise UserError(f"there is no {what} {path}", help=advice, code=2, kind="checkpoint")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}", help="check the file", code=2, kind="checkpoint"
        ) from error
    try:
        with file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} is damaged: it has {path.stat().st_size:,} bytes that are no whole {what}",
            help="use a copy of it, or start anew; the file has been left as it is",
            kind="checkpoint",
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or holds not in content:
        author = "train.py" if what == "checkpoint" else "`--save-state`"
        raise UserError(
            f"{path} is no {what} of this program", help=f"give one that {author} wrote", kind="checkpoint"
        )
    return content


def load_weights(model: nn.Module, content: dict[str, Any], path: Path) -> None:
    """Put the weights of a checkpoint into `model`.

    Raises `UserError`, naming what differs or what is not finite, and leaves `model` as it was.
    """
    differences = compare(content["weights"], model.state_dict())
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(
            f"{path} is of another model: {'; '.join(differences[:3])}{more}",
            help="use the spec and the sizes that it was trained with; the file has been left as it is",
            kind="checkpoint",
        )
    broken = [name for name, tensor in content["weights"].items() if not all_finite(tensor)]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UserError(
            f"{path} holds numbers that are not finite: `{broken[0]}`{more}",
            help="use an earlier checkpoint, or start a new run; the file has been left as it is",
            kind="checkpoint",
        )
    model.load_state_dict(content["weights"])


def compare(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """How the tensors of a checkpoint differ from those of a model, in words."""
    words = [f"`{n}` is not in the model" for n in found if n not in wanted]
    words += [f"`{n}` is not in the checkpoint" for n in wanted if n not in found]
    for name, tensor in wanted.items():
        if name in found and found[name].shape != tensor.shape:
            words.append(f"`{name}` is {list(found[name].shape)} there and {list(tensor.shape)} here")
    return words


def newest(folder: Path) -> Path:
    """The checkpoint of the newest run in `folder/runs`; `UserError` if there is none."""
    found = sorted((folder / "runs").glob(f"*/{NAME}"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise UserError(
            f"there is no checkpoint in {folder / 'runs'}",
            help="train first (`python train.py`), or name one with --checkpoint",
            code=2,
            kind="checkpoint",
        )
    return found[-1]


def restore(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a checkpoint with its weights, and the rest of the checkpoint."""
    content = load(path)
    model = construct(content["sizes"])
    load_weights(model, content, path)
    return model.eval(), content


def _os_error(error: BaseException | None) -> OSError | None:
    """The error of the operating system behind `error`: torch's writer hides it under one of its own."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None
