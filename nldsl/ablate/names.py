"""Names of variants that are folders as well."""

from __future__ import annotations

import hashlib
import re

LONGEST = 80
"""Characters of a name; folders and files are put below it, and some systems allow no more than 255."""

_PLAIN = re.compile(r"[A-Za-z0-9._=,+-]+")
_RESERVED = frozenset({"base", "con", "prn", "aux", "nul"})


def file_safe(words: str) -> str:
    """A name for a folder that depends on `words` alone, and differs where they differ.

    Blanks become hyphens, and what a file system may not take is left out; then, and where the name would be
    too long, some digits of a digest of the words keep it apart from others.

    >>> file_safe("without SelfModifying.key.adaptive")
    'without-SelfModifying.key.adaptive'
    >>> file_safe("SelfModifying.rule = momentum(0.9)")
    'SelfModifying.rule=momentum-0.9-186726'
    """
    spaced = re.sub(r"\s*=\s*", "=", words.strip())
    hyphened = re.sub(r"\s+", "-", re.sub(r",\s+", ",", spaced))
    name = "-".join(_PLAIN.findall(hyphened)).strip("-.") or "variant"
    kept = name == hyphened and len(name) <= LONGEST and name.lower() not in _RESERVED
    if kept:
        return name
    digest = hashlib.sha256(words.encode()).hexdigest()[:6]
    return f"{name[: LONGEST - 7].rstrip('-.')}-{digest}"
