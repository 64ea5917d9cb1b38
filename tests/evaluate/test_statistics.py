import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.statistics import (
    Interval,
    bootstrap,
    percentiles,
    resample,
    resampled_means,
    retention,
    verdict,
)
from rlmerge.jsondata import plain


def test_retention_is_the_share_of_the_gain():
    base, expert, merged = np.array([0.1, 0.3]), np.array([0.5, 0.7]), np.array([0.4, 0.2])
    # gains: expert 0.6 − 0.2, merged 0.3 − 0.2
    assert retention(base, expert, merged) == pytest.approx(0.25)


def test_bootstrap_resamples_pairs():
    random = np.random.default_rng(3)
    noise = random.normal(0, 10, 400)
    shift = random.normal(1, 0.1, 400)
    found = bootstrap(lambda a, b: float((b - a).mean()), noise, noise + shift)
    # Paired, the noise cancels: the standard error is 0.1 / √400 = 0.005, so the interval spans 4 × 0.005 or so.
    assert found.low < found.value < found.high
    assert 0.01 < found.high - found.low < 0.03
    assert found == bootstrap(lambda a, b: float((b - a).mean()), noise, noise + shift)


def test_percentiles_are_the_quantiles():
    assert percentiles(5.0, np.arange(1001.0)) == Interval(5.0, 25.0, 975.0)
    unknown = percentiles(5.0, np.array([1.0, np.nan]))
    assert math.isnan(unknown.low) and not unknown.excludes(0.0)
    assert plain(unknown) == {"value": 5.0, "low": None, "high": None}


def test_rare_infinite_ratios_leave_the_ends_finite():
    draws = np.concatenate([np.full(98, 2.0), [np.inf, np.inf]])
    assert percentiles(2.0, draws) == Interval(2.0, 2.0, 2.0)
    assert percentiles(2.0, np.concatenate([draws, [np.inf] * 5])).high == np.inf


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_resampled_means_are_of_the_same_items_for_all_models(count, seed):
    random = np.random.default_rng(seed)
    items = random.normal(size=count)
    means = resampled_means(np.array([items, 3 * items + 1, np.ones(count)]), 20, random)
    # Another model that is a function of the first stays that function in every resample; constants stay constant.
    np.testing.assert_allclose(means[:, 1], 3 * means[:, 0] + 1, atol=1e-12)
    np.testing.assert_allclose(means[:, 2], 1.0, atol=1e-12)
    assert (means[:, 0] <= items.max() + 1e-12).all() and (means[:, 0] >= items.min() - 1e-12).all()


def test_resampled_means_spread_as_the_standard_error():
    items = np.repeat([0.0, 1.0], 200)
    means = resampled_means(items[None], 4000, np.random.default_rng(0))[:, 0]
    # The bootstrap's standard error is σ / √n = 0.5 / 20; 4,000 draws know it to about 1.1 %, four times that is 5 %.
    assert means.std() == pytest.approx(0.025, rel=0.05)


def scored(values, stderr=None):
    return {name: Score("t", "m", value, stderr) for name, value in values.items()}


def test_without_items_standard_errors_are_used_and_it_is_said():
    found = resample(scored({"a": 0.4, "b": 0.5}, stderr=0.01))
    assert not found.paired and "from standard errors" in found.warning
    difference = found.draws["b"] - found.draws["a"]
    # Independent: the difference has √2 × 0.01; 2,000 draws know it to 1.6 %, and 7 % is over four times that.
    assert difference.std() == pytest.approx(0.01 * math.sqrt(2), rel=0.07)


def test_without_anything_nothing_is_known():
    found = resample(scored({"a": 0.4, "b": 0.5}))
    assert np.isnan(found.draws["a"]).all()
    assert "nothing is called better" in found.warning


def test_unlike_numbers_of_items_are_not_paired():
    found = resample({"a": Score.of_items("t", "m", [0.0, 1.0] * 20), "b": Score.of_items("t", "m", [0.0, 1.0])})
    assert not found.paired and "different numbers of items" in found.warning


def test_few_items_are_told():
    assert "only 3 items" in resample({"a": Score.of_items("t", "m", [0.0, 1.0, 1.0])}).warning
    assert resample({"a": Score.of_items("t", "m", [0.0, 1.0] * 10)}).warning is None


@pytest.mark.parametrize(
    ("ends", "higher", "expected"),
    [
        ((0.1, 0.3), True, "better"),
        ((0.1, 0.3), False, "worse"),
        ((-0.3, -0.1), True, "worse"),
        ((-0.3, -0.1), False, "better"),
        ((-0.1, 0.3), True, "undecided"),
        ((0.0, 0.3), True, "undecided"),
        ((math.nan, math.nan), True, "undecided"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(ends, higher, expected):
    assert verdict(Interval(sum(ends) / 2, *ends), higher) == expected
