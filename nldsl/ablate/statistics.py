"""What can be told from the trials of a study: effects against a baseline, with intervals and verdicts.

A variant and the baseline are trained with the same seeds and asked the same held-out documents, so they are
compared seed by seed and document by document.  Seeds and documents are crossed: every seed sees every
document.  Both are samples: the study is to say something about other seeds and other texts.

The spread of an effect comes from a bootstrap that draws seeds and documents independently of each other
(Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007), one fewer of each than there are, which
makes the variance of a mean right for small samples (Hesterberg, What teachers should know about the
bootstrap, The American Statistician 2015).  Three variances are read off it: that of drawing seeds (a), of
drawing documents (b), and of what only drawing both brings (c).  Noise of single runs on single documents is
in each of the three, so the variance of the effect is a + b - c.  An interval reaches

    sqrt(t(S - 1)^2 a + t(D - 1)^2 b - t((S - 1)(D - 1))^2 c)

to each side, with Student's quantiles for S seeds and D documents (Howe, Journal of the American Statistical
Association 1974), D being the effective number where documents differ in length (Kish, Survey Sampling 1965).
With one document this is the paired t interval.  `docs/studies.md` has its measured coverage.

Many comparisons are corrected by Holm's procedure (Scandinavian Journal of Statistics 1979), and each
interval has the level at which that procedure decided: it excludes 0 where the adjusted p is 0.05 or less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    from nldsl.ablate.results import Results

    Array = NDArray[float64]

ALPHA = 0.05
"""How often a study in which nothing has an effect may say of any variant that it has one."""
ENOUGH = 5
"""Seeds below which no verdict is given."""
DRAWS = 10_000
POWER = 0.8
MOST_SEEDS = 1_000

Verdict = Literal["worse", "better", "nothing can be told", "too few seeds"]
Scale = Literal["difference", "relative"]

_SEED = 20_070  # of the draws: the same study gives the same report
_HIGHER = frozenset({"accuracy", "needle"})
_LOWER_OF_TASKS = frozenset({"forgetting", "loss.average", "loss.learned"})


@dataclass(frozen=True, eq=False)
class Sample:
    """What the trials of one variant measured.

    Attributes:
        values: `[seeds, documents]`.
        weights: the same shape: the tokens of each document; a run's value is the mean by them.
        seeds: of the rows.
        documents: of the columns; empty where a run has only one number, and there is one column.
    """

    values: Array
    weights: Array
    seeds: tuple[int, ...]
    documents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances of an effect: of drawing seeds, of drawing documents, and of what only both bring.

    `seeds` is how many were drawn from, `documents` the effective number of documents (1 for none).
    """

    by_seeds: float
    by_documents: float
    by_both: float
    seeds: int
    documents: float

    def reach(self, level: float) -> float:
        """How far an interval reaches to each side that misses the truth with probability `level`.

        >>> round(Spread(1.0, 0.0, 0.0, 5, 1.0).reach(0.05), 3)  # Student's t for 4 degrees of freedom
        2.776
        """
        from scipy.special import stdtrit

        free = self.seeds - 1, max(1.0, self.documents - 1)
        found = self.by_seeds * float(stdtrit(free[0], level / 2)) ** 2
        if self.by_documents:
            found += self.by_documents * float(stdtrit(free[1], level / 2)) ** 2
            found -= self.by_both * float(stdtrit(free[0] * free[1], level / 2)) ** 2
        return math.sqrt(max(0.0, found))

    def p(self, mean: float) -> float:
        """The least level at which an interval around `mean` excludes 0; in [0, 1], to 12 figures."""
        low, high = -690.0, 0.0  # of its logarithm; what is smaller is no number
        if self.reach(math.exp(low)) < abs(mean):
            return 0.0
        if mean == 0:
            return 1.0
        while high - low > 1e-12 * max(1.0, -low):
            middle = (low + high) / 2
            low, high = (low, middle) if self.reach(math.exp(middle)) < abs(mean) else (middle, high)
        return math.exp(high)

    def with_seeds(self, seeds: int) -> Spread:
        """What it would be with another number of seeds, and the same documents."""
        share = self.seeds / seeds
        lasting = self.by_documents - self.by_both
        return Spread(
            self.by_seeds * share, lasting + self.by_both * share, self.by_both * share, seeds, self.documents
        )


@dataclass(frozen=True, slots=True)
class Effect:
    """How a variant differs from the baseline in one measure; what is not known is NaN.

    Attributes:
        variant, measure: their names.
        mean: the variant less the baseline: of a loss in nats, of a share in itself.  `scale` is `relative`
            for perplexity: 0.02 is 2 % more, which comes from a loss that differs by log(1.02).
        low, high: the interval, at the level that belongs to many comparisons; it takes two seeds.
        p, adjusted: two-sided, before and after the correction; only with `ENOUGH` seeds.
        seeds: how many both have trained to the end; `documents`: on how many both were measured, 0 for a
            measure that has one number for a run.
        verdict: `worse` or `better` only with `ENOUGH` seeds and an interval that excludes 0.
        level: the probability with which an interval of this level misses the truth.
        left_out: seeds with which only one of the two was trained to the end.
        spread: where the interval comes from; None where there is none.
    """

    variant: str
    measure: str
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    adjusted: float = math.nan
    seeds: int = 0
    documents: int = 0
    verdict: Verdict = "too few seeds"
    level: float = ALPHA
    scale: Scale = "difference"
    left_out: tuple[int, ...] = ()
    spread: Spread | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """What a study of its size can see.

    Attributes:
        visible: the size of effect that it finds in 4 of 5 studies, the median over its variants; on the
            scale of the measure's difference (perplexity: of the loss).
        smallest: the smallest effect that was found, and `variant` what has it; NaN and "" for none.
        seeds: how many seeds it takes to find that size, in 4 of 5 studies, of every variant of which
            nothing can be told; 0 if there is none, None if no number of seeds is enough with these
            documents.
    """

    visible: float
    smallest: float = math.nan
    variant: str = ""
    seeds: int | None = 0


def compare(results: Results, measure: str, baseline: str | None = None) -> tuple[Effect, ...]:
    """The effect of every variant that can be run, in the order of the study, without the baseline.

    `baseline` is the study's own if it is not given.
    """
    against = results.baseline if baseline is None else baseline
    names = [row.name for row in results.rows if row.problem is None and row.name != against]
    asked = "loss" if measure == "perplexity" else measure
    samples = {name: results.sample(name, asked) for name in (against, *names)}
    found = effects({k: s for k, s in samples.items() if s is not None}, against, names, measure)
    seeds = {name: frozenset(sample.seeds) if sample else frozenset() for name, sample in samples.items()}
    return tuple(replace(e, left_out=tuple(sorted(seeds[e.variant] ^ seeds[against]))) for e in found)


def effects(
    samples: Mapping[str, Sample], baseline: str, variants: Sequence[str], measure: str = "loss"
) -> tuple[Effect, ...]:
    """The effects of `variants`, corrected for all of them.

    `samples` lacks what has no trial that is done.  The order of variants, seeds and documents changes
    nothing.  The samples of `perplexity` are losses.
    """
    raw = [_difference(samples, baseline, name, measure) for name in variants]
    levels = _levels(raw)
    return tuple(_judged(effect, *found) for effect, found in zip(raw, levels, strict=True))


def reach(found: Sequence[Effect]) -> Reach | None:
    """What the study that gave these effects can see; None where no variant has seeds for a verdict."""
    known = [(e, e.spread) for e in found if e.spread is not None and e.seeds >= ENOUGH]
    if not known:
        return None
    sizes = sorted(_visible(spread, effect.level) for effect, spread in known)
    middle = len(sizes) // 2
    visible = sizes[middle] if len(sizes) % 2 else (sizes[middle - 1] + sizes[middle]) / 2
    told = [effect for effect in found if effect.verdict in ("worse", "better")]
    if not told:
        return Reach(visible)
    smallest = min(told, key=lambda effect: (abs(_plain(effect)), effect.variant))
    size = abs(_plain(smallest))
    open_ones = [(e, spread) for e, spread in known if e.verdict == "nothing can be told"]
    needed = [seeds_needed(spread, size, effect.level) for effect, spread in open_ones]
    most = None if None in needed else max([seeds for seeds in needed if seeds is not None], default=0)
    return Reach(visible, size, smallest.variant, most)


def seeds_needed(spread: Spread, size: float, level: float = ALPHA) -> int | None:
    """The least number of seeds, `ENOUGH` or more, with which 4 of 5 studies find an effect of `size`.

    None if `MOST_SEEDS` are not enough, as the documents alone may hide it.
    """
    low, high = ENOUGH, MOST_SEEDS
    if _visible(spread.with_seeds(high), level) > size:
        return None
    while low < high:
        middle = (low + high) // 2
        if _visible(spread.with_seeds(middle), level) <= size:
            high = middle
        else:
            low = middle + 1
    return low


def higher_is_better(measure: str) -> bool:
    """Whether more of a measure is better; `accuracy.forgetting` and the like are of tasks.

    >>> [higher_is_better(m) for m in ("loss", "accuracy", "accuracy.forgetting", "loss.backward")]
    [False, True, False, True]
    """
    if "." not in measure:
        return measure in _HIGHER
    return not (measure in _LOWER_OF_TASKS or measure.partition(".")[2] in _LOWER_OF_TASKS)


def holm(p: Sequence[float], alpha: float = ALPHA) -> list[tuple[float, float]]:
    """For each p its adjusted value, and the level at which Holm's procedure decided about it.

    >>> [(round(adjusted, 3), round(level, 4)) for adjusted, level in holm([0.03, 0.01, 0.5])]
    [(0.06, 0.025), (0.03, 0.0167), (0.5, 0.025)]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    found = [(1.0, alpha)] * len(p)
    largest, divisor, open_yet = 0.0, len(p), True
    for rank, place in enumerate(order):
        if open_yet:
            divisor = len(p) - rank
            open_yet = p[place] <= alpha / divisor
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        found[place] = largest, alpha / divisor
    return found


# --------------------------------------------------------------------------- one variant


def _difference(samples: Mapping[str, Sample], baseline: str, variant: str, measure: str) -> Effect:
    """The mean and the spread of a variant, over the seeds and documents that it shares with the baseline."""
    scale: Scale = "relative" if measure == "perplexity" else "difference"
    empty = Effect(variant, measure, scale=scale)
    if variant not in samples or baseline not in samples:
        return empty
    one, other = samples[variant], samples[baseline]
    seeds = sorted(set(one.seeds) & set(other.seeds))
    documents = sorted(set(one.documents) & set(other.documents))
    if not seeds:
        return empty
    if not documents:
        one, other = _runs(one), _runs(other)
    pair = [_chosen(sample, seeds, documents) for sample in (one, other)]
    return replace(
        empty,
        mean=_mean(pair),
        seeds=len(seeds),
        documents=len(documents),
        spread=spread_of(*pair) if len(seeds) > 1 else None,
    )


def spread_of(one: Sample, other: Sample) -> Spread:
    """The variances of the difference of two samples with the same seeds and documents, by `DRAWS` draws."""
    seeds, documents = one.values.shape
    by_seeds, counts = _draws(seeds, documents)
    alone = _difference_by_seed(one, other)
    drawn_seeds = by_seeds @ alone
    variance = float(drawn_seeds.var())
    if documents == 1:
        return Spread(variance, 0.0, 0.0, seeds, 1.0)
    both = _difference_by_seed(one, other, counts)
    drawn_documents = both.mean(1)
    rest = (by_seeds * both).sum(1) - drawn_seeds - drawn_documents
    texts = float(drawn_documents.var())
    tokens = one.weights.mean(0)
    effective = float(tokens.sum() ** 2 / (tokens**2).sum())
    return Spread(variance, texts, min(float(rest.var()), variance, texts), seeds, effective)


@lru_cache(maxsize=4)
def _draws(seeds: int, documents: int) -> tuple[Array, Array]:
    """How often each seed and each document is drawn, as shares: `[draws, seeds]`, `[draws, documents]`."""
    import numpy as np

    chance = np.random.default_rng([_SEED, seeds, documents])
    sizes = [(size, max(1, size - 1)) for size in (seeds, documents)]
    found = [chance.multinomial(drawn, [1 / size] * size, DRAWS) / drawn for size, drawn in sizes]
    return found[0], found[1]


def _difference_by_seed(one: Sample, other: Sample, counts: Array | None = None) -> Array:
    """How much `one` has more than `other` with every seed: see `_by_seed`."""
    if (one.weights == other.weights).all():  # as almost always: one mean instead of two
        return _by_seed(replace(one, values=one.values - other.values), counts)
    return _by_seed(one, counts) - _by_seed(other, counts)


def _by_seed(sample: Sample, counts: Array | None) -> Array:
    """The mean over documents of every seed, `[seeds]`; for draws of them (`[draws, documents]`) of each."""
    weighted = sample.values * sample.weights
    if counts is None:
        return weighted.sum(1) / sample.weights.sum(1)
    weights = sample.weights[:1] if (sample.weights == sample.weights[0]).all() else sample.weights
    return (counts @ weighted.T) / (counts @ weights.T)


def _mean(pair: Sequence[Sample]) -> float:
    one, other = (_by_seed(sample, None) for sample in pair)
    return float((one - other).mean())


def _runs(sample: Sample) -> Sample:
    """The same with one number for each run."""
    import numpy as np

    values = _by_seed(sample, None)[:, None]
    return Sample(values, np.ones_like(values), sample.seeds)


def _chosen(sample: Sample, seeds: Sequence[int], documents: Sequence[str]) -> Sample:
    """Some seeds and documents, in this order; without documents all columns."""
    rows = [sample.seeds.index(seed) for seed in seeds]
    columns = [sample.documents.index(name) for name in documents] or [0]
    values = sample.values[rows][:, columns]
    return Sample(values, sample.weights[rows][:, columns], tuple(seeds), tuple(documents))


# --------------------------------------------------------------------------- all of them


def _levels(raw: Sequence[Effect]) -> list[tuple[float, float, float]]:
    """For each effect p, its adjusted value, and the level of its interval."""
    known = [i for i, effect in enumerate(raw) if effect.spread is not None]
    enough = [i for i in known if raw[i].seeds >= ENOUGH]
    found = [(math.nan, math.nan, ALPHA / max(1, len(known)))] * len(raw)
    p = [spread.p(raw[i].mean) for i in enough if (spread := raw[i].spread) is not None]
    for place, value, (adjusted, level) in zip(enough, p, holm(p), strict=True):
        found[place] = value, adjusted, level
    return found


def _judged(effect: Effect, p: float, adjusted: float, level: float) -> Effect:
    """An effect with its interval and its verdict, on the scale of its measure."""
    if effect.spread is None:
        return replace(effect, mean=_scaled(effect, effect.mean), level=level)
    half = effect.spread.reach(level)
    low, high = effect.mean - half, effect.mean + half
    verdict: Verdict = "nothing can be told"
    if effect.seeds < ENOUGH:
        verdict = "too few seeds"
    elif low > 0 or high < 0:
        verdict = "better" if (low > 0) == higher_is_better(effect.measure) else "worse"
    return replace(
        effect,
        mean=_scaled(effect, effect.mean),
        low=_scaled(effect, low),
        high=_scaled(effect, high),
        p=p,
        adjusted=adjusted,
        level=level,
        verdict=verdict,
    )


def _scaled(effect: Effect, value: float) -> float:
    """A difference of the loss as the change of perplexity that it is; others as they are."""
    if effect.scale == "difference":
        return value
    return math.expm1(min(value, 700.0))


def _plain(effect: Effect) -> float:
    return math.log1p(effect.mean) if effect.scale == "relative" else effect.mean


def _visible(spread: Spread, level: float) -> float:
    """The size of effect that is found with probability `POWER`: its interval, and the luck that it takes."""
    return spread.reach(level) + spread.reach(2 * (1 - POWER))
