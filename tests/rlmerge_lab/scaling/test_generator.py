"""The generator against section 2.6: exact counts, log-normal magnitudes, random signs, shared supports."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlmerge.errors import RequestError
from rlmerge_lab.scaling.generator import active_entries, rng, task_vector, task_vectors


def test_exactly_the_active_entries_are_non_zero():
    for active in (1, 37, 1000):
        assert np.count_nonzero(task_vector(rng(0), 1000, active)) == active
    assert np.all(np.count_nonzero(task_vectors(rng(0), 1000, 101), axis=1) == 101)


def test_magnitudes_are_lognormal_and_signs_are_fair():
    values = task_vector(rng(3), 20_000, 20_000)
    assert stats.kstest(np.log(np.abs(values)), "norm", (-3, 1.5)).pvalue > 1e-3
    assert stats.binomtest(int((values > 0).sum()), values.size).pvalue > 1e-3


def test_disjoint_supports_share_exactly_a_fifth():
    count = (task_vectors(rng(1), 10_000, 1000, supports="disjoint") != 0).sum(axis=0)
    assert [int((count == c).sum()) for c in (1, 2, 3)] == [2400, 0, 200]


def test_independent_supports_share_a_fifth_and_chance_collisions():
    count = (task_vectors(rng(1), 10_000, 1000, supports="independent") != 0).sum(axis=0)
    assert (count == 3).sum() >= 200
    # Pairs of own parts, 800 of 9800 positions each, collide 800² / 9800 = 65 times; three pairs, within 5 deviations.
    assert abs((count == 2).sum() - 3 * 65) < 5 * np.sqrt(3 * 65)


def test_streams_are_reproducible_and_independent():
    assert np.array_equal(task_vector(rng(5, 1), 100, 10), task_vector(rng(5, 1), 100, 10))
    assert not np.array_equal(task_vector(rng(5, 1), 100, 10), task_vector(rng(5, 2), 100, 10))
    assert not np.array_equal(task_vector(rng(5, 1), 100, 10), task_vector(rng(6, 1), 100, 10))


def test_a_tenth_of_the_entries_truncates_to_one_less():
    assert active_entries(50_000, 0.9) == 4999
    assert active_entries(50_000, 0.75) == 12_500


def test_disjoint_supports_that_do_not_fit_are_refused():
    with pytest.raises(RequestError, match="do not fit"):
        task_vectors(rng(0), 1000, 400, supports="disjoint")
