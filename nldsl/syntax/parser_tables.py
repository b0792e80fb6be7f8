"""The parser of the grammar, read from its tables, which `scripts/make_tables.py` makes."""

from __future__ import annotations

import json
import zlib
from functools import cache
from importlib import resources
from typing import Any

import lark
from lark import Lark

from nldsl.syntax.build import Builder


class _Newlines:
    """Makes the contextual lexer read line ends everywhere; which of them count is decided in `_Reader`."""

    always_accept = ("_NL",)

    def process(self, stream: Any) -> Any:
        return stream


def grammar_text() -> str:
    """The grammar, as written in `nl.lark`."""
    return _grammar_file("nl.lark")


def _grammar_file(name: str) -> str:
    return resources.files("nldsl.grammar").joinpath(name).read_text(encoding="utf-8")


def fingerprint() -> str:
    """What the parse tables depend on: the grammar and the version of lark."""
    return f"lark {lark.__version__}, grammar {zlib.crc32(grammar_text().encode()):08x}"


@cache
def parser() -> tuple[Lark, Builder]:
    """The parser from its tables, or from the grammar where that or lark has changed since they were made."""
    made = json.loads(_grammar_file("tables.json"), object_hook=_unpaired)
    if made["fingerprint"] != fingerprint():
        return computed()
    builder = Builder()
    load: Any = Lark._load_from_dict  # pyright: ignore[reportPrivateUsage] -- as lark's own standalone parsers do
    loaded = load(made["data"], made["memo"], transformer=builder, postlex=_Newlines())
    return loaded, builder


def _unpaired(value: dict[str, Any]) -> dict[Any, Any]:
    """A dict whose keys are numbers stands in JSON as `{"pairs": [[key, value], ...]}`."""
    return dict(value["pairs"]) if value.keys() == {"pairs"} else value


def computed() -> tuple[Lark, Builder]:
    """The parser from the grammar, which takes much longer than from its tables."""
    builder = Builder()
    made = Lark(
        grammar_text(),
        parser="lalr",
        lexer="contextual",
        start="document",
        transformer=builder,
        postlex=_Newlines(),  # type: ignore[arg-type]
        maybe_placeholders=False,
    )
    return made, builder
