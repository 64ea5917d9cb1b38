"""The baseline of a search: which coefficients it tries, where it peaks, and what begins there."""

import math

import pytest

from rlmerge.search.baseline import COEFFICIENTS, best_row, next_coefficients, peak, starts
from rlmerge.search.request import read_search


def rows_of(values):
    return [{"coefficient": c, "values": (v,)} for c, v in values.items()]


def space_of(**search):
    models = [{"model": f"e{k}", "parameters": {"weight": {"low": 0.1, "high": 3.0}}} for k in range(2)]
    recipe = {"merge_method": "task_arithmetic", "base_model": "base", "models": models, **search}
    return read_search({**recipe, "tune": {"objective": "proxy:retention", "trials": 6}}, {})[0]


def test_all_coefficients_come_first_and_nothing_after_a_peak_within():
    assert next_coefficients([]) == COEFFICIENTS
    assert next_coefficients(rows_of({0.5: 0.1, 1.0: 0.3, 1.5: 0.2})) == ()


def test_a_best_at_the_end_is_followed_until_it_falls_or_is_far_out():
    assert next_coefficients(rows_of({1.0: 0.1, 1.5: 0.2})) == (2.25,)
    assert next_coefficients(rows_of({1.0: 0.1, 1.5: 0.2, 2.25: 0.15})) == ()
    assert next_coefficients(rows_of({4.0: 0.1, 5.0: 0.2})) == ()


def test_the_peak_is_that_of_the_parabola_over_the_logarithm():
    """f(c) = 1 − (log c − log 0.9)² peaks at 0.9, wherever it is looked at."""
    values = {c: 1 - (math.log(c) - math.log(0.9)) ** 2 for c in COEFFICIENTS}
    assert peak(rows_of(values)) == pytest.approx(0.9)


def test_at_an_end_or_on_a_line_the_peak_is_the_best_row():
    assert peak(rows_of({0.5: 0.3, 1.0: 0.2, 1.5: 0.1})) == 0.5
    assert peak(rows_of({0.5: 0.2, 1.0: 0.2, 1.5: 0.2})) == 0.5
    assert best_row(rows_of({1.0: 0.2, 0.5: 0.2}))["coefficient"] == 0.5


def test_a_search_begins_at_one_coefficient_for_each_method_and_goes_on_around_it():
    space = space_of(
        merge_method={"choices": ["task_arithmetic", "ties"]}, parameters={"density": {"low": 0.2, "high": 1.0}}
    )
    found = starts(rows_of({0.6: 0.1, 0.8: 0.3, 1.0: 0.1}), space, 4, seed=0)
    assert [values["merge_method"] for values in found] == ["task_arithmetic", "ties"] * 2
    best = peak(rows_of({0.6: 0.1, 0.8: 0.3, 1.0: 0.1}))
    for values in found[:2]:
        assert values["weight of e0"] == values["weight of e1"] == best
    for values in found[2:]:
        # Four standard deviations of the logarithm.
        assert all(abs(math.log(values[f"weight of e{k}"] / best)) < 4 * 0.25 for k in range(2))
        assert values["weight of e0"] != values["weight of e1"]
    assert "density" not in found[0]
    assert found == starts(rows_of({0.6: 0.1, 0.8: 0.3, 1.0: 0.1}), space, 4, seed=0)


def test_values_keep_to_their_range():
    found = starts(rows_of({4.0: 0.1, 5.0: 0.3}), space_of(), 1, seed=0)
    assert found == [{"weight of e0": 3.0, "weight of e1": 3.0}]


def test_a_scale_takes_the_coefficient_and_weights_beside_it_are_one():
    fixed = [{"model": f"e{k}"} for k in range(2)]
    ranged = {"lambda": {"low": 0.1, "high": 2.0}}
    rows = rows_of({0.4: 0.1, 0.5: 0.3, 0.625: 0.1})
    assert starts(rows, space_of(models=fixed, parameters=ranged), 1, seed=0) == [{"lambda": pytest.approx(0.5)}]
    first, second = starts(rows, space_of(parameters=ranged), 2, seed=0)
    assert first == {"lambda": pytest.approx(0.5), "weight of e0": 1.0, "weight of e1": 1.0}
    assert second["lambda"] == pytest.approx(0.5) and second["weight of e0"] != second["weight of e1"]


def test_the_first_of_a_method_has_its_own_coefficient_and_all_else_in_the_middle():
    space = space_of(
        merge_method={"choices": ["task_arithmetic", "ties"]}, parameters={"density": {"low": 0.2, "high": 1.0}}
    )
    rows = rows_of({0.4: 0.1, 0.5: 0.3, 0.625: 0.1})
    found = starts(rows, space, 2, seed=0, factors={"ties": 1.5})
    assert [values["weight of e0"] for values in found] == pytest.approx([0.5, 0.75])
    assert "density" not in found[0] and found[1]["density"] == pytest.approx(0.6)


def test_without_a_weight_nothing_stands_for_the_coefficient():
    fixed = [{"model": f"e{k}"} for k in range(2)]
    space = space_of(merge_method="ties", models=fixed, parameters={"density": {"low": 0.2, "high": 0.9}})
    assert starts(rows_of({0.5: 0.1, 1.0: 0.3}), space, 3, seed=0) == []
