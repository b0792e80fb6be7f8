"""A study folder as arrays: what its trials left, what is missing, and what is damaged."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import nldsl
from nldsl.ablate import trial
from nldsl.ablate.plan import plan
from nldsl.ablate.results import Results, Unit, read
from nldsl.ablate.statistics import compare
from nldsl.ablate.study import Study
from nldsl.run.folder import RunError

SPEC = """edition 2026
import [DeltaNet] from std

block Layer(dim) { mixer: x = x + (x |> DeltaNet(dim)) }

model Small(dim = 8, vocab = 256) { tokens |> embed(vocab, dim) |> Layer(dim) |> unembed(tied) }

train Run {
  model = Small
  data  = text("own.txt", length = 16, batch = 2)
  steps = 4
  level all { learns = rest, rule = adamw(rate = 1e-2) }
  eval every 2 steps { perplexity, bits_per_byte }
}

ablate Parts of Run {
  vary DeltaNet.rate = [0.5]
  vary data.length = [32]
  seeds = 2
  measure = [loss, accuracy, bits_per_byte, perplexity, needle]
}
"""
RATE = "DeltaNet.rate=0.5"
LENGTH = "data.length=32"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of which all trials are done."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("study")
    # The last tenth, which is held out, has several documents.
    texts = [
        f"Text {i} has its words, and there are many of them. " * n for i, n in enumerate([31] * 6 + [2] * 6)
    ]
    (place / "own.txt").write_text("\f".join(texts))
    (place / "tiny.nl").write_text(SPEC)
    study = Study.make(place / "study", plan(nldsl.load(place / "tiny.nl")))
    for one in study.trials():
        trial.work(study.folder, one.variant, one.seed)
    return study.folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged; builds are linked."""
    return shutil.copytree(finished, tmp_path / "study", ignore=shutil.ignore_patterns("*.txt"))


def _codes(results: Results) -> list[str]:
    return [warning.code for warning in results.warnings]


def _mean_of(units: tuple[Unit, ...], names: set[str]) -> float:
    some = [unit for unit in units if unit.name in names]
    return sum(u.tokens * u.loss for u in some) / sum(u.tokens for u in some)


def test_every_trial_in_order_with_what_it_measured(finished: Path) -> None:
    results = read(finished)
    assert [one.trial.name for one in results.found] == [
        f"{variant}/seed-{seed}" for variant in ("base", RATE, LENGTH) for seed in (0, 1)
    ]
    for one in results.found:
        assert one.done
        written = json.loads((finished / one.place / "result.json").read_text())
        assert one.measures == written["measures"]
        assert [u.name for u in one.units] == [u["name"] for u in written["documents"]]
        assert one.parameters == written["parameters"] > 0
        assert [step for step, _ in one.curve] == [0, 2, 4]
        assert one.curve[-1][1] == one.measures["loss"]


def test_losses_are_arrays_whose_mean_by_tokens_is_the_loss_of_the_run(finished: Path) -> None:
    results = read(finished)
    losses, weights = results.losses("base"), results.weights("base")
    assert losses.shape == weights.shape == (2, len(results.documents("base")))
    assert len(results.documents("base")) > 1
    means = (losses * weights).sum(1) / weights.sum(1)
    expected = [one.measures["loss"] for one in results.done("base")]
    assert means.tolist() == pytest.approx(expected, rel=0, abs=1e-12)


def test_samples_of_every_kind_of_measure(finished: Path) -> None:
    results = read(finished)
    done = results.done("base")
    for measure in ("loss", "accuracy", "bits_per_byte"):
        sample = results.sample("base", measure)
        assert sample is not None
        assert sample.documents == results.documents("base")
        means = np.average(sample.values, axis=1, weights=sample.weights[0])
        assert means.tolist() == pytest.approx([one.measure(measure) for one in done], rel=1e-12)
    perplexity = results.sample("base", "perplexity")
    assert perplexity is not None
    assert perplexity.documents == ()
    assert perplexity.values[:, 0].tolist() == [one.measures["perplexity"] for one in done]
    assert results.sample("base", "needle") is None


def test_effects_of_a_study(finished: Path) -> None:
    results = read(finished)
    loss, length = compare(results, "loss")
    assert (loss.variant, length.variant) == (RATE, LENGTH)
    means = {v: np.mean([one.measures["loss"] for one in results.done(v)]) for v in ("base", RATE, LENGTH)}
    assert loss.mean == pytest.approx(means[RATE] - means["base"], abs=1e-12)
    # Longer sequences end elsewhere: each has the mean by its own tokens, of the documents that both have.
    shared = set(results.documents("base")) & set(results.documents(LENGTH))
    assert length.documents == len(shared) > 1
    assert results.weights(LENGTH)[0].tolist() != results.weights("base")[0].tolist()
    own = {v: np.mean([_mean_of(one.units, shared) for one in results.done(v)]) for v in ("base", LENGTH)}
    assert length.mean == pytest.approx(own[LENGTH] - own["base"], abs=1e-12)
    assert (loss.seeds, loss.verdict) == (2, "too few seeds")
    assert loss.documents == len(results.documents("base"))
    (back, _) = compare(results, "loss", baseline=RATE)
    assert (back.variant, back.mean) == ("base", -loss.mean)
    perplexity = compare(results, "perplexity")[0]
    assert perplexity.mean == pytest.approx(math.expm1(loss.mean))
    assert all(math.isnan(effect.mean) for effect in compare(results, "needle"))


def test_a_measure_that_nobody_took_is_told(finished: Path) -> None:
    (warning,) = [w for w in read(finished).warnings if w.code == "NL0943"]
    assert warning.message == "no trial has measured `needle`"


def test_an_unfinished_study_is_read_as_it_is(folder: Path) -> None:
    shutil.rmtree(folder / "runs" / RATE)
    (folder / "study.db").unlink()
    results = read(folder)
    assert [t.name for t in results.in_state("waiting")] == [f"{RATE}/seed-0", f"{RATE}/seed-1"]
    assert results.sample(RATE, "loss") is None
    assert math.isnan(compare(results, "loss")[0].mean)
    assert "NL0940" not in _codes(results)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: "", "holds no result"),
        (lambda text: text[: len(text) // 2], "holds no result"),
        (lambda text: "[]", "holds no result"),
        (lambda text: text.replace('"seed": 1', '"seed": 3'), "of another spec or seed"),
        (lambda text: text.replace('"state": "done"', '"state": "waiting"'), "its state is 'waiting'"),
        (lambda text: text.replace('"loss": ', '"loss": NaN, "lost": '), "numbers that are none"),
        (lambda text: text.replace('"tokens": ', '"tokens": -'), "numbers that are none"),
        (lambda text: text.replace('"tokens": ', '"tokens": 0, "old": '), "numbers that are none"),
        (lambda text: re.sub(r'"name": "[^"]*"', '"name": "one"', text), "it has a document twice"),
        (lambda text: text.replace('"measures": {', '"measures": {}, "old": {'), "it has no loss"),
        (lambda text: text.replace('"documents": [', '"documents": 5, "old": ['), "holds no result"),
        (None, "it is missing"),
    ],
)
def test_a_result_that_cannot_be_read_is_a_finding(folder: Path, change, why: str) -> None:
    path = folder / "runs" / "base" / "seed-1" / "result.json"
    if change is None:
        path.unlink()
    else:
        changed = change(path.read_text())
        assert changed != path.read_text()
        path.write_text(changed)
    results = read(folder)
    (warning,) = [w for w in results.warnings if w.code == "NL0940"]
    assert why in warning.message
    assert [t.name for t in results.in_state("waiting")] == ["base/seed-1"]
    assert [one.trial.seed for one in results.done("base")] == [0]
    effect = compare(results, "loss")[0]
    assert (effect.seeds, effect.left_out) == (1, (1,))


def test_a_result_that_is_a_folder_is_a_finding(folder: Path) -> None:
    path = folder / "runs" / "base" / "seed-1" / "result.json"
    path.unlink()
    path.mkdir()
    assert "NL0940" in _codes(read(folder))


def test_a_result_that_the_database_does_not_know_of_counts(folder: Path) -> None:
    read(folder)
    study = Study.open(folder)
    study.ledger.again("base", 1, "as if the process had been killed before it said so")
    results = read(folder)
    assert len(results.done("base")) == 2


def test_diverged_trials_are_left_out_and_said(folder: Path) -> None:
    path = folder / "runs" / RATE / "seed-0" / "result.json"
    content = json.loads(path.read_text()) | {"state": "diverged", "problem": "the loss is nan at step 3"}
    path.write_text(json.dumps(content | {"measures": {}, "documents": []}))
    results = read(folder)
    (lost,) = results.in_state("diverged")
    assert (lost.name, lost.problem) == (f"{RATE}/seed-0", "the loss is nan at step 3")
    effect = compare(results, "loss")[0]
    assert (effect.seeds, effect.left_out, effect.verdict) == (1, (0,), "too few seeds")


def test_curves_end_where_their_log_is_damaged(folder: Path) -> None:
    path = folder / "runs" / "base" / "seed-0" / "log.jsonl"
    lines = path.read_text().splitlines()
    places = [i for i, line in enumerate(lines) if '"evaluate"' in line]
    half = lines[places[1]][:-20]
    path.write_text("\n".join([*lines[: places[1]], half, *lines[places[1] + 1 :]]) + "\n")
    results = read(folder)
    assert [step for step, _ in results.of("base")[0].curve] == [0]
    (warning,) = [w for w in results.warnings if w.code == "NL0941"]
    assert warning.message.endswith(f"line {places[1] + 1} is damaged")
    path.write_text("\n".join([*lines[: places[1]], half]))  # the line that is being written
    results = read(folder)
    assert [step for step, _ in results.of("base")[0].curve] == [0]
    assert "NL0941" not in _codes(results)


def test_other_documents_are_told_of_and_what_both_have_is_compared(folder: Path) -> None:
    for seed in (0, 1):
        path = folder / "runs" / RATE / f"seed-{seed}" / "result.json"
        content = json.loads(path.read_text())
        content["documents"][0]["name"] = "another"
        path.write_text(json.dumps(content))
    results = read(folder)
    count = len(results.documents("base")) - 1
    (warning,) = [w for w in results.warnings if w.code == "NL0942" and RATE in w.message]
    assert warning.notes == (f"the {count} that both have are compared",)
    assert compare(results, "loss")[0].documents == count


def test_documents_of_seeds_are_brought_together_by_their_names(folder: Path) -> None:
    whole = read(folder)
    path = folder / "runs" / "base" / "seed-1" / "result.json"
    content = json.loads(path.read_text())
    gone = content["documents"].pop(0)["name"]
    content["documents"].reverse()
    path.write_text(json.dumps(content))
    results = read(folder)
    assert results.documents("base") == tuple(n for n in whole.documents("base") if n != gone)
    assert results.losses("base").tolist() == whole.losses("base")[:, 1:].tolist()
    assert results.weights("base").tolist() == whole.weights("base")[:, 1:].tolist()


def test_of_a_step_that_was_done_twice_a_curve_has_the_last(folder: Path) -> None:
    path = folder / "runs" / "base" / "seed-0" / "log.jsonl"
    with path.open("a") as log:
        log.write('{"event": "evaluate", "step": 2, "loss": 7.5}\n')
    curve = read(folder).of("base")[0].curve
    assert [step for step, _ in curve] == [0, 2, 4]
    assert curve[1] == (2, 7.5)


def test_no_study_is_a_finding(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        read(tmp_path / "nothing")
    assert caught.value.diagnostic.code == "NL0902"
