"""Which tokens a part sees: all of them, those of a segment, or those of several streams joined in time."""

from __future__ import annotations

import math
from typing import Literal

from nldsl.records import record


@record
class Seen:
    """One step on the way from the sequence to a part.

    `segments`: the part begins anew every `number` tokens.  `joined`: `number` tokens of streams stand for
    each token, and `prefix` learned ones before them all.  `places`: the part stands at `number` places with
    the same weights, and has a state at each.
    """

    kind: Literal["segments", "joined", "places"]
    number: int
    prefix: int = 0


@record
class Stream:
    """What a part has been given after a sequence: `held` tokens since it last began anew, `rate` tokens for
    each of the sequence, and that at `places` places.
    """

    held: int
    rate: float
    places: int


def stream(seen: tuple[Seen, ...], length: int) -> Stream:
    """The tokens that a part is given of a sequence of `length`, through all steps from the outside in.

    >>> stream((Seen("segments", 64), Seen("joined", 2, 4)), 128)
    Stream(held=132, rate=2.0625, places=1)
    """
    held, total, begun, places = length, float(length), 1, 1
    for step in seen:
        if step.kind == "segments":
            begun *= max(1, math.ceil(held / step.number))
            held = (held - 1) % step.number + 1 if held else 0
        elif step.kind == "joined":
            held = step.number * held + step.prefix
            total = step.number * total + step.prefix * begun
        else:
            places *= step.number
    return Stream(held, total * places / max(length, 1), places)
