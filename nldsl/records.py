"""`@record`: frozen dataclasses with slots that are quick to define.

A start of nldsl defines some hundred of them. `dataclass` compiles six methods for each, much of the time
of a `check`; here it compiles the constructor alone, and equality, hash and text are shared. Assigning to
a field is a mistake for the type checker and not watched at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

__all__ = ["field", "record"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A class whose instances are equal when their fields are; those with `compare=False` do not count.

    >>> @record
    ... class Place:
    ...     line: int
    ...     note: str = field(default="", compare=False, repr=False)
    >>> Place(3, "here") == Place(3), hash(Place(3)) == hash(Place(3)), Place(3)
    (True, True, Place(line=3))
    """
    made: Any = dataclass(slots=True, eq=False, repr=False)(cls)
    compared = [f.name for f in fields(made) if f.compare]
    content: Callable[[Any], Any] = attrgetter(*compared) if compared else type
    shown = tuple(f.name for f in fields(made) if f.repr)

    def equal(self: Any, other: object) -> Any:
        if self is other:
            return True
        return content(self) == content(other) if other.__class__ is made else NotImplemented

    def digest(self: Any) -> int:
        return hash((made, content(self)))

    def text(self: Any) -> str:
        return f"{made.__qualname__}({', '.join(f'{n}={getattr(self, n)!r}' for n in shown)})"

    for name, method in (("__eq__", equal), ("__hash__", digest), ("__repr__", text)):
        own = cls.__dict__.get(name)
        if own is None:
            setattr(made, name, method)
    return made
