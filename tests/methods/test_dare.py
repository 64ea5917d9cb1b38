"""DARE against masks drawn outside the engine, and what dropping at random must keep on average."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.kernels.random import stream_key, uniform
from support.examples import BASE, TAU, experts, whole_deltas
from support.interpret import interpret, statistics_of


def masks(count, n, density, seed=0, tensor="w"):
    """Which entries stay, from the documented streams: seed, purpose, expert, tensor name, flat index."""
    draws = [uniform(stream_key(seed, "uniform", k, tensor), 0, n, np.float64) for k in range(count)]
    return np.stack(draws) < density


def test_kept_changes_are_divided_by_the_density():
    merged = interpret("dare_linear", BASE, experts(BASE, TAU), density=0.5)
    kept = masks(3, 16, 0.5).reshape(TAU.shape)
    assert 0 < np.count_nonzero(kept & (TAU != 0)) < np.count_nonzero(TAU)
    np.testing.assert_array_equal(merged, BASE + 2 * np.where(kept, TAU, 0).sum(0))


def test_rescale_none_leaves_kept_changes_alone():
    merged = interpret("dare_linear", BASE, experts(BASE, TAU), density=0.5, rescale="none")
    np.testing.assert_array_equal(merged, BASE + np.where(masks(3, 16, 0.5).reshape(TAU.shape), TAU, 0).sum(0))


def test_rescale_l1_restores_the_norm_of_each_task_vector():
    scale = statistics_of("dare_linear", BASE, experts(BASE, TAU), density=0.5, rescale="l1")["scale"]
    kept = np.where(masks(3, 16, 0.5).reshape(TAU.shape), TAU, 0)
    before, after = np.abs(TAU).sum((1, 2)), np.abs(kept).sum((1, 2))
    # Small whole numbers: both norms are exact. A vector of which nothing is left is left alone.
    np.testing.assert_array_equal(scale, np.where(after > 0, before / np.maximum(after, 1), 1))


def test_dare_ties_adds_only_what_agrees_with_the_elected_sign():
    merged = interpret("dare_ties", BASE, experts(BASE, TAU), density=0.5)
    kept = 2 * np.where(masks(3, 16, 0.5).reshape(TAU.shape), TAU, 0)
    sign = np.where(kept.sum(0) >= 0, 1, -1)
    np.testing.assert_array_equal(merged, BASE + np.where(kept * sign > 0, kept, 0).sum(0))


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_the_expectation_is_the_task_vector(method):
    n, density = 40_000, 0.3
    merged = interpret(method, np.zeros(n), [np.ones(n)], density=density)
    # The mean of n entries that are 1/p with probability p has standard deviation sqrt((1 − p)/(p n)).
    assert abs(merged.mean() - 1) < 5 * np.sqrt((1 - density) / (density * n))


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@given(tau=whole_deltas())
def test_density_one_drops_nothing(method, tau):
    partner = {"dare_linear": "task_arithmetic", "dare_ties": "ties"}[method]
    options = {"normalize": False}
    expected = interpret(partner, BASE, experts(BASE, tau), **options)
    for rescale in ("inverse", "l1", "none"):
        merged = interpret(method, BASE, experts(BASE, tau), density=1.0, rescale=rescale, **options)
        np.testing.assert_array_equal(merged, expected)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("rescale", ["inverse", "l1", "none"])
def test_density_zero_gives_the_base(method, rescale):
    merged = interpret(method, BASE, experts(BASE, TAU), density=0.0, rescale=rescale)
    np.testing.assert_array_equal(merged, BASE)


@given(st.integers(0, 2**31), st.sampled_from([0.2, 0.7]))
def test_every_expert_of_its_own_has_its_own_mask(seed, density):
    first, second = masks(2, 4096, density, seed)
    # Independent masks agree with probability p² + q²: 6 standard deviations around it.
    chance = density**2 + (1 - density) ** 2
    assert abs((first == second).mean() - chance) < 6 * np.sqrt(chance * (1 - chance) / 4096)


def test_the_mask_depends_on_seed_and_tensor_name():
    base, expert = np.zeros(64), [np.ones(64)]
    found = {
        interpret("dare_linear", base, expert, density=0.5, seed=seed, tensor=name).tobytes()
        for seed in (0, 1)
        for name in ("a", "b")
    }
    assert len(found) == 4


def test_mergekit_compatibility_keeps_the_l1_norm():
    expert = [np.arange(1.0, 101)]
    merged = interpret("dare_linear", np.zeros(100), expert, density=0.3, compat=True)
    # 100 summands of relative rounding 2^-53.
    assert np.abs(merged).sum() == pytest.approx(5050, rel=1e-14)
