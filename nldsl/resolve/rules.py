"""What a rate may be fed through, as data.  The rules themselves are declared in `nldsl/lib/rules`."""

from __future__ import annotations

SCHEDULES: dict[str, tuple[str, ...]] = {
    "warmup": ("steps",),
    "cosine": ("floor",),
    "linear": ("floor",),
    "constant": (),
}
