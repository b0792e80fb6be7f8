"""The kinds of data that a spec can name: what they mean, what they become, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nldsl
from nldsl.diagnostics.model import Source
from nldsl.resolve.expanded import Data

SPEC = """edition 2026
model Small(dim = 8, vocab = 300) {{ tokens |> embed(vocab, dim) |> unembed(tied) }}
train Run {{
  model = Small
  data = {data}
  objective = {objective}
  steps = {steps}
  level all {{ learns = rest, rule = adamw(rate = 1e-3) }}
}}
"""


def _source(data: str, objective: str = "next_token", steps: int = 120) -> Source:
    return Source("run.nl", SPEC.format(data=data, objective=objective, steps=steps))


def _data(data: str, objective: str = "next_token", steps: int = 120) -> Data:
    training = nldsl.load(_source(data, objective, steps)).expanded.training
    assert training is not None
    return training.data


def _codes(data: str, objective: str = "next_token", steps: int = 120) -> list[str]:
    return [found.code for found in nldsl.check_source(_source(data, objective, steps))]


def test_eras_are_texts_of_some_years() -> None:
    data = _data('tasks([era("sotu", 1790, 1829), era(sotu, first = 1830, last = 1859)], length = 64)')
    assert [(task.name, task.kind, task.source, task.years) for task in data.tasks] == [
        ("1790-1829", "text", "sotu", (1790, 1829)),
        ("1830-1859", "text", "sotu", (1830, 1859)),
    ]
    assert (data.each, data.order, data.counts, data.length, data.batch) == (60, "sequence", "all", 64, 8)
    assert (data.source, data.sources, data.vocabulary, data.tokenizer) == ("sotu", ("sotu",), 256, "bytes")


def test_each_list_of_classes_is_a_task() -> None:
    data = _data('classes(digits, [[0, 1], [2, "3"]], each = 10 steps, order = joint)', "classify")
    assert [(task.kind, task.labels) for task in data.tasks] == [
        ("classes", ("0", "1")),
        ("classes", ("2", "3")),
    ]
    assert (data.each, data.order, data.counts, data.length) == (10, "joint", "answer", 64)
    assert (data.vocabulary, data.tokenizer) == (17 + 4, "items")


def test_tasks_of_several_kinds_stand_in_one_list() -> None:
    data = _data(
        'tasks([text("a.txt"), pairs("b.tsv"), classes(presidents, ["James Monroe"])], each = 7, seed = 3)'
    )
    assert [task.kind for task in data.tasks] == ["text", "pairs", "classes"]
    assert data.sources == ("a.txt", "b.tsv", "presidents")
    assert (data.source, data.seed, data.vocabulary) == ("a.txt, b.tsv, presidents", 3, 257)


def test_pairs_alone_are_one_task_of_the_whole_run() -> None:
    data = _data('pairs("p.tsv", length = 32)', "next_token(answer)")
    assert (len(data.tasks), data.each, data.counts) == (1, 120, "answer")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("tasks([])", "NL0707"),
        ("tasks(3)", "NL0707"),
        ("tasks()", "NL0201"),
        ('tasks(["a.txt"])', "NL0707"),
        ('tasks([test("a.txt")])', "NL0707"),
        ("tasks([text()])", "NL0201"),
        ("tasks([era(sotu, 1790)])", "NL0201"),
        ("tasks([era(sotu, 1829, 1790)])", "NL0709"),
        ("tasks([era(sotu, 17.5, 1790)])", "NL0205"),
        ('tasks([text("a.txt", length = 3)])', "NL0202"),
        ('tasks([text("a.txt")], each = 5 tokens)', "NL0303"),
        ('tasks([text("a.txt")], each = 0)', "NL0205"),
        ('tasks([text("a.txt")], order = random)', "NL0203"),
        ('tasks([text("a.txt")], length = 5 steps)', "NL0303"),
        ("classes(digits)", "NL0201"),
        ("classes(digits, [0, 1])", "NL0707"),
        ("classes(digits, [[0.5]])", "NL0707"),
        ("classes(digits, [[11]])", "NL0707"),
        ("classes(digits, [[1], [1]])", "NL0708"),
        ("classes(digits, [[1, 1]])", "NL0708"),
        ("classes(digits, [[1], [2], [3], [4], [5], [6], [7]])", "NL0705"),
        ("classes(digits, [[1]], tokenizer = bytes)", "NL0202"),
        ("images(cats)", "NL0702"),
        ("digits", "NL0702"),
    ],
)
def test_what_is_no_data_is_refused(data: str, code: str) -> None:
    assert code in _codes(data)


def test_answers_are_asked_only_where_there_are_some() -> None:
    assert _codes('text("sotu")', "classify") == ["NL0710"]
    mixed = 'tasks([text("a.txt"), classes(digits, [1, 2])])'
    assert _codes(mixed, "classify") == ["NL0710"]
    assert "NL0710" not in _codes(mixed)
    assert _codes('tasks([pairs("a.tsv"), classes(digits, [1])])', "classify") == ["NL0710"]


WORDS = st.sampled_from(
    (
        *("tasks", "text", "era", "classes", "pairs", "digits", "sotu", "presidents", '"a.txt"', "3", "-1"),
        *(
            "0.5",
            "5 steps",
            "2 tokens",
            "(",
            ")",
            "[",
            "]",
            ", ",
            "each = ",
            "order = ",
            "length = ",
            "joint",
        ),
        "[[1], [2]]",
    )
)


@settings(max_examples=120, deadline=None)
@given(st.lists(WORDS, max_size=12))
def test_no_data_whatever_ends_in_a_traceback(words: list[str]) -> None:
    for found in nldsl.check_source(_source("".join(words) or "tasks")):
        assert found.code != "NL0001"


def test_data_survive_both_surfaces_and_say_their_defaults() -> None:
    spec = nldsl.load(_source("classes(digits, [[0, 1], [2, 3]])", "classify"))
    text = spec.expand()
    assert "each" not in text.split("data", 1)[1].split(")", 1)[0]
    again = nldsl.load(Source("again.nl", text)).expanded.training
    assert again is not None
    assert spec.expanded.training is not None
    assert again.data == spec.expanded.training.data


def test_a_build_carries_what_its_tasks_read(tmp_path: Path) -> None:
    (tmp_path / "own.tsv").write_text("x\ty\n" * 5)
    spec = tmp_path / "run.nl"
    listed = (
        'tasks([pairs("own.tsv"), classes(digits, [1]), classes(presidents, ["James Monroe"])], length = 64)'
    )
    spec.write_text(_source(listed).text)
    nldsl.load(spec).compile(tmp_path / "build")
    assert {"own.tsv", "digits.csv.gz", "sotu.txt.xz", "sotu.json"} <= {
        p.name for p in (tmp_path / "build").iterdir()
    }
    written = (tmp_path / "build" / "settings.py").read_text()
    assert 'Task("own.tsv", "own.tsv", kind="pairs")' in written
    assert 'Task("James Monroe", "presidents", kind="classes", labels=("James Monroe",))' in written
    spec.write_text(_source('tasks([text("none.txt")], length = 64)').text)
    with pytest.raises(nldsl.SpecError) as caught:
        nldsl.load(spec).compile(tmp_path / "other")
    assert [found.code for found in caught.value.diagnostics] == ["NL0704"]
