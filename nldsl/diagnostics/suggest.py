"""Which known word a misspelled one may stand for."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 4


def nearest(word: str, candidates: Iterable[str]) -> list[str]:
    """The candidates that `word` may stand for, best first, four at most.

    A single candidate is always suggested; then those that differ in case only; then those
    within a third of the word's length (at least one) in edits, transpositions counting once.

    >>> nearest("modle", ["memory", "model", "train"])
    ['model']
    """
    known = list(dict.fromkeys(candidates))
    if len(known) == 1:
        return known
    same = [c for c in known if c.lower() == word.lower()]
    if same:
        return same[:MOST]
    limit = max(1, len(word) // 3)
    close = [
        (edits(word.lower(), c.lower()), i, c)
        for i, c in enumerate(known)
        if abs(len(c) - len(word)) <= limit
    ]
    return [c for distance, _, c in sorted(close) if distance <= limit][:MOST]


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """A `help` line with the nearest candidates, or None.

    >>> did_you_mean("modle", ["memory", "model"])
    'did you mean `model`?'
    """
    near = nearest(word, candidates)
    if not near:
        return None
    return "did you mean " + " or ".join(f"`{n}`" for n in near) + "?"


def edits(a: str, b: str) -> int:
    """The Damerau-Levenshtein distance (optimal string alignment) of two words."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
