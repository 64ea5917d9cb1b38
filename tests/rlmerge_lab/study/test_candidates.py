from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge import methods
from rlmerge_lab.study.candidates import KNOBS, Knob, candidates


def named(names, experts=3, measured=False):
    found, skipped = candidates(names, experts, measured)
    return {one.label: one for one in found}, skipped


@pytest.mark.parametrize("name", KNOBS)
def test_main_parameters_exist_and_their_ranges_are_allowed(name):
    method, knob = methods.get(name), KNOBS[name]
    parameter = method.parameter(knob.name)
    for position in (0.0, 0.5, 1.0):
        assert parameter.problem(knob.at(position)) is None
        values = {p.argument: p.default for p in method.parameters} | {parameter.argument: knob.at(position)}
        values |= {p.argument: np.full(3, values[p.argument]) for p in method.parameters if p.per == "expert"}
        assert not method.check(values)


def test_every_method_takes_part_or_says_why_not():
    present, skipped = named(methods.names())
    assert set(methods.names()) <= {one.method for one in present.values()} | set(skipped)
    assert skipped["slerp"] == "takes at most 1 expert, not 3"
    assert skipped["nuslerp"] == "takes at most 2 experts, not 3"
    assert skipped["fisher"] == "no sensitivity was measured on these experts"
    assert skipped["sar_merging:fisher"] == skipped["fisher"]
    assert skipped["regmean"] == "no gram was measured on these experts"
    assert "nuslerp" in named(["nuslerp"], experts=2)[0]


def test_measured_inputs_bring_second_entries():
    present, skipped = named(["sar_merging", "scf_rkl", "fisher", "regmean", "ties"], measured=True)
    assert list(present) == [
        "sar_merging", "sar_merging:fisher", "scf_rkl", "scf_rkl:fisher", "fisher", "regmean", "regmean:sum", "ties",
    ]  # fmt: skip
    assert not skipped
    assert present["sar_merging"].measured is None
    assert present["scf_rkl:fisher"].fixed == {"importance": "fisher"}
    assert [present[label].measured for label in ("fisher", "regmean")] == ["sensitivity", "gram"]
    assert (present["regmean"].fixed, present["regmean:sum"].fixed) == ({}, {"others": "sum"})


def test_the_own_method_takes_part_with_and_without_measured_inputs():
    present, _ = named(["covariance"], measured=True)
    assert {label: one.measured for label, one in present.items()} == {"covariance": None, "covariance:gram": "gram"}
    assert named(["covariance"])[1] == {"covariance:gram": "no gram was measured on these experts"}


def test_logarithmic_ranges():
    rho = KNOBS["covariance"]
    # From 0.01 to 100 in the logarithm, the default of 1 is the middle.
    assert (rho.at(0.0), rho.at(0.5), rho.at(1.0)) == pytest.approx((0.01, 1.0, 100.0))
    assert named(["covariance"])[0]["covariance"].default == pytest.approx(0.5)
    assert (rho.position(1e-9), rho.position(0.0), rho.position(1e9)) == (0.0, 0.0, 1.0)


def test_whole_numbers_stay_whole():
    assert [Knob("n", 1, 4, whole=True).at(position) for position in (0.0, 0.1, 0.5, 1.0)] == [1.0, 1.0, 2.0, 4.0]


def test_what_a_range_is_called_in_results_did_not_change():
    """Results of earlier versions are found by it."""
    assert Knob("density", 0.1, 0.9).to_dict() == {"name": "density", "low": 0.1, "high": 0.9}
    assert Knob("rho", 0.1, 0.9, log=True).to_dict() == {"name": "rho", "low": 0.1, "high": 0.9, "log": True}


def test_scales_are_called_what_the_method_calls_them():
    present, _ = named(["task_arithmetic", "ties", "linear", "ram"])
    assert {label: one.scale for label, one in present.items()} == {
        "task_arithmetic": "lambda",
        "ties": "lambda",
        "linear": "scale",
        "ram": "scale",  # RAM's own lambda multiplies only changes of one expert
    }


def test_results_hold_the_method_s_parameters_and_the_factor_on_its_change():
    ram = named(["ram"])[0]["ram"]
    assert ram.parameters(1 / 3) == {"lambda": 1.0}
    assert ram.split({"lambda": 1.5, "scale": 2.0}) == ({"lambda": 1.5}, 2.0)
    ties = named(["ties"])[0]["ties"]
    assert ties.split({"density": 0.5, "lambda": 2.0}) == ({"density": 0.5}, 2.0)
    assert ties.split({}) == ({}, 1.0)


def test_where_defaults_lie():
    present, _ = named(["ties", "ram", "model_stock", "task_arithmetic"])
    assert present["ties"].default == 1.0
    assert present["ram"].default == pytest.approx(1 / 3)
    assert present["model_stock"].default == 0.0
    assert present["task_arithmetic"].default == 0.0


@given(st.floats(0, 1))
def test_positions_and_values_agree(position):
    knob = Knob("density", 0.1, 1.0)
    assert knob.position(knob.at(position)) == pytest.approx(position, abs=1e-12)


def test_values_outside_the_range_lie_at_its_ends():
    assert Knob("density", 0.1, 0.9).position(1.0) == 1.0
    assert Knob("density", 0.1, 0.9).position(0.0) == 0.0


def test_a_method_of_one_s_own_has_its_density_tuned(monkeypatch):
    own = methods.Method(
        "own",
        lambda xp, base, tau, *, density: base,
        "",
        "unpublished",
        "exact",
        (methods.Parameter("density", 0.5, "", low=0, high=1), methods.Parameter("needed", None, "")),
    )
    monkeypatch.setattr(methods, "get", lambda name: own)
    assert candidates(["own"], 2, False)[1] == {"own": "has no default for 'needed'"}
    ready = replace(own, parameters=own.parameters[:1])
    monkeypatch.setattr(methods, "get", lambda name: ready)
    (found,), _ = candidates(["own"], 2, False)
    assert (found.knob, found.scale) == (Knob("density", 0.1, 1.0), "scale")
