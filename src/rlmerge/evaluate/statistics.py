"""How sure a comparison of scores is: paired bootstrap intervals (Efron & Tibshirani 1993, chapters 13 and 16)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from rlmerge.evaluate.evaluator import Score
from rlmerge.frozen import frozen

RESAMPLES = 2000
"""Bootstrap samples of a comparison; the ends of a 95 % interval rest on the 50 outermost on each side."""

_BLOCK = 1 << 22


@frozen(slots=True)
class Interval:
    """An estimate with the ends of its 95 % confidence interval, NaN where nothing tells how sure it is."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside; never where the ends are unknown."""
        return self.low > value or self.high < value


def bootstrap(statistic: Callable[..., float], *samples: np.ndarray, resamples: int = 1000, seed: int = 0) -> Interval:
    """``statistic(*samples)`` and its percentile bootstrap interval; ``samples`` [N] are resampled in pairs."""
    count = len(samples[0])
    random = np.random.default_rng(seed)
    draws = [statistic(*(s[pick] for s in samples)) for pick in random.integers(0, count, (resamples, count))]
    return percentiles(statistic(*samples), np.array(draws))


def percentiles(value: float, draws: np.ndarray) -> Interval:
    """``value`` with the 2.5 % and 97.5 % quantiles of its bootstrap ``draws`` [R]; NaN when a draw is NaN.

    A ratio's draws may be infinite, and so then may be an end.
    """
    if np.isnan(draws).any():
        return Interval(float(value), np.nan, np.nan)
    low, high = np.quantile(draws, [0.025, 0.975], method="linear" if np.isfinite(draws).all() else "inverted_cdf")
    return Interval(float(value), float(low), float(high))


def retention(base: np.ndarray, expert: np.ndarray, merged: np.ndarray) -> float:
    """Share of the expert's gain over the base that the merge keeps; each argument [N] scores the same items."""
    return float((merged.mean() - base.mean()) / (expert.mean() - base.mean()))


def resampled_means(items: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """Means [R, M] of M models' scores ``items`` [M, N] over R bootstrap samples of the N items, the same for all."""
    count = items.shape[1]
    share = np.full(count, 1 / count)
    block = max(1, _BLOCK // count)
    means = [
        random.multinomial(count, share, min(block, resamples - first)) @ items.T
        for first in range(0, resamples, block)
    ]
    return np.concatenate(means) / count


@frozen(slots=True)
class Resampled:
    """What one task's scores might have been: ``draws`` [R] of each model, and what to know about them."""

    draws: Mapping[str, np.ndarray]
    paired: bool
    warning: str | None


def resample(scores: Mapping[str, Score], *, resamples: int = RESAMPLES, seed: int = 0) -> Resampled:
    """Bootstrap one task's ``scores`` by model.

    Paired over the items where every score has them; else independent normal draws from the standard errors, which make
    intervals of differences wider than pairs would; else NaN.
    """
    task = next(iter(scores.values())).task
    random = np.random.default_rng([seed, zlib.crc32(task.encode())])
    items = [score.items for score in scores.values() if score.items]
    if len(items) == len(scores) and len({len(found) for found in items}) == 1:
        means = resampled_means(np.array(items), resamples, random)
        draws = dict(zip(scores, means.T, strict=True))
        few = None if len(items[0]) >= 20 else f"{task}: only {len(items[0])} items; its intervals are rough"
        return Resampled(draws, True, few)
    reason = "the models were scored on different numbers of items" if len(items) == len(scores) else "no item scores"
    errors = [score.stderr for score in scores.values()]
    if any(error is None for error in errors):
        unknown = {model: np.full(resamples, np.nan) for model in scores}
        return Resampled(unknown, False, f"{task}: {reason} and no standard errors, so nothing is called better")
    normal = {model: random.normal(score.value, score.stderr or 0.0, resamples) for model, score in scores.items()}
    return Resampled(normal, False, f"{task}: {reason}; intervals are from standard errors, unpaired and wider")


def verdict(difference: Interval, higher_is_better: bool) -> str:
    """``better`` or ``worse`` only where the interval of the difference excludes 0, else ``undecided``."""
    if not difference.excludes(0.0):
        return "undecided"
    return "better" if (difference.value > 0) == higher_is_better else "worse"
