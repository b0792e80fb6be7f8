"""Write the parse tables of the grammar, so that a start of nldsl does not compute them anew.

    python scripts/make_tables.py

Run it after a change of `grammar/nl.lark` or of lark; until then the grammar itself is read, which is slower.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lark.grammar import Rule
from lark.lexer import TerminalDef

from nldsl.syntax.parser_tables import computed, fingerprint

TARGET = Path(__file__).resolve().parents[1] / "grammar" / "tables.json"


def tables() -> str:
    """The text of `grammar/tables.json`."""
    data, memo = computed()[0].memo_serialize([TerminalDef, Rule])
    data["options"] = {**data["options"], "transformer": None, "postlex": None}
    parts = {"fingerprint": fingerprint(), "data": _pairs(data), "memo": _pairs(memo)}
    return json.dumps(parts, separators=(",", ":")).replace('},{"', '},\n{"') + "\n"


def _pairs(value: object) -> object:
    """Dicts with keys other than strings as lists of pairs, since JSON has no such keys."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _pairs(one) for key, one in value.items()}
        return {"pairs": [[key, _pairs(one)] for key, one in value.items()]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_pairs(one) for one in value]
    return value


def main() -> int:
    """Write the tables; lark numbers them in the order of sets, so the seed of hashes is fixed first."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        return subprocess.run(
            [sys.executable, __file__], env={**os.environ, "PYTHONHASHSEED": "0"}, check=False
        ).returncode
    TARGET.write_text(tables(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
