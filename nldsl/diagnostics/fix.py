"""Apply the safe fixes of findings to text.

Fixes are all or nothing: one whose edits touch a place that an earlier fix changes is left for the
next round, as callers check and fix again until nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nldsl.diagnostics.model import Diagnostic, Edit


@dataclass(frozen=True, slots=True)
class Fixed:
    """New texts by source name, and how many fixes went into them."""

    texts: dict[str, str]
    applied: int


def apply_fixes(diagnostics: Iterable[Diagnostic], *, only: Iterable[str] | None = None) -> Fixed:
    """Apply every safe fix that does not overlap one before it.

    `only` names the sources that may change; a fix that edits any other is left out as a whole.
    """
    allowed = set(only) if only is not None else None
    accepted: list[Edit] = []
    applied = 0
    for diagnostic in diagnostics:
        fix = diagnostic.fix
        if fix is None or not fix.safe or not fix.edits:
            continue
        if allowed is not None and any(edit.span.source.name not in allowed for edit in fix.edits):
            continue
        new = [edit for edit in fix.edits if edit not in accepted]
        if not _compatible(new, accepted):
            continue
        accepted += new
        applied += 1
    return Fixed(_texts(accepted), applied)


def _compatible(new: Sequence[Edit], accepted: Sequence[Edit]) -> bool:
    taken = list(accepted)
    for edit in new:
        if any(_overlap(edit, other) for other in taken):
            return False
        taken.append(edit)
    return True


def _overlap(a: Edit, b: Edit) -> bool:
    """True where two edits touch the same text.  Two insertions at one place do: their order is open."""
    if a.span.source.name != b.span.source.name:
        return False
    if a.span.start == b.span.start:
        return True
    return a.span.start < b.span.end and b.span.start < a.span.end


def _texts(edits: Sequence[Edit]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for edit in sorted(edits, key=lambda e: (e.span.source.name, e.span.start), reverse=True):
        text = texts.get(edit.span.source.name, edit.span.source.text)
        texts[edit.span.source.name] = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return texts
