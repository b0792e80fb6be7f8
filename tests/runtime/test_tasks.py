"""Tasks one after the other: what they are made of, who reads what when, and what a run keeps of them."""

from __future__ import annotations

import dataclasses
import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from nldsl.run.folder import Build

DIGITS = Path(__file__).parents[2] / "nldsl" / "data" / "digits" / "digits.csv.gz"
LINES = "".join(f"{'abc'[i % 3]}\t{'xyz'[i % 3] * 3}{i}\n" for i in range(45))


@pytest.fixture
def labelled(build: Build) -> Build:
    """A folder with items of three classes, pairs, and digits."""
    (build.folder / "labels.tsv").write_text(LINES)
    (build.folder / "pairs.tsv").write_text("".join(f"in{i}\tout{i}\n" for i in range(20)))
    shutil.copy(DIGITS, build.folder)
    return build


def _data(build: Build, *tasks: Any, **changes: Any) -> Any:
    return build.schedule.Data("", 16, 4, tasks=tasks, **({"each": 5, "counts": "answer"} | changes))


def _classes(build: Build, *labels: str, source: str = "labels.tsv") -> Any:
    return build.schedule.Task(", ".join(labels), source, kind="classes", labels=labels)


def _course(build: Build, data: Any, vocabulary: int = 300) -> Any:
    return build.tasks.Course(data, vocabulary, 8, build.folder)


# --------------------------------------------------------------------------- items


def test_an_item_ends_with_its_label_and_nothing_else_counts(labelled: Build) -> None:
    data = _data(labelled, _classes(labelled, "a"), _classes(labelled, "c", "b"))
    made = labelled.items.make(data.tasks[1], data, labelled.folder)
    assert made.tokens == 256 + 3
    assert (len(made.train.inputs), len(made.held_out.inputs)) == (24, 6)
    assert (made.train.targets[:, :-1] == labelled.items.IGNORED).all()
    assert sorted(set(made.train.targets[:, -1].tolist())) == [257, 258]
    first = made.train.inputs[0]
    text = b"zzz2"  # the first item of class c
    assert first.tolist() == [0] * (16 - len(text)) + list(text)
    assert made.train.targets[0, -1] == 257  # c is the second class of all tasks


def test_with_every_token_counted_the_targets_are_the_next_tokens(labelled: Build) -> None:
    data = _data(labelled, _classes(labelled, "a", "b"), counts="all")
    items = labelled.items.make(data.tasks[0], data, labelled.folder).train
    assert torch.equal(items.targets[:, :-1], items.inputs[:, 1:])


def test_every_fifth_item_of_a_class_is_held_out(labelled: Build) -> None:
    data = _data(labelled, _classes(labelled, "a"))
    held_out = labelled.items.make(data.tasks[0], data, labelled.folder).held_out
    numbers = [int(bytes(row.tolist()).lstrip(b"\0").lstrip(b"x")) for row in held_out.inputs]
    assert numbers == [12, 27, 42]


def test_digits_are_pixels_and_a_label(labelled: Build) -> None:
    data = _data(labelled, _classes(labelled, "3", "7", source="digits"))
    data = dataclasses.replace(data, length=64)
    made = labelled.items.make(data.tasks[0], data, labelled.folder)
    assert made.tokens == 19
    assert made.train.inputs.shape[1] == 64
    assert int(made.train.inputs.max()) == 16
    assert len(made.train.inputs) + len(made.held_out.inputs) == 183 + 179  # what the set says of 3 and 7


def test_paragraphs_belong_to_their_authors(labelled: Build) -> None:
    first, second = "A long paragraph of one.\n\nshort\n\nAnother long paragraph.", "The long words of two."
    text = f"{first}\f{second}".encode()
    (labelled.folder / "sotu.txt.xz").write_bytes(lzma.compress(text))
    documents = [
        {"offset": 0, "bytes": len(first), "date": "1800-01-01", "author": "One"},
        {"offset": len(first) + 1, "bytes": len(second), "date": "1900-01-01", "author": "Two"},
    ]
    manifest = {"split": {"every": 2, "remainder": 1}, "documents": documents}
    (labelled.folder / "sotu.json").write_text(json.dumps(manifest))
    found = labelled.items._presidents(labelled.folder, 16)
    assert [(name, bytes(tokens.tolist())) for name, tokens in found] == [
        ("One", b"A long paragraph"),
        ("One", b"Another long par"),
        ("Two", b"The long words o"),
    ]


@pytest.mark.parametrize(("counts", "first"), [("answer", 3), ("all", 0)])
def test_a_pair_counts_its_target_and_the_line_end(labelled: Build, counts: str, first: int) -> None:
    data = _data(labelled, labelled.schedule.Task("p", "pairs.tsv", kind="pairs"), counts=counts)
    items = labelled.items.make(data.tasks[0], data, labelled.folder).train
    row, target = bytes(items.inputs[0].tolist()), items.targets[0]
    assert row.rstrip(b"\0") == b"in0\x1fout0\n"
    asked = bytes(target[target != labelled.items.IGNORED].tolist())
    assert asked == b"in0\x1fout0\n"[first + 1 :]
    assert (target != labelled.items.IGNORED).nonzero().flatten().tolist() == list(range(first, 8))


def test_pairs_that_are_too_long_are_left_out_and_told_of(labelled: Build) -> None:
    with (labelled.folder / "pairs.tsv").open("a") as file:
        file.write("a long one\tand its answer\n")
    data = _data(labelled, labelled.schedule.Task("p", "pairs.tsv", kind="pairs"))
    course = _course(labelled, data)
    assert course.warnings == ("1 pairs of pairs.tsv are longer than 16 tokens and left out",)


def test_tasks_that_hold_out_fewer_than_are_measured_are_told_of(labelled: Build) -> None:
    tasks = _classes(labelled, "a"), _classes(labelled, "b", "c")
    course = _course(labelled, _data(labelled, *tasks, labelled.schedule.Task("text", "letters.txt")))
    assert course.fewer_than(3) == []
    assert course.fewer_than(25) == [
        "`evaluate_windows` is 25, and task `a` has 3 held-out items; no more are measured",
        "`evaluate_windows` is 25, and task `b, c` has 6 held-out items; no more are measured",
        "`evaluate_windows` is 25, and task `text` has 24 windows of 16 tokens; no more are measured",
    ]


def test_an_era_is_the_documents_of_its_years(build: Build) -> None:
    documents = [bytes([97 + i]) * 40 for i in range(20)]
    text = b"\f".join(documents)
    (build.folder / "tales.txt.xz").write_bytes(lzma.compress(text))
    entries = [
        {"offset": text.index(d), "bytes": 40, "date": f"{1900 + i}-05-01"} for i, d in enumerate(documents)
    ]
    manifest = {"split": {"every": 5, "remainder": 4}, "documents": entries}
    (build.folder / "tales.json").write_text(json.dumps(manifest))
    found = build.data.corpus("tales", build.settings.data, build.folder, (1903, 1909))
    assert bytes(found.train.tolist()) == b"\f".join(documents[i] for i in (3, 5, 6, 7, 8))
    assert bytes(found.held_out.tolist()) == b"\f".join(documents[i] for i in (4, 9))
    for years in ((1700, 1710), (1905, 1908)):  # nothing at all, nothing held out
        with pytest.raises(build.schedule.UserError, match=r"part of tales.* is empty"):
            build.data.corpus("tales", build.settings.data, build.folder, years)


# --------------------------------------------------------------------------- what goes wrong


def test_what_is_wrong_with_items_is_told(labelled: Build) -> None:
    error = labelled.schedule.UserError
    with pytest.raises(error, match="has no class `d`"):
        _course(labelled, _data(labelled, _classes(labelled, "d")))
    with pytest.raises(error, match=r"there is no text `none.tsv`"):
        _course(labelled, _data(labelled, _classes(labelled, "a", source="none.tsv")))
    with pytest.raises(error, match="an item of `digits` has 64 tokens, and a sequence 16"):
        _course(labelled, _data(labelled, _classes(labelled, "3", source="digits")))
    with pytest.raises(error, match=r"the model has 258 tokens, and task `a, b, c` has token 258"):
        _course(labelled, _data(labelled, _classes(labelled, "a", "b", "c")), vocabulary=258)
    with pytest.raises(error, match=r"`data.each` is 0"):
        _course(labelled, _data(labelled, _classes(labelled, "a"), each=0))
    (labelled.folder / "labels.tsv").write_text("a\tx\nno tab\n")
    with pytest.raises(error, match=r"line 2 of labels.tsv has no tab"):
        _course(labelled, _data(labelled, _classes(labelled, "a")))
    (labelled.folder / "pairs.tsv").write_text("no tab\n")
    with pytest.raises(error, match=r"line 1 of pairs.tsv has no tab"):
        _course(labelled, _data(labelled, labelled.schedule.Task("p", "pairs.tsv", kind="pairs")))
    (labelled.folder / "pairs.tsv").write_text("one\tpair\n")
    with pytest.raises(error, match="has 1 items to learn and 0 held out"):
        _course(labelled, _data(labelled, labelled.schedule.Task("p", "pairs.tsv", kind="pairs")))
    (labelled.folder / "digits.csv.gz").write_bytes(b"no archive")
    with pytest.raises(error, match=r"cannot read .*digits.csv.gz"):
        _course(labelled, _data(labelled, _classes(labelled, "3", source="digits")))
    with pytest.raises(error, match="has no manifest"):
        labelled.data.corpus("letters.txt", labelled.settings.data, labelled.folder, (1, 2))


# --------------------------------------------------------------------------- who reads what when


def test_each_task_is_read_for_its_steps(labelled: Build) -> None:
    data = _data(labelled, _classes(labelled, "a"), _classes(labelled, "b"), _classes(labelled, "c"), each=2)
    sampler = _course(labelled, data).sampler
    seen = [set(sampler.draw()[1][:, -1].tolist()) for _ in range(8)]
    assert seen == [{256}, {256}, {257}, {257}, {258}, {258}, {258}, {258}]


def test_joint_batches_take_turns(labelled: Build) -> None:
    tasks = [_classes(labelled, label) for label in "abc"]
    sampler = _course(labelled, _data(labelled, *tasks, order="joint")).sampler
    seen = torch.cat([sampler.draw()[1][:, -1] for _ in range(9)])
    assert seen.tolist() == [256, 257, 258] * 12


def test_an_epoch_of_items_has_each_once(labelled: Build) -> None:
    data = _data(labelled, _classes(labelled, "a"))
    items = labelled.items.make(data.tasks[0], data, labelled.folder).train
    sampler = labelled.tasks.ItemSampler(items, 4, seed=1)
    first = torch.cat([sampler.draw()[0] for _ in range(3)])
    assert sorted(map(tuple, first.tolist())) == sorted(map(tuple, items.inputs.tolist()))


@pytest.mark.parametrize("order", ["sequence", "joint"])
def test_a_sampler_goes_on_where_another_stood(labelled: Build, order: str) -> None:
    text = labelled.schedule.Task("letters", "letters.txt")
    tasks = (text, _classes(labelled, "a"), _classes(labelled, "b", "c"))
    data = _data(labelled, *tasks, order=order)
    whole, first, second = (_course(labelled, data).sampler for _ in range(3))
    batches = [whole.draw() for _ in range(14)]
    for _ in range(7):
        first.draw()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for inputs, targets in batches[7:]:
        again = second.draw()
        assert torch.equal(again[0], inputs)
        assert torch.equal(again[1], targets)


def test_a_sampler_refuses_other_tasks(labelled: Build) -> None:
    one = _data(labelled, _classes(labelled, "a"), _classes(labelled, "b"))
    state = _course(labelled, one).sampler.state_dict()
    for other, said in (
        (_data(labelled, _classes(labelled, "a")), "other tasks"),
        (dataclasses.replace(one, each=9), "each 5, and this run has 9"),
        (dataclasses.replace(one, order="joint"), "order sequence, and this run has joint"),
        (dataclasses.replace(one, seed=3), "seed 0, and this run has 3"),
    ):
        with pytest.raises(labelled.schedule.UserError, match=said):
            _course(labelled, other).sampler.load_state_dict(state)
    text = labelled.data.Sampler(torch.zeros(99, dtype=torch.uint8), 16, 4, 0).state_dict()
    with pytest.raises(labelled.schedule.UserError, match="other tasks"):
        _course(labelled, one).sampler.load_state_dict(text)


# --------------------------------------------------------------------------- a run


def _settings(build: Build, data: Any, **changes: Any) -> Any:
    changes = {"model": {"vocab": 300, "dim": 8}, "data": data, "steps": 15} | changes
    return dataclasses.replace(build.settings, **changes)


@pytest.mark.parametrize("segment", [16, 4])
def test_a_step_counts_what_is_asked_whatever_the_segments(labelled: Build, segment: int) -> None:
    """One step of gradient descent on the mean loss of the answers, by hand; a segment may ask nothing."""
    data = _data(labelled, labelled.schedule.Task("p", "pairs.tsv", kind="pairs"))
    level = labelled.schedule.Level(
        "all", ("rest",), "gd", labelled.schedule.Clock(16, "token"), labelled.schedule.Rate(0.5)
    )
    other = dataclasses.replace(level, name="fast", learns=("fast",))
    ticks = dataclasses.replace(
        other, clock=labelled.schedule.Clock(segment, "token"), rate=labelled.schedule.Rate(0.0)
    )
    settings = _settings(labelled, data, levels=(level, ticks), clip=None)
    trainer = labelled.loop.Trainer(settings, torch.device("cpu"))
    trainer.model.double()
    with torch.no_grad():
        trainer.model.retain.fill_(
            -60.0
        )  # nothing is carried over, so that cutting sequences changes nothing
    before = trainer.model.slow.weight.detach().clone()
    inputs, targets = _course(labelled, data).sampler.draw()
    logits, _ = trainer.model(inputs, None)
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=labelled.items.IGNORED)
    gradient = torch.autograd.grad(loss, trainer.model.slow.weight)[0]
    facts = trainer.train_step()
    assert facts["loss"] == pytest.approx(float(loss.detach()), rel=1e-9)
    torch.testing.assert_close(
        trainer.model.slow.weight.detach(), before - 0.5 * gradient, rtol=1e-9, atol=1e-12
    )


def test_plain_text_asks_for_every_token(build: Build) -> None:
    course = build.tasks.Course(build.settings.data, 128, 8, build.folder)
    inputs, targets = course.sampler.draw()
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert course.targets is None
    assert build.tasks.share(targets, 0, 4) == 4 / 16


def test_results_say_what_each_task_gets_after_each(labelled: Build) -> None:
    data = _data(labelled, *(_classes(labelled, label) for label in "abc"))
    events: list[Any] = []
    result = labelled.train.train(_settings(labelled, data), device="cpu", listen=events.append)
    content = json.loads((result.folder / "results.json").read_text())
    assert content["tasks"] == ["a", "b", "c"]
    assert [row["tasks_done"] for row in content["rows"]] == [0, 1, 2, 3]
    assert [row["step"] for row in content["rows"]] == [0, 5, 10, 15]
    matrix = [row["accuracy"] for row in content["rows"]]
    assert content["summary"]["accuracy"] == labelled.tasks.summarise(matrix)
    assert [event["step"] for event in events if event["event"] == "tasks"] == [0, 5, 10, 15]
    assert result.sample == ""


def test_a_run_that_was_stopped_ends_as_one_that_was_not(labelled: Build, tmp_path: Path) -> None:
    data = _data(labelled, *(_classes(labelled, label) for label in "abc"))
    settings = _settings(labelled, data, checkpoint_every=1)
    whole = labelled.train.train(settings, device="cpu", out=tmp_path / "whole", listen=lambda _: None)
    for step in (4, 5, 7):
        out = tmp_path / f"cut{step}"
        short = dataclasses.replace(settings, steps=15)
        trainer = labelled.loop.Trainer(short, torch.device("cpu"))
        record = labelled.tasks.Record(out, data, 0)
        out.mkdir()
        while True:
            if record.wants(trainer.step):
                record.add(trainer.step, trainer.evaluate_tasks())
            if trainer.step == step:
                break
            trainer.train_step()
        labelled.checkpoint.save(out / labelled.checkpoint.NAME, trainer.state_dict())
        labelled.train.train(settings, device="cpu", out=out, resume=True, listen=lambda _: None)
        assert (out / "results.json").read_text() == (whole.folder / "results.json").read_text()
        one, other = (
            torch.load(folder / labelled.checkpoint.NAME, weights_only=True)["weights"]
            for folder in (out, whole.folder)
        )
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_damaged_record_is_told_of(labelled: Build, tmp_path: Path) -> None:
    data = _data(labelled, _classes(labelled, "a"))
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(labelled.schedule.UserError, match=r"results.json is damaged"):
        labelled.tasks.Record(tmp_path, data, 3)


# --------------------------------------------------------------------------- what the matrix says

MATRIX = [[0.1, 0.2, 0.3], [0.9, 0.3, 0.2], [0.95, 0.8, 0.4], [0.5, 0.6, 0.7]]


def test_the_summary_is_what_the_papers_define(build: Build) -> None:
    found = build.tasks.summarise(MATRIX)
    assert found["average"] == pytest.approx((0.5 + 0.6 + 0.7) / 3)
    assert found["learned"] == pytest.approx((0.9 + 0.8 + 0.7) / 3)
    assert found["forgetting"] == pytest.approx(((0.95 - 0.5) + (0.8 - 0.6)) / 2)
    assert found["backward"] == pytest.approx(((0.5 - 0.9) + (0.6 - 0.8)) / 2)
    assert found["forward"] == pytest.approx(((0.3 - 0.2) + (0.4 - 0.3)) / 2)


def test_losses_turn_every_sign_but_their_own(build: Build) -> None:
    higher = build.tasks.summarise(MATRIX)
    lower = build.tasks.summarise([[-value for value in row] for row in MATRIX], lower_is_better=True)
    for name in ("forgetting", "backward", "forward"):
        assert lower[name] == pytest.approx(higher[name])
    for name in ("average", "learned"):
        assert lower[name] == pytest.approx(-higher[name])


def test_counting_is_compared_where_the_model_is_asked(labelled: Build) -> None:
    course = _course(labelled, _data(labelled, _classes(labelled, "a", "b", "c")))
    found = course.baselines()
    counts = torch.full((259,), 1.0, dtype=torch.float64)
    counts[256:] += 12
    assert found["unigram"] == pytest.approx(float(-(counts[256:] / counts.sum()).log().mean()))
    assert course.questions_asked == 8
