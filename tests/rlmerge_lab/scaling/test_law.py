"""The law against its printed fit, hand-worked points, and fits to exact data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.errors import RequestError
from rlmerge_lab.scaling.law import Law, fit, fit_log, r_squared, through

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
