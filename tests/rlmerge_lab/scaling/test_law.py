"""Section 3.1's fits: printed values, intervals that cover them, the laws that explain them, and users' checkpoints."""

from dataclasses import replace

import pytest

from rlmerge.errors import RequestError
from rlmerge_lab.scaling import law
from rlmerge_lab.scaling.law import Measured
from rlmerge_lab.scaling.simulation import Law
from rlmerge_lab.scaling.verdict import Verdict
from support.claims import verdict


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


def with_fit(study, name, **changes):
    return replace(study, fits=tuple(replace(f, **changes) if f.name == name else f for f in study.fits))


def test_another_fit_is_not_the_printed_one(results):
    other = with_fit(results["law"], "least squares", law=Law(0.1, 0.5), r2=0.9)
    for statement in ("Coefficient a", "Exponent b", "Coefficient of", "The fitted law at 70B"):
        assert verdict(law, statement, results["law"]) is Verdict.REPRODUCED
        assert verdict(law, statement, other) is Verdict.NOT_REPRODUCED


def test_a_law_below_the_published_values_would_describe_them(results):
    low = with_fit(results["law"], "least squares", law=Law(0.9, 0.2))
    assert verdict(law, "The law describes", low) is Verdict.REPRODUCED


@pytest.mark.parametrize(
    ("text", "billions", "sparsity"),
    [
        ("mine=7.6B:0.72", 7.6, 0.72),
        ("mine=7600000000:72%", 7.6, 0.72),
        ("mine=500M:.5", 0.5, 0.5),
        ("mine=7.6e9:1", 7.6, 1.0),
        ("mine=1T:0", 1000.0, 0.0),
    ],
)
def test_forms(text, billions, sparsity):
    found = Measured.parse(text)
    assert found.name == "mine"
    assert (found.billions, found.sparsity) == pytest.approx((billions, sparsity))


@pytest.mark.parametrize(
    "text", ["", "mine", "mine=7B", "=7B:0.5", "mine=7B:x", "mine=0B:0.5", "mine=7B:1.5", "a=7B:72"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(RequestError) as refusal:
        Measured.parse(text)
    assert refusal.value.where == "--measured" and refusal.value.exit_code == 2


def test_the_users_checkpoints_stand_beside_the_published():
    study = law.run(measured=[Measured("mine", 7.6, 0.72), Measured("big", 32, 0.8)], draws=2)
    fits, _, published = law.tables(study)
    assert fits.rows[-1][0] == "measured"
    assert published.rows[-2] == ("mine (yours, 7.6B)", "72.0 %", "97.4 %")
