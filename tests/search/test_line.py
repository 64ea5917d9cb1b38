"""Steps from the best trial: which coefficients come next, where a parabola peaks, and values beside the best ones."""

import math

import pytest

from rlmerge.search.line import STEP, around, parabola, steps
from rlmerge.search.request import read_search
from rlmerge.search.results import Trial

RANGE = {"low": 0.01, "high": 100.0, "log": True}


def space_of(*, scale=True, density=False, choices=()):
    models = [{"model": f"e{k}", "parameters": {"weight": {"low": 0.01, "high": 100.0}}} for k in range(2)]
    parameters = {"lambda": RANGE} if scale else {}
    if density:
        parameters["density"] = {"low": 0.2, "high": 1.0}
    method = {"choices": list(choices)} if choices else "ties"
    recipe = {"merge_method": method, "base_model": "base", "models": models, "parameters": parameters}
    return read_search({**recipe, "tune": {"objective": "proxy:retention", "trials": 6}}, {})[0]


def trial(number, value, state="complete", **parameters):
    values = {"weight of e0": 1.0, "weight of e1": 1.0, **parameters}
    return Trial(number, state, () if value is None else (value,), values, "sampled", 0, {}, 0.0, {}, {}, None)


def scales(found):
    return [values["lambda"] for values in found]


def test_the_first_steps_are_up_and_down():
    assert scales(steps([trial(0, 0.5, **{"lambda": 2.0})], space_of())) == pytest.approx([2 * STEP, 2 / STEP])


def test_a_best_at_an_end_is_followed():
    up = [trial(0, 0.5, **{"lambda": 1.0}), trial(1, 0.6, **{"lambda": STEP})]
    assert scales(steps(up, space_of())) == pytest.approx([STEP**2, STEP**3])
    down = [trial(0, 0.6, **{"lambda": 1.0}), trial(1, 0.5, **{"lambda": STEP})]
    assert scales(steps(down, space_of())) == pytest.approx([1 / STEP, 1 / STEP**2])


def test_between_two_worse_ones_the_peak_of_the_parabola_is_next():
    """f(x) = 1 − (log x − log 1.1)² peaks at 1.1; the three points are 1.3 apart."""
    trials = [
        trial(k, 1 - (math.log(x) - math.log(1.1)) ** 2, **{"lambda": x}) for k, x in enumerate((1.0, 1.3, 1 / 1.3))
    ]
    assert scales(steps(trials, space_of())) == pytest.approx([1.1])


def test_a_peak_that_is_known_is_not_tried_again():
    """Symmetric around the best."""
    trials = [trial(k, 1 - math.log(x) ** 2, **{"lambda": x}) for k, x in enumerate((1.0, 1.3, 1 / 1.3))]
    assert steps(trials, space_of()) == []


def test_stopped_trials_are_worse_and_half_the_way_to_them_is_next():
    trials = [trial(0, 0.5, **{"lambda": 1.0})]
    trials += [trial(k, 0.9, "pruned", **{"lambda": x}) for k, x in ((1, 4.0), (2, 0.25))]
    assert scales(steps(trials, space_of())) == pytest.approx([2.0, 0.5])


def test_trials_off_the_line_and_failed_ones_tell_nothing():
    trials = [
        trial(0, 0.5, **{"lambda": 1.0}),
        trial(1, 0.4, **{"lambda": 1.3, "weight of e0": 1.1}),
        trial(2, None, "fail", **{"lambda": 1.35}),
    ]
    assert scales(steps(trials, space_of())) == pytest.approx([STEP, 1 / STEP])


def test_without_lambda_all_weights_move_together():
    space = space_of(scale=False)
    found = steps([trial(0, 0.5, **{"weight of e0": 1.0, "weight of e1": 3.0})], space)
    assert [(v["weight of e0"], v["weight of e1"]) for v in found] == [
        pytest.approx((STEP, 3 * STEP)), pytest.approx((1 / STEP, 3 / STEP)),
    ]  # fmt: skip


def test_nothing_is_asked_for_before_a_trial_is_complete():
    assert steps([trial(0, 0.5, "pruned", **{"lambda": 1.0})], space_of()) == []
    assert around([], space_of(), 0) is None


def test_values_beside_the_best_keep_its_choices_and_ranges():
    space = space_of(density=True, choices=("ties", "dare_ties"))
    best = trial(3, 0.9, merge_method="dare_ties", density=0.95, **{"lambda": 99.0})
    seen = [
        around([trial(1, 0.1, merge_method="ties", density=0.5, **{"lambda": 1.0}), best], space, s) for s in range(50)
    ]
    assert {values["merge_method"] for values in seen} == {"dare_ties"}
    for values in seen:
        assert 0.2 <= values["density"] <= 1.0 and values["lambda"] <= 100.0
        # Five standard deviations.
        assert abs(math.log(values["weight of e0"])) < 5 * 0.15
        assert abs(values["density"] - 0.95) < 5 * 0.15 * 0.8
    assert len({values["weight of e0"] for values in seen}) == 50
    assert seen[0] == around([trial(1, 0.1, merge_method="ties", density=0.5, **{"lambda": 1.0}), best], space, 0)


@pytest.mark.parametrize("peak", [-0.3, 0.0, 0.4])
def test_a_parabola_peaks_where_it_does(peak):
    points = [(x, 2 - 3 * (x - peak) ** 2) for x in (-1.0, 0.25, 0.5)]
    assert parabola(*points) == pytest.approx(peak)


def test_a_line_has_no_peak():
    assert parabola((0.0, 1.0), (1.0, 2.0), (2.0, 3.0)) == 1.0
