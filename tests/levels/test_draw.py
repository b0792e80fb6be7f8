"""The text, Mermaid, DOT and JSON drawings, against goldens and their own rules."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from nldsl.levels.draw import FORMATS, render
from nldsl.levels.draw.data import VERSION
from nldsl.levels.draw.words import columns, count, short_names, short_path, shorten, size
from nldsl.levels.graph import Clock, Component, Edge, LevelGraph
from tests.levels.draw_graphs import GRAPHS, hope, nasty, transformer

GOLDEN = Path(__file__).parent / "golden" / "draw"
ENDINGS = {"text": "txt", "mermaid": "mmd", "dot": "dot", "json": "json"}
EMPTY = LevelGraph("Empty", (), (), {"token": 1})


def compare(name: str, text: str) -> None:
    """`text` must be the golden file's; `NLDSL_UPDATE_GOLDEN=1` writes it anew."""
    path = GOLDEN / name
    if os.environ.get("NLDSL_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize("name", GRAPHS)
def test_golden(name: str, format: str) -> None:
    compare(f"{name}.{ENDINGS[format]}", render(GRAPHS[name](), format))


@pytest.mark.parametrize("name", GRAPHS)
def test_golden_at_80_columns(name: str) -> None:
    compare(f"{name}.80.txt", render(GRAPHS[name](), "text", width=80))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
@pytest.mark.parametrize("name", GRAPHS)
def test_text_keeps_to_its_width(name: str, width: int) -> None:
    assert max(columns(line) for line in render(GRAPHS[name](), "text", width=width).splitlines()) <= width


def test_text_shows_everything_when_it_may() -> None:
    text = render(hope(), "text", width=240)
    assert "not shown" not in text
    for part in hope().components:
        assert part.path in text


def test_text_never_cuts_a_number() -> None:
    for width in range(40, 130, 3):
        table = render(nasty(), "text", width=width).split("no edges")[0]
        if "state" in table.splitlines()[2]:
            assert all(size(part.state_bytes) in table for part in nasty().components)


def test_color_adds_escapes_and_nothing_else() -> None:
    plain, colored = render(hope(), "text"), render(hope(), "text", color=True)
    assert "\x1b[" not in plain
    assert re.sub(r"\x1b\[\d+m", "", colored) == plain


def test_a_clock_column_appears_only_where_a_level_mixes_clocks() -> None:
    one = Component("a", "weights", Clock(512, "token"), 512, 1, "task", "gd")
    other = Component("b", "weights", Clock(1, "step"), 512, 1, "task", "gd")
    mixed = render(LevelGraph("Mixed", (one, other), (), {"token": 1, "step": 512}), "text")
    assert "clock" in mixed.splitlines()[2]
    assert "clock" not in render(hope(), "text").splitlines()[2]


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_graph_can_be_drawn(format: str) -> None:
    assert render(EMPTY, format).endswith("\n")


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_graph_gives_the_same_text(format: str) -> None:
    assert render(hope(), format) == render(hope(), format)


def test_an_unknown_format_names_the_known() -> None:
    with pytest.raises(
        ValueError, match="unknown format 'pdf'; known are text, mermaid, dot, svg, html, json"
    ):
        render(EMPTY, "pdf")


def test_json_is_strict_and_whole() -> None:
    data = json.loads(render(nasty(), "json"), parse_constant=pytest.fail)
    assert data["version"] == VERSION
    assert [c["path"] for c in data["components"]] == [c.path for c in nasty().components]
    always, never = data["components"][0], data["components"][-1]
    assert (always["tokens_per_update"], always["updates_per_token"]) == (0, None)
    assert (never["tokens_per_update"], never["updates_per_token"]) == (None, 0)
    assert sum(len(level["components"]) for level in data["levels"]) == 30


def test_json_says_where_a_component_stands_in_the_spec() -> None:
    data = json.loads(render(hope(), "json"))
    assert data["components"][0]["span"] == "specs/hope.nl:4"
    assert data["components"][-1]["span"] is None
    assert data["components"][-1]["clock"] == {
        "words": "every 16 steps",
        "period": 16,
        "unit": "step",
        "offset": 0,
        "partial": "carry",
    }


@pytest.mark.parametrize("name", GRAPHS)
def test_dot_has_balanced_quotes_and_braces(name: str) -> None:
    text = render(GRAPHS[name](), "dot")
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    assert '"' not in bare
    assert bare.count("{") == bare.count("}")


@pytest.mark.parametrize("name", GRAPHS)
def test_mermaid_labels_hold_no_markup(name: str) -> None:
    for line in render(GRAPHS[name](), "mermaid").splitlines():
        for label in re.findall(r'\["(.*)"\]', line):
            assert not re.search(r'["<>`*_\\{}|]', label.replace("<br>", ""))


@pytest.mark.parametrize("format", ["dot", "mermaid"])
def test_edges_upwards_do_not_turn_the_levels_over(format: str) -> None:
    text = render(hope(), format)
    ranks = {f"c{i}": c.rank for i, c in enumerate(hope().components)}
    links = re.findall(r"^  (c\d+) (?:->|-->|---|~~~)(?:\|[^|]*\|)? (c\d+)", text, re.MULTILINE)
    assert len(links) > len(hope().edges)
    assert all(ranks[upper] <= ranks[lower] for upper, lower in links)
    assert ("dir=back" if format == "dot" else "↑ starts from") in text


def test_edges_to_what_is_not_there_are_left_out_of_pictures() -> None:
    graph = LevelGraph("Loose", transformer().components, (Edge("gone", "embed", "reads"),), {"token": 1})
    for format in ("mermaid", "dot", "svg", "html"):
        assert render(graph, format)


def test_numbers_follow_one_rule() -> None:
    assert [count(n) for n in (0, 9, 1000, 1_234, 99_949, 99_951, 999_499, 999_500, 1e18)] == [
        "0", "9", "1k", "1.2k", "99.9k", "100k", "999k", "1M", "1000P",
    ]  # fmt: skip
    assert [size(n) for n in (0, 1023, 1024, 16_384, 1_048_575, 2**50)] == [
        "0 B", "1023 B", "1 KiB", "16 KiB", "1 MiB", "1 PiB",
    ]  # fmt: skip


def test_names_are_cut_at_their_dots_first() -> None:
    assert short_path("Block.mixer.SelfModifying.key", 20) == "…SelfModifying.key"
    assert short_path("Block.mixer.SelfModifying", 8) == shorten("SelfModifying", 8)
    assert shorten("abc", 3) == "abc"
    assert columns(shorten("記憶" * 20, 9)) <= 9


def test_short_names_are_ends_that_one_path_has() -> None:
    names = short_names(hope())
    assert names["HopeBlock.mixer.SelfModifying.key.adaptive"] == "key.adaptive"
    assert names["pretrain"] == "pretrain"
    assert len(set(names.values())) == len(names)
