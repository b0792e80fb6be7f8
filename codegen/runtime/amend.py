"""Amendments of settings: `data.batch=4` on the command line, read as what stands there now."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import types
import typing
from typing import Any, Literal

from schedule import Clock, Level, Rate, Settings, UserError, read_clock


def amend(
    settings: Settings,
    pairs: list[str] | tuple[str, ...],
    *,
    steps: int | None = None,
    seed: int | None = None,
    regions: bool | None = None,
) -> Settings:
    """`settings` with `path=value` pairs applied, and the options that have flags of their own."""
    for pair in pairs:
        path, sign, value = pair.partition("=")
        if not sign:
            raise UserError(f"`{pair}` sets nothing", help="write path=value, as in `data.batch=4`", code=2)
        settings = override(settings, path, value)
    flags = {"steps": steps, "seed": seed, "data.seed": seed, "compile": regions}
    for path, value in flags.items():
        if value is not None:
            settings = override(settings, path, str(value))
    return settings


def override(settings: Settings, path: str, text: str) -> Settings:
    """`settings` with the value at `path` replaced: `steps`, `data.batch`, `model.dim`, `levels.slow.rate`.

    The text is read as what stands there now; `none` is allowed where nothing is.  A level's rate is
    its `base`; its clock is written `8 steps` or `64 tokens`.  Raises `UserError`.
    """
    return _put(settings, path.strip().split("."), text.strip(), path.strip())


def _put(here: Any, parts: list[str], text: str, path: str) -> Any:
    """`here` with `text` put at `parts`, for dataclasses, dicts and the tuple of levels."""
    name, rest = parts[0], parts[1:]
    if isinstance(here, dict):
        return here | {_known(name, here, path): _value(text, type(here[name]), path, rest)}
    if isinstance(here, tuple):
        level = _known(name, {level.name: level for level in here}, path)
        if not rest:
            raise UserError(
                f"`{path}` is a whole level", help=f"name a part of it: `{path}.rate=1e-3`", code=2
            )
        return tuple(_put(one, rest, text, path) if one.name == level else one for one in here)
    if isinstance(here, Level) and name in here.options:
        return dataclasses.replace(here, options=_put(here.options, parts, text, path))
    hints = typing.get_type_hints(type(here))
    choices = [*hints, *here.options] if isinstance(here, Level) else list(hints)
    _known(name, choices, path)
    old = getattr(here, name)
    if isinstance(old, Rate) and not rest:
        rest = ["base"]
    if isinstance(old, Clock) and not rest:
        return dataclasses.replace(here, **{name: _clock(text, path)})
    if rest and (dataclasses.is_dataclass(old) or isinstance(old, dict) or name == "levels"):
        return dataclasses.replace(here, **{name: _put(old, rest, text, path)})
    if dataclasses.is_dataclass(old) or isinstance(old, dict) or name in ("levels", "measures", "tasks"):
        raise UserError(f"`{path}` is a group of settings", help=f"name a part of it: `{path}.x=...`", code=2)
    return dataclasses.replace(here, **{name: _value(text, hints[name], path, rest)})


def _known(name: str, names: Any, path: str) -> str:
    """`name`, if it is one of `names`; else an error with the nearest."""
    if name in names:
        return name
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    listed = ", ".join(f"`{n}`" for n in (near or names))
    raise UserError(
        f"there is no setting `{path}`",
        help=f"{'did you mean' if near else 'known here:'} {listed}{'?' if near else ''}" if listed else "",
        code=2,
    )


def _clock(text: str, path: str) -> Clock:
    clock = read_clock(text)
    if clock is None:
        raise UserError(f"`{path}={text}` is not a clock", help="write `8 steps` or `64 tokens`", code=2)
    return clock


def _value(text: str, kind: Any, path: str, rest: list[str]) -> Any:
    """`text` read as a value of type `kind`."""
    if rest:
        group = path.rsplit(".", len(rest))[0]
        raise UserError(f"there is no setting `{path}`", help=f"`{group}` is one value", code=2)
    several = typing.get_origin(kind) in (types.UnionType, typing.Union)  # the latter with a `Literal` in it
    kinds = typing.get_args(kind) if several else (kind,)
    if types.NoneType in kinds and text.lower() in ("none", "off"):
        return None
    for one in kinds:
        if typing.get_origin(one) is Literal and text in typing.get_args(one):
            return text
        if typing.get_origin(one) is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if one is bool and text.lower() in ("true", "false", "yes", "no", "on", "off"):
            return text.lower() in ("true", "yes", "on")
        if one in (int, float) and (number := _number(text, one)) is not None:
            return number
        if one is str:
            return text.strip("\"'")
    raise UserError(f"`{path}={text}` does not fit", help=f"the value is {_describe(kinds)}", code=2)


def _number(text: str, kind: type) -> int | float | None:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind is float:
        return float(value)
    return int(value) if value == int(value) else None


def _describe(kinds: tuple[Any, ...]) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "none"}
    parts = [words.get(k) or " or ".join(f"`{v}`" for v in typing.get_args(k)) or "text" for k in kinds]
    return " or ".join(parts)
