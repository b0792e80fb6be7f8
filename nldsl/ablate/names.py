"""Names of variants that are folders as well."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

LONGEST = 80
"""Characters of a name; folders and files are put below it, and some systems allow no more than 255."""

_PLAIN = re.compile(r"[A-Za-z0-9._=,+-]+")
_RESERVED = re.compile(r"base|(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def file_safe(words: str, digits: int = 6) -> str:
    """A name for a folder that depends on `words` alone.

    Blanks become hyphens, and what a file system may not take is left out; then, and where the name would be
    too long, some digits of a digest of the words keep it apart from others.

    >>> file_safe("without SelfModifying.key.adaptive")
    'without-SelfModifying.key.adaptive'
    >>> file_safe("SelfModifying.rule = momentum(0.9)")
    'SelfModifying.rule=momentum-0.9-186726'
    """
    name, whole = _kept(words)
    return name if whole else _with_digest(name, words, digits)


def names_of(variants: Sequence[str]) -> list[str]:
    """A name for a folder for each variant of a study, given in words: `file_safe` of each.

    Names differ where words do, in a file system that ignores case as well: those that would be one there
    get digits of a digest, more of them until they differ.  Equal words have one name.

    >>> names_of(["Nested", "NESTED", "steps = 2"])
    ['Nested-a5e474', 'NESTED-a5b612', 'steps=2']
    """
    names = {words: file_safe(words) for words in variants}
    digits = 6
    while clashing := _clashing(names):
        names |= {words: _with_digest(_kept(words)[0], words, digits) for words in clashing}
        digits += 2
    return [names[words] for words in variants]


def _clashing(names: dict[str, str]) -> list[str]:
    """The words whose names are one where case is ignored."""
    uses = Counter(name.casefold() for name in names.values())
    return [words for words, name in names.items() if uses[name.casefold()] > 1]


def _kept(words: str) -> tuple[str, bool]:
    """What can be kept of the words, and whether that is all of them and can stand alone."""
    spaced = re.sub(r"\s*=\s*", "=", words.strip())
    hyphened = re.sub(r"\s+", "-", re.sub(r",\s+", ",", spaced))
    name = re.sub(r"-{2,}", "-", "-".join(_PLAIN.findall(hyphened))).strip("-.") or "variant"
    if _RESERVED.fullmatch(name) is not None:
        return f"variant-{name}", False
    return name, name == hyphened and len(name) <= LONGEST


def _with_digest(name: str, words: str, digits: int) -> str:
    digest = hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    return f"{name[: LONGEST - digits - 1].rstrip('-.')}-{digest}"
