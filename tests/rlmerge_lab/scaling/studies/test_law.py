"""Section 3.1's fits: printed values, intervals that cover them, and the laws that explain them."""

import pytest

from rlmerge.errors import RequestError
from rlmerge_lab.scaling.law import Law
from rlmerge_lab.scaling.studies import law
from rlmerge_lab.scaling.studies.law import Measured


def test_the_printed_fit_and_its_intervals(results):
    study = results["law"]
    nls = study.fit("least squares")
    assert (round(nls.law.a, 4), round(nls.law.b, 3), round(nls.r2, 3)) == (0.0848, 0.587, 0.965)
    for bootstrap in study.bootstraps:
        assert bootstrap.a.low < nls.law.a < bootstrap.a.high
        assert bootstrap.b.low < nls.law.b < bootstrap.b.high
        assert bootstrap.at_70.low < nls.at_70 < bootstrap.at_70.high


def test_the_zeros_behind_the_gini_column_follow_the_calibrated_law(results):
    implied, calibrated = (results["law"].fit(name) for name in ("zeros by Gini", "calibration"))
    assert implied.law.a == pytest.approx(calibrated.law.a, abs=0.01)
    assert implied.law.b == pytest.approx(calibrated.law.b, abs=0.03)
    assert implied.r2 > 0.99


def test_vector_length_alone_makes_a_law(results):
    assert results["law"].fit("constant zeros").law.b > 0.25


def test_measured_checkpoints_are_fitted():
    truth = Law(0.5, 0.3)
    study = law.run(measured=[Measured(f"m{n}", n, truth.at(n)) for n in (1, 4, 16)], draws=2)
    assert study.fit("measured").law.b == pytest.approx(0.3)
    assert study.fit("measured").r2 == pytest.approx(1.0)


def test_one_size_is_not_enough():
    with pytest.raises(RequestError, match="two sizes"):
        law.run(measured=[Measured("a", 7, 0.8), Measured("b", 7, 0.9)], draws=2)


def test_bootstraps_repeat_by_seed():
    std = [0.01] * 10
    l0 = [Law(0.1, 0.5).at(n) for n in law.SIZES]
    assert law.bootstraps(1, l0, std, 20) == law.bootstraps(1, l0, std, 20) != law.bootstraps(2, l0, std, 20)
