"""States as values: nested dicts, lists and tuples of tensors, compared, averaged and named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from finite import all_finite
from schedule import UserError


def held(value: Any, device: torch.device | None = None) -> Any:
    """`value` with tensors through which no gradient flows, on `device` where one is given."""
    if isinstance(value, Tensor):
        return value.detach() if device is None else value.detach().to(device)
    if isinstance(value, dict):
        return {key: held(part, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(held(part, device) for part in value)
    return value


def mean(values: Sequence[Any], where: str = "") -> Any:
    """The mean of nested values, tensor by tensor; of counts the largest; the rest has to be the same in all.

    Equal tensors give that very tensor: the mean of copies is the copy, bit for bit.  Raises `UserError`,
    naming the place, for values that have no mean.

    >>> mean([{"a": torch.tensor([1.0])}, {"a": torch.tensor([2.0])}])
    {'a': tensor([1.5000])}
    """
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        raise _no_mean(where)
    if isinstance(first, Tensor):
        if any(value.shape != first.shape for value in values):
            raise _no_mean(where)
        if all(torch.equal(value, first) for value in values[1:]):
            return first
        if not first.is_floating_point():
            raise _no_mean(where)
        return torch.stack([value.to(first.device) for value in values]).mean(0)
    if isinstance(first, dict):
        if any(value.keys() != first.keys() for value in values):
            raise _no_mean(where)
        return {key: mean([value[key] for value in values], f"{where}.{key}".lstrip(".")) for key in first}
    if isinstance(first, list | tuple):
        if any(len(value) != len(first) for value in values):
            raise _no_mean(where)
        return type(first)(mean(parts, where) for parts in zip(*values, strict=True))
    if isinstance(first, int):
        return max(values)
    if any(value != first for value in values):
        raise _no_mean(where)
    return first


def _no_mean(where: str) -> UserError:
    return UserError(
        f"these states cannot be averaged: `{where}` has no mean",
        help="begin a new sequence in each (`--new-sequence`), and average what they have learned",
        kind="checkpoint",
    )


def digest(weights: Mapping[str, Tensor]) -> str:
    """The sha256 of named weights."""
    found = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        found.update(f"{name} {weight.dtype} {list(weight.shape)} ".encode())
        found.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def first_broken(value: Any, where: str = "") -> str | None:
    """The place where nested values first hold a number that is not finite.

    >>> first_broken({"a": [torch.ones(1), torch.tensor(float("nan"))]})
    'a.1'
    """
    if isinstance(value, dict):
        parts: Any = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return None if all_finite(value) else where
    inside = (first_broken(part, f"{where}.{key}".lstrip(".")) for key, part in parts)
    return next((found for found in inside if found is not None), None)
