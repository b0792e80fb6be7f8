"""What can be told: closed forms, another implementation, simulated studies with known truth, and words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nldsl.ablate.statistics import (
    ENOUGH,
    Effect,
    Sample,
    Spread,
    effects,
    higher_is_better,
    holm,
    reach,
    seeds_needed,
    spread_of,
)

DOCUMENTS = tuple(f"d{i:02}" for i in range(23))
TOKENS = np.random.default_rng(5).integers(300, 5000, 23).astype(float)


def _runs(values: np.ndarray) -> Sample:
    """One number for each run."""
    column = np.asarray(values, dtype=float)[:, None]
    return Sample(column, np.ones_like(column), tuple(range(len(column))))


def _crossed(values: np.ndarray, weights: np.ndarray = TOKENS) -> Sample:
    """Values `[seeds, documents]`, with the tokens of the documents."""
    return Sample(values, np.tile(weights, (len(values), 1)), tuple(range(len(values))), DOCUMENTS)


def _study(chance: np.random.Generator, variants: int, seeds: int, shift: float = 0.0) -> dict[str, Sample]:
    """A baseline and variants; seeds, documents and runs differ by chance, and `shift` is the truth."""
    found: dict[str, Sample] = {}
    for name in ("base", *(f"v{i}" for i in range(variants))):
        by_seed = 0.01 * chance.standard_normal((seeds, 1))
        by_document = 0.02 * chance.standard_normal((1, 23))
        rest = 0.02 * chance.standard_normal((seeds, 23))
        found[name] = _crossed(2.0 + by_seed + by_document + rest + (0 if name == "base" else shift))
    return found


# --------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("seeds", [5, 20])
def test_with_one_number_for_a_run_it_is_the_paired_t_test(seeds: int) -> None:
    chance = np.random.default_rng(seeds)
    one, other = chance.standard_normal((2, seeds)) + np.array([[0.8], [0.0]])
    (effect,) = effects({"base": _runs(other), "v": _runs(one)}, "base", ["v"])
    expected = stats.ttest_rel(one, other)
    low, high = expected.confidence_interval()
    # The standard error is drawn: 10,000 draws know it within 0.7 %, one standard deviation.
    assert effect.mean == pytest.approx(expected.statistic * (one - other).std(ddof=1) / math.sqrt(seeds))
    assert effect.high - effect.low == pytest.approx(high - low, rel=0.025)
    assert effect.spread is not None
    statistic = abs(effect.mean) / math.sqrt(effect.spread.by_seeds)
    assert effect.p == pytest.approx(2 * stats.t.sf(statistic, seeds - 1), rel=1e-9)
    assert (effect.seeds, effect.documents) == (seeds, 0)


def test_one_document_is_one_number_for_a_run() -> None:
    chance = np.random.default_rng(2)
    one, other = chance.standard_normal((2, 6))
    single = {
        name: Sample(values[:, None], np.full((6, 1), 77.0), tuple(range(6)), ("speech",))
        for name, values in (("base", other), ("v", one))
    }
    (with_name,) = effects(single, "base", ["v"])
    (without,) = effects({"base": _runs(other), "v": _runs(one)}, "base", ["v"])
    assert with_name.documents == 1
    assert (with_name.mean, with_name.low, with_name.p) == (without.mean, without.low, without.p)


def test_the_drawn_variances_are_those_of_every_possible_draw() -> None:
    """Documents of one length: the variances of all draws are known in closed form."""
    chance = np.random.default_rng(3)
    x = chance.standard_normal((5, 1)) + chance.standard_normal((5, 23)) + chance.standard_normal((1, 23))
    spread = spread_of(_crossed(x, np.ones(23)), _crossed(np.zeros_like(x), np.ones(23)))
    rows, columns = x.mean(1), x.mean(0)
    rest = x - rows[:, None] - columns + x.mean()
    assert spread.by_seeds == pytest.approx(rows.var(ddof=1) / 5, rel=0.05)
    assert spread.by_documents == pytest.approx(columns.var(ddof=1) / 23, rel=0.05)
    assert spread.by_both == pytest.approx((rest**2).sum() / (5 * 4 * 23 * 22), rel=0.06)
    assert spread.documents == 23


def test_runs_whose_documents_differ_in_length_have_each_its_own_mean() -> None:
    chance = np.random.default_rng(18)
    one = _crossed(chance.standard_normal((5, 23)))
    other = _crossed(chance.standard_normal((5, 23)), TOKENS[::-1])
    means = [np.average(x.values, axis=1, weights=x.weights[0]) for x in (one, other)]
    spread = spread_of(one, other)
    assert spread.by_seeds == pytest.approx((means[0] - means[1]).var(ddof=1) / 5, rel=0.05)
    longer = Sample(one.values, one.weights * np.array([[1.0], [1], [1], [1], [9]]), one.seeds, DOCUMENTS)
    for name in (
        "by_seeds",
        "by_documents",
        "by_both",
    ):  # a seed whose documents are all longer counts as others
        assert getattr(spread_of(longer, other), name) == pytest.approx(getattr(spread, name), rel=1e-9)


def test_what_only_both_bring_is_no_more_than_what_one_brings() -> None:
    chance = np.random.default_rng(19)
    for _ in range(12):  # noise alone, in which the three are alike
        found = spread_of(_crossed(chance.standard_normal((5, 23))), _crossed(np.zeros((5, 23))))
        assert found.by_both <= min(found.by_seeds, found.by_documents)


def test_another_implementation_finds_the_same_standard_error() -> None:
    """`scipy.stats.bootstrap` draws as many as there are, so that its variance is (n - 1) / n of ours."""
    chance = np.random.default_rng(4)
    x = _study(chance, 1, 10, 0.01)
    difference = x["v0"].values - x["base"].values
    spread = spread_of(x["v0"], x["base"])
    by_seed = difference @ TOKENS / TOKENS.sum()
    found = stats.bootstrap((by_seed,), np.mean, n_resamples=9_999, rng=np.random.default_rng(0))
    assert math.sqrt(spread.by_seeds * 9 / 10) == pytest.approx(found.standard_error, rel=0.03)

    def mean(values: np.ndarray, tokens: np.ndarray, axis: int) -> np.ndarray:
        return (values * tokens).sum(axis) / tokens.sum(axis)

    by_document = difference.mean(0)
    found = stats.bootstrap(
        (by_document, TOKENS), mean, paired=True, n_resamples=9_999, rng=np.random.default_rng(0)
    )
    assert math.sqrt(spread.by_documents * 22 / 23) == pytest.approx(found.standard_error, rel=0.03)


def test_the_mean_is_the_difference_of_the_losses_of_the_runs() -> None:
    x = _study(np.random.default_rng(6), 1, 5)
    (effect,) = effects(x, "base", ["v0"])
    means = [np.average(x[name].values, axis=1, weights=TOKENS).mean() for name in ("v0", "base")]
    assert effect.mean == pytest.approx(means[0] - means[1], abs=1e-14)


def test_p_is_the_level_at_which_the_interval_ends_at_nothing() -> None:
    spread = Spread(1e-4, 2e-4, 0.5e-4, 5, 15.0)
    for mean in (0.001, 0.02, 0.08, 0.5):
        assert spread.reach(spread.p(mean)) == pytest.approx(mean, rel=1e-6)
    assert spread.p(0.0) == 1
    assert Spread(0.0, 0.0, 0.0, 5, 1.0).p(0.0) == 1
    assert Spread(0.0, 0.0, 0.0, 5, 1.0).p(0.1) == 0


def test_the_reach_of_an_interval_is_that_of_its_formula() -> None:
    a, b, c = 3e-4, 2e-4, 1e-4
    t = [stats.t.isf(0.005, free) for free in (4, 14, 4 * 14)]
    expected = math.sqrt(t[0] ** 2 * a + t[1] ** 2 * b - t[2] ** 2 * c)
    assert Spread(a, b, c, 5, 15.0).reach(0.01) == pytest.approx(expected, rel=1e-10)


def test_the_effective_number_of_documents() -> None:
    x = _study(np.random.default_rng(17), 1, 5)
    assert spread_of(x["v0"], x["base"]).documents == pytest.approx(TOKENS.sum() ** 2 / (TOKENS**2).sum())


def test_more_seeds_leave_the_documents_as_they_are() -> None:
    """Variances with more seeds, against those of the model from which they come."""
    seeds, documents, noise = 4e-4, 9e-4, 1e-3

    def truth(s: int) -> Spread:
        c = noise / (s * 20)
        return Spread(seeds / s + c, documents / 20 + c, c, s, 20.0)

    more = truth(5).with_seeds(40)
    for name in ("by_seeds", "by_documents", "by_both", "seeds", "documents"):
        assert getattr(more, name) == pytest.approx(getattr(truth(40), name))


# --------------------------------------------------------------------------- order changes nothing


def test_the_order_of_variants_seeds_and_documents_changes_nothing() -> None:
    chance = np.random.default_rng(7)
    x = _study(chance, 3, 5, 0.005)
    expected = {effect.variant: effect for effect in effects(x, "base", ["v0", "v1", "v2"])}
    rows, columns = chance.permutation(5), chance.permutation(23)
    mixed = {
        name: Sample(
            sample.values[rows][:, columns],
            sample.weights[rows][:, columns],
            tuple(sample.seeds[i] for i in rows),
            tuple(sample.documents[i] for i in columns),
        )
        for name, sample in reversed(x.items())
    }
    assert {e.variant: e for e in effects(mixed, "base", ["v2", "v0", "v1"])} == expected


# --------------------------------------------------------------------------- simulated studies


def test_studies_without_effects_seldom_say_that_there_is_one() -> None:
    """200 studies of six variants without any effect: at most 5 % + 2 standard errors may claim one."""
    chance = np.random.default_rng(8)
    names = [f"v{i}" for i in range(6)]
    studies = 200
    wrong = alone = 0
    for _ in range(studies):
        found = effects(_study(chance, 6, 5), "base", names)
        wrong += any(effect.verdict in ("worse", "better") for effect in found)
        alone += any(effect.p <= 0.05 for effect in found)
    assert wrong / studies <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)
    assert alone / studies > 0.08  # without the correction they do


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """300 studies; 95 % - 2 standard errors of them or more, and the paired t interval of runs far fewer."""
    chance = np.random.default_rng(9)
    hit = of_runs = 0
    for _ in range(300):
        x = _study(chance, 1, 5, 0.01)
        (effect,) = effects(x, "base", ["v0"])
        hit += effect.low <= 0.01 <= effect.high
        means = (x["v0"].values - x["base"].values) @ TOKENS / TOKENS.sum()
        low, high = stats.ttest_1samp(means, 0).confidence_interval()
        of_runs += low <= 0.01 <= high
    assert hit / 300 >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / 300)
    assert of_runs / 300 < 0.92


def test_with_the_seeds_that_it_asks_for_most_studies_find_the_effect() -> None:
    chance = np.random.default_rng(10)
    truth = Spread(0.02**2 * 2 / 5, 0.0, 0.0, 5, 1.0)
    seeds = seeds_needed(truth, 0.02)
    assert seeds is not None
    found = 0
    for _ in range(400):
        one, other = 0.02 * chance.standard_normal((2, seeds)) + np.array([[0.02], [0.0]])
        (effect,) = effects({"base": _runs(other), "v": _runs(one)}, "base", ["v"])
        found += effect.verdict == "worse"
    assert 0.74 <= found / 400 <= 0.88


# --------------------------------------------------------------------------- verdicts


def _told(size: float, *, seeds: int = 5, measure: str = "loss", noise: float = 0.01) -> Effect:
    chance = np.random.default_rng(11)
    base = chance.standard_normal((seeds, 23))
    x = {"base": _crossed(base), "v": _crossed(base + size + noise * chance.standard_normal((seeds, 23)))}
    return effects(x, "base", ["v"], measure)[0]


@pytest.mark.parametrize(
    ("size", "measure", "verdict"),
    [
        (0.1, "loss", "worse"),
        (-0.1, "loss", "better"),
        (0.1, "accuracy", "better"),
        (-0.1, "accuracy", "worse"),
        (0.1, "perplexity", "worse"),
        (-0.1, "bits_per_byte", "better"),
        (0.0001, "loss", "nothing can be told"),
    ],
)
def test_verdicts(size: float, measure: str, verdict: str) -> None:
    effect = _told(size, measure=measure)
    assert effect.verdict == verdict
    assert (effect.low > 0 or effect.high < 0) == (effect.verdict != "nothing can be told")


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_under_five_seeds_there_is_an_interval_and_no_word_of_significance(seeds: int) -> None:
    effect = _told(0.1, seeds=seeds)
    assert effect.verdict == "too few seeds"
    assert math.isnan(effect.p)
    assert math.isnan(effect.adjusted)
    assert effect.low < 0.1 < effect.high
    two = effects(_study(np.random.default_rng(21), 2, seeds), "base", ["v0", "v1", "gone"])
    assert [one.level for one in two[:2]] == [0.05 / 2] * 2
    assert _told(0.1, seeds=ENOUGH).verdict == "worse"


def test_one_seed_has_a_difference_and_no_interval() -> None:
    effect = _told(0.1, seeds=1)
    assert effect.mean == pytest.approx(0.1, abs=0.01)
    assert math.isnan(effect.low)
    assert math.isnan(effect.high)
    assert (effect.verdict, effect.seeds, effect.spread) == ("too few seeds", 1, None)


def test_only_seeds_and_documents_of_both_are_compared() -> None:
    x = _study(np.random.default_rng(12), 1, 7, 0.05)
    v = x["v0"]
    less = Sample(
        v.values[[0, 2, 3, 4, 6], :20], v.weights[[0, 2, 3, 4, 6], :20], (0, 2, 3, 4, 6), DOCUMENTS[:20]
    )
    (effect,) = effects({"base": x["base"], "v0": less}, "base", ["v0"])
    base = x["base"]
    same = Sample(base.values[[0, 2, 3, 4, 6], :20], less.weights, less.seeds, less.documents)
    assert effects({"base": same, "v0": less}, "base", ["v0"]) == (effect,)
    assert (effect.seeds, effect.documents) == (5, 20)
    other = Sample(v.values, v.weights, v.seeds, tuple(f"x{i}" for i in range(23)))
    (effect,) = effects({"base": base, "v0": other}, "base", ["v0"])
    assert (effect.seeds, effect.documents) == (7, 0)
    assert effect.mean == pytest.approx(effects(x, "base", ["v0"])[0].mean)


def test_what_has_no_trial_has_no_effect() -> None:
    x = _study(np.random.default_rng(13), 1, 5)
    none, some = effects(x, "base", ["gone", "v0"])
    assert math.isnan(none.mean)
    assert (none.verdict, none.seeds) == ("too few seeds", 0)
    assert not math.isnan(some.mean)
    assert math.isnan(effects(x, "gone", ["v0"])[0].mean)


def test_perplexity_is_the_loss_seen_otherwise() -> None:
    loss, perplexity = _told(0.1), _told(0.1, measure="perplexity")
    assert perplexity.scale == "relative"
    for name in ("mean", "low", "high"):
        assert getattr(perplexity, name) == pytest.approx(math.expm1(getattr(loss, name)))
    assert (perplexity.p, perplexity.adjusted) == (loss.p, loss.adjusted)


# --------------------------------------------------------------------------- many comparisons


def test_holm_against_its_definition() -> None:
    chance = np.random.default_rng(14)
    for _ in range(200):
        p = chance.random(int(chance.integers(1, 9))) ** 4
        order = np.argsort(p)
        rejected: set[int] = set()
        for rank, place in enumerate(order):
            if p[place] > 0.05 / (len(p) - rank):
                break
            rejected.add(int(place))
        found = holm(list(p))
        assert {i for i, (adjusted, _) in enumerate(found) if adjusted <= 0.05} == rejected
        assert {i for i, (_, level) in enumerate(found) if p[i] <= level} == rejected
        assert all(0 <= value <= adjusted <= 1 for value, (adjusted, _) in zip(p, found, strict=True))


def test_holm_stops_at_the_first_that_it_does_not_reject() -> None:
    for p in (
        [0.03, 0.04],
        [0.04, 0.03],
    ):  # 0.03 is above 0.05 / 2; that 0.04 is below 0.05 / 1 does not count
        assert holm(p) == [(0.06, 0.025)] * 2


def test_intervals_and_adjusted_p_say_the_same() -> None:
    chance = np.random.default_rng(15)
    seen: set[bool] = set()
    for _ in range(20):
        for effect in effects(_study(chance, 5, 6, 0.02), "base", [f"v{i}" for i in range(5)]):
            excludes = effect.low > 0 or effect.high < 0
            seen.add(excludes)
            assert excludes == (effect.adjusted <= 0.05) == (effect.verdict != "nothing can be told")
    assert seen == {True, False}


# --------------------------------------------------------------------------- what a study can see


def test_reach_of_a_study() -> None:
    chance = np.random.default_rng(16)
    base = chance.standard_normal((5, 23))
    x = {"base": _crossed(base)}
    for name, size, noise in (("large", 0.5, 0.01), ("small", 0.1, 0.01), ("unclear", 0.02, 0.3)):
        by_seed = noise * chance.standard_normal((5, 1))
        x[name] = _crossed(base + size + by_seed + 0.01 * chance.standard_normal((5, 23)))
    found = effects(x, "base", ["large", "small", "unclear"])
    assert [effect.verdict for effect in found] == ["worse", "worse", "nothing can be told"]
    seen = reach(found)
    assert seen is not None
    assert (seen.variant, seen.smallest) == ("small", abs(found[1].mean))
    assert seen.seeds is not None
    assert seen.seeds > 20
    spread = found[2].spread
    assert spread is not None
    fewer, enough = (
        spread.with_seeds(s).reach(found[2].level) + spread.with_seeds(s).reach(0.4)
        for s in (seen.seeds - 1, seen.seeds)
    )
    assert enough <= seen.smallest < fewer
    assert reach(effects({"base": x["base"]}, "base", ["gone"])) is None
    nothing = reach(effects({k: x[k] for k in ("base", "unclear")}, "base", ["unclear"]))
    assert nothing is not None
    assert math.isnan(nothing.smallest)
    assert nothing.seeds == 0
    four = {name: Sample(s.values[:4], s.weights[:4], s.seeds[:4], s.documents) for name, s in x.items()}
    assert reach(effects(four, "base", ["large", "small"])) is None  # it says nothing, and so finds nothing


def test_reach_is_that_of_all_effects() -> None:
    def effect(variant: str, mean: float, by_seeds: float, by_documents: float = 0.0) -> Effect:
        told = "worse" if mean else "nothing can be told"
        spread = Spread(by_seeds, by_documents, 0.0, 5, 23.0)
        return Effect(variant, "loss", mean, level=0.05, seeds=5, spread=spread, verdict=told)

    found = [effect("found", 0.1, 1e-6), effect("a", 0.0, 4e-3), effect("b", 0.0, 9e-3)]
    single = [reach([one]) for one in found]
    both, whole = reach(found[:2]), reach(found)
    assert all(single) and both is not None and whole is not None
    sizes = [one.visible for one in single if one is not None]
    assert sizes == sorted(sizes)
    assert both.visible == pytest.approx((sizes[0] + sizes[1]) / 2)
    assert whole.visible == sizes[1]
    needed = [seeds_needed(one.spread, 0.1) for one in found[1:] if one.spread is not None]
    assert whole.seeds == needed[1] and needed[0] is not None and needed[0] < (needed[1] or 0)
    hidden = reach([*found, effect("c", 0.0, 1e-6, 1.0)])  # by its documents
    assert hidden is not None
    assert hidden.seeds is None


def test_what_a_study_can_see_is_in_nats_for_perplexity_as_well() -> None:
    x = _study(np.random.default_rng(20), 2, 6, 0.3)
    loss, perplexity = (reach(effects(x, "base", ["v0", "v1"], m)) for m in ("loss", "perplexity"))
    assert loss is not None and perplexity is not None
    assert perplexity.smallest == pytest.approx(loss.smallest) and loss.smallest > 0.2


def test_documents_can_hide_an_effect_from_any_number_of_seeds() -> None:
    assert seeds_needed(Spread(1e-6, 1e-2, 0.0, 5, 23.0), 0.01) is None
    assert seeds_needed(Spread(1e-12, 0.0, 0.0, 5, 1.0), 1.0) == ENOUGH


def test_what_is_better() -> None:
    assert [higher_is_better(m) for m in ("accuracy", "needle", "loss", "perplexity", "bits_per_byte")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert [higher_is_better(m) for m in ("loss.forgetting", "accuracy.average", "loss.average")] == [
        False,
        True,
        False,
    ]
    assert [higher_is_better(m) for m in ("loss.learned", "accuracy.learned", "loss.backward")] == [
        False,
        True,
        True,
    ]
