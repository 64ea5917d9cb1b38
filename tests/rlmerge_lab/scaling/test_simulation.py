"""The generator against section 2.6, closed forms against simulation, and the law against its printed fit."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from rlmerge.errors import RequestError
from rlmerge.geometry.vector import gini, l0_share
from rlmerge_lab.scaling.simulation import (
    Law,
    active_entries,
    cosine,
    dot,
    fit,
    fit_log,
    gini_of_zero_share,
    l0_of_zero_share,
    norm,
    r_squared,
    rng,
    task_vector,
    task_vectors,
    through,
    zero_share_of_gini,
)


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


def test_by_hand():
    a, b = np.array([3.0, 4.0]), np.array([4.0, -3.0])
    assert (dot(a, a), norm(a), dot(a, b), cosine(a, b), cosine(a, -2 * a)) == (25, 5, 0, 0, -1)


def test_zero_has_no_direction():
    assert math.isnan(cosine(np.zeros(2), np.ones(2)))


def test_equals_numpy():
    a, b = np.random.default_rng(0).normal(size=(2, 1001))
    assert dot(a, b) == pytest.approx(np.dot(a, b))


def test_gini_of_a_dense_lognormal_is_one_minus_twice_the_area_under_its_lorenz_curve():
    # The Lorenz curve of a log-normal is Phi(Phi^-1(p) - sigma).
    area, _ = integrate.quad(lambda p: stats.norm.cdf(stats.norm.ppf(p) - 1.5), 0, 1)
    assert gini_of_zero_share(0.0) == pytest.approx(1 - 2 * area, abs=1e-7)


def test_gini_agrees_with_a_large_sample():
    tau = task_vector(rng(0), 400_000, 40_000)
    # Sampling error of a Gini over 40 000 heavy-tailed values, scaled by the active share, is below 0.001.
    assert gini(tau) == pytest.approx(gini_of_zero_share(0.9), abs=1e-3)


@given(st.floats(0.0, 1.0))
def test_zero_share_of_gini_inverts(share):
    assert zero_share_of_gini(gini_of_zero_share(share)) == pytest.approx(share, abs=1e-12)


def test_the_papers_gini_at_1b_says_what_the_generator_was_fed():
    assert zero_share_of_gini(0.9268) == pytest.approx(0.7466, abs=1e-4)


@pytest.mark.parametrize(("zeros", "entries"), [(0.0, 10_000), (0.9, 20_000)])
def test_expected_l0_is_the_mean_over_many_draws(zeros, entries):
    active = round((1 - zeros) * entries)
    draws = [l0_share(task_vector(rng(1, t), entries, active)) for t in range(200)]
    error = np.std(draws) / math.sqrt(len(draws))
    # Four standard errors, and the 1/n by which the maximum itself is counted as one of the others.
    assert abs(l0_of_zero_share(zeros, entries) - np.mean(draws)) < 4 * error + 1 / active


def test_l0_of_a_dense_vector_grows_towards_one_with_its_length_alone():
    values = [l0_of_zero_share(0.0, n) for n in (1e4, 1e5, 4e6, 7e10)]
    assert values == sorted(values)
    assert values[0] < 0.8 and values[-1] > 0.9998


def test_l0_does_not_see_the_scale():
    tau = task_vector(rng(2), 5_000, 500)
    assert l0_share(1000 * tau) == l0_share(tau)


SIZES = (1, 3, 7, 8, 14, 32, 70, 100, 200, 405)
L0 = (0.9139, 0.9609, 0.9630, 0.9828, 0.9778, 0.9895, 0.9944, 0.9947, 0.9954, 0.9970)


def test_least_squares_on_table_1_is_the_printed_law():
    law = fit(SIZES, L0)
    assert (round(law.a, 4), round(law.b, 3)) == (0.0848, 0.587)
    assert round(r_squared(law, SIZES, L0), 3) == 0.965
    assert [round(law.at(n), 3) for n in (70, 100, 405)] == [0.993, 0.994, 0.998]


def test_least_squares_is_a_minimum():
    def squares(law):
        return float(((np.array(L0) - law(SIZES)) ** 2).sum())

    best = fit(SIZES, L0)
    for da, db in ((1e-4, 0), (-1e-4, 0), (0, 1e-3), (0, -1e-3)):
        assert squares(Law(best.a + da, best.b + db)) > squares(best)


def test_two_calibration_points_fix_the_law():
    law = through((3, 0.85), (7, 0.90))
    assert (round(law.a, 3), round(law.b, 3), round(law.at(70), 3)) == (0.254, 0.479, 0.967)
    assert law.at(3) == pytest.approx(0.85) and law.at(7) == pytest.approx(0.90)


@given(st.floats(0.02, 0.9), st.floats(0.05, 1.5))
def test_every_fit_recovers_an_exact_law(a, b):
    law = Law(a, b)
    exact = law(SIZES).tolist()
    for found in (fit(SIZES, exact), fit(SIZES, exact, [0.1] * 10), fit_log(SIZES, exact)):
        assert (found.a, found.b) == pytest.approx((a, b), rel=1e-4)


def test_log_log_is_a_line_through_the_logarithms():
    # By hand: active shares 0.1 at 1 and 0.01 at 100 fall by a factor 10 over two decades.
    law = fit_log((1, 100), (0.9, 0.99))
    assert (law.a, law.b) == pytest.approx((0.1, 0.5))


def test_weights_pull_the_fit_towards_precise_points():
    sizes, values = (1, 10, 100), (0.5, 0.9, 0.9)
    assert abs(fit(sizes, values, (1, 1, 1e-3)).at(100) - 0.9) < abs(fit(sizes, values).at(100) - 0.9)


def test_a_perfect_measurement_does_not_break_the_fit():
    assert fit((1, 10), (0.9, 1.0)).at(10) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("sizes", "values", "message"),
    [((7, 7), (0.8, 0.9), "two sizes"), ((0, 7), (0.8, 0.9), "positive"), ((1, 7), (0.8, 1.2), "between 0 and 1")],
)
def test_impossible_requests_are_refused(sizes, values, message):
    with pytest.raises(RequestError, match=message):
        fit(sizes, values)


def test_log_log_refuses_a_sparsity_of_one():
    with pytest.raises(RequestError, match="logarithm"):
        fit_log((1, 10), (0.9, 1.0))


def test_the_absent_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(RequestError, match=r"scipy.*not installed") as refusal:
        fit((1, 10), (0.5, 0.9))
    assert "pip install 'rlmerge[scaling]'" in str(refusal.value)
