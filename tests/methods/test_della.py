"""DELLA: ranks by hand and by counting, probabilities that follow them, and what dropping must keep on average."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.kernels.random import stream_key, uniform
from rlmerge.methods.della import keep_probability, mean_ranks
from support.examples import BASE, TAU, experts, whole_deltas
from support.interpret import interpret, statistics_of

ROWS = np.array([[0.0, 4.0, 1.0, 2.0], [3.0, 3.0, 0.0, 7.0], [0.0, 5.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]])


def by_counting(size, counted):
    """Mean rank of each counted entry as a share: how many in its row are smaller, and half of the equal others."""
    share = np.full(size.shape, 0.5)
    for row, column in zip(*np.nonzero(counted), strict=True):
        others = size[row][counted[row]]
        if len(others) > 1:
            smaller, equal = np.sum(others < size[row, column]), np.sum(others == size[row, column])
            share[row, column] = (smaller + (equal - 1) / 2) / (len(others) - 1)
    return share


def probabilities(tau, density, epsilon, rank_nonzero=True):
    """What the method keeps entries with, by ranks from counting."""
    rank = np.stack([by_counting(np.abs(d), (d != 0) | (not rank_nonzero)) for d in tau])
    return density + epsilon * (2 * rank - 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ranks_by_hand(dtype):
    ranks = mean_ranks(ROWS.astype(dtype), ROWS > 0)
    # 1 < 2 < 4; the equal 3s share ranks 0 and 1 of 2; an only entry and equal ones are in the middle.
    expected = [[0.5, 1, 0, 0.5], [0.25, 0.25, 0.5, 1], [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]
    np.testing.assert_array_equal(ranks, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(arrays(np.int64, (3, 7), elements=st.integers(0, 4)), st.booleans())
def test_ranks_equal_counting(dtype, numbers, all_entries):
    size = numbers.astype(dtype) / 3
    counted = (size > 0) | all_entries
    np.testing.assert_allclose(mean_ranks(size, counted), by_counting(size, counted), rtol=1e-15)


def test_both_ways_of_sorting_agree_on_a_row_of_any_length():
    size = np.abs(np.random.default_rng(0).standard_normal((3, 5000)).astype(np.float32))
    counted = np.ones(size.shape, bool)
    np.testing.assert_array_equal(mean_ranks(size, counted), mean_ranks(size.astype(np.float64), counted))


def keep(tau, density, epsilon, rank_nonzero=True):
    count = len(tau)
    spread = {"density": np.full((count, 1, 1), density), "epsilon": np.full((count, 1, 1), epsilon)}
    return keep_probability(NumpyNamespace(np.float64), None, tau, **spread, rank_nonzero=rank_nonzero)


def test_probabilities_run_from_density_minus_to_density_plus_epsilon():
    found = keep(ROWS[None], 0.5, 0.2)[0]
    np.testing.assert_allclose(found[0], [0.5, 0.7, 0.3, 0.5])  # of 4, 1, 2 the largest has 0.7, the smallest 0.3
    np.testing.assert_allclose(found[1], [0.4, 0.4, 0.5, 0.7])


def test_ranking_zeros_too_lifts_every_change():
    # Of (0, 5, 0, 0) the 5 ranks last of four; mergekit counts this way.
    np.testing.assert_allclose(keep(ROWS[None], 0.5, 0.2, rank_nonzero=False)[0, 2, 1], 0.7)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_without_a_choice_epsilon_has_no_effect(density):
    np.testing.assert_array_equal(keep(ROWS[None], density, 0.3), density)


@pytest.mark.parametrize(("method", "partner"), [("della", "ties"), ("della_linear", "task_arithmetic")])
@given(tau=whole_deltas())
def test_density_one_drops_nothing(method, partner, tau):
    np.testing.assert_array_equal(
        interpret(method, BASE, experts(BASE, tau)), interpret(partner, BASE, experts(BASE, tau))
    )


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_density_zero_gives_the_base(method):
    np.testing.assert_array_equal(interpret(method, BASE, experts(BASE, TAU), density=0.0), BASE)


def test_kept_entries_are_divided_by_their_own_probability():
    found = interpret("della_linear", BASE, experts(BASE, TAU), density=0.5, epsilon=0.3)
    p = probabilities(TAU, 0.5, 0.3)
    draws = np.stack([uniform(stream_key(0, "uniform", k, "w"), 0, 16, np.float64).reshape(4, 4) for k in range(3)])
    np.testing.assert_allclose(found, BASE + np.where(draws < p, TAU / p, 0).sum(0), rtol=1e-14)


def test_the_expectation_is_the_task_vector():
    tau = np.random.default_rng(0).permuted(np.tile(np.arange(1.0, 101), (400, 1)), axis=1)[None]
    merged = interpret("della_linear", np.zeros(tau[0].shape), tau, density=0.5, epsilon=0.3)
    # Each of 400 rows holds 1 … 100, whose variance after dropping is x²(1 − p)/p.
    p = probabilities(tau, 0.5, 0.3)
    assert abs(merged.sum() - tau.sum()) < 5 * np.sqrt((tau**2 * (1 - p) / p).sum())


def test_large_changes_stay_more_often():
    tau = np.tile(np.arange(1.0, 11), (4000, 1))[None]
    kept = interpret("della_linear", np.zeros(tau[0].shape), tau, density=0.5, epsilon=0.4) != 0
    # 4000 draws with probability p: 5 standard deviations.
    expected = 0.5 + 0.4 * (2 * np.arange(10) / 9 - 1)
    assert np.all(np.abs(kept.mean(0) - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000))


def test_l1_restores_the_norm():
    values = statistics_of("della", BASE, experts(BASE, TAU), density=0.5, rescale="l1")
    before, after = values["norms"].reshape(2, 3)
    np.testing.assert_array_equal(before, np.abs(TAU).sum((1, 2)))
    np.testing.assert_array_equal(values["scale"], np.where(after > 0, before / np.where(after > 0, after, 1), 1))


@pytest.mark.parametrize(("density", "epsilon"), [(0.9, 0.15), (0.1, 0.2)])
def test_probabilities_outside_the_unit_interval_are_refused(density, epsilon):
    model = {"w": np.zeros((2, 2), np.float32)}
    with pytest.raises(RequestError, match=r"epsilon can be at most 0\.1"):
        merge_state_dicts(model, [model], "della", density=density, epsilon=epsilon)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (0, 4), (3, 1)])
def test_tensors_of_any_shape(shape):
    base, expert = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    found = merge_state_dicts({"w": base}, [{"w": expert}], "della_linear", density=0.5)["w"]
    assert found.shape == shape
    assert np.isin(found, [0, 2]).all()
