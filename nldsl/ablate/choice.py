"""Which of the variants that are asked for a plan takes in."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from nldsl.ablate.rows import Row
from nldsl.diagnostics.model import Diagnostic, SpecError
from nldsl.diagnostics.suggest import nearest

MOST_LISTED = 6


def only(rows: Sequence[Row], patterns: Sequence[str], always: str = "") -> tuple[list[Row], list[Row]]:
    """The rows that any of the patterns means, and the others; all where there is no pattern.

    A pattern is a piece of a variant's name, of its words or of its question, or a glob over one of them, in
    any case of letters.  The row whose name or words are `always` is taken in, too.

    Raises:
        SpecError: a pattern matches no variant (NL0650).
    """
    if not patterns:
        return list(rows), []
    for pattern in patterns:
        if not any(_means(pattern, row) for row in rows):
            raise SpecError([_nothing(pattern, rows)])
    chosen = [row for row in rows if always in (row.name, row.words) or any(_means(p, row) for p in patterns)]
    return chosen, [row for row in rows if row not in chosen]


def at_most(rows: Sequence[Row], number: int | None, always: str = "") -> tuple[list[Row], list[Row]]:
    """The first `number` rows and the rest; the row called `always` counts and is never left out."""
    if number is None or len(rows) <= number:
        return list(rows), []
    needed = [row for row in rows if always in (row.name, row.words)]
    others = [row for row in rows if row not in needed][: max(number - len(needed), 0)]
    chosen = [row for row in rows if row in needed or row in others]
    return chosen, [row for row in rows if row not in chosen]


def _means(pattern: str, row: Row) -> bool:
    wish = pattern.lower()
    texts = [text.lower() for text in (row.name, row.words, row.question)]
    return any(wish in text or fnmatchcase(text, wish) for text in texts)


def _nothing(pattern: str, rows: Sequence[Row]) -> Diagnostic:
    words = [row.words for row in rows]
    pieces = [
        piece for row in rows for piece in (row.words, row.name, *row.words.split(), *_parts(row.words))
    ]
    near = nearest(pattern, [piece for piece in pieces if any(map(str.isalnum, piece))])
    listed = ", ".join(f"`{one}`" for one in (near or words)[:MOST_LISTED])
    more = len(words) - MOST_LISTED
    hint = (
        f"maybe {listed}" if near else f"the variants are {listed}{f' and {more} more' if more > 0 else ''}"
    )
    return Diagnostic("NL0650", f"no variant is called `{pattern}`", help=hint if rows else None)


def _parts(words: str) -> list[str]:
    return [part for word in words.split() for part in word.split(".")]
