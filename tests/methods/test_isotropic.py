"""TSV-Merge and isotropic merging against full singular value decompositions, by hand, and at their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.interpret import interpret

METHODS = ["tsv", "iso_c", "iso_cts"]
SHAPES = [(12, 10), (9, 16)]


def changes(seed, count=3, shape=(12, 10)):
    return np.random.default_rng(seed).standard_normal((count, *shape))


def merged(name, tau, **options):
    return interpret(name, np.zeros(tau.shape[1:]), tau, **options)


def orthogonal(columns):
    left, _, right = np.linalg.svd(columns, full_matrices=False)
    return left @ right


def tsv(tau):
    """Leading 1/K of the rank of each, side by side, each side made orthogonal."""
    kept = int(min(tau.shape[1:]) / len(tau))
    parts = [np.linalg.svd(t, full_matrices=False) for t in tau]
    left = orthogonal(np.hstack([u[:, :kept] for u, _, _ in parts]))
    right = orthogonal(np.vstack([v[:kept] for _, _, v in parts]))
    return left * np.concatenate([s[:kept] for _, s, _ in parts]) @ right


def iso_cts(tau, fraction):
    less, experts = min(tau.shape[1:]), len(tau)
    own = round((less - int(less * fraction)) / experts)
    common = less - own * experts
    u, s, v = np.linalg.svd(tau.sum(0), full_matrices=False)
    left, sigma, right = [u[:, :common]], [s[:common]], [v[:common]]
    for t in tau:
        a, b, c = np.linalg.svd(t - left[0] @ left[0].T @ t, full_matrices=False)
        left.append(a[:, :own]), sigma.append(b[:own]), right.append(c[:own])
    return np.mean(np.concatenate(sigma)) * orthogonal(np.hstack(left)) @ orthogonal(np.vstack(right))


@pytest.mark.parametrize("shape", SHAPES)
def test_tsv_equals_its_steps(shape):
    tau = changes(0, shape=shape)
    np.testing.assert_allclose(merged("tsv", tau), tsv(tau), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_iso_c_is_the_mean_singular_value_times_the_polar_factor(shape):
    tau = changes(1, shape=shape)
    left, sigma, right = np.linalg.svd(tau.sum(0), full_matrices=False)
    np.testing.assert_allclose(merged("iso_c", tau), sigma.mean() * left @ right, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fraction", [0.3, 0.8, 1.0])
def test_iso_cts_equals_its_steps(shape, fraction):
    tau = changes(2, shape=shape)
    found = merged("iso_cts", tau, common_space_fraction=fraction)
    np.testing.assert_allclose(found, iso_cts(tau, fraction), rtol=0, atol=1e-9)


def test_iso_cts_with_everything_in_common_is_iso_c():
    tau = changes(3)
    found = merged("iso_cts", tau, common_space_fraction=1.0)
    np.testing.assert_allclose(found, merged("iso_c", tau), rtol=0, atol=1e-9)


def test_tsv_by_hand():
    """Two experts of rank 2 in 4 dimensions: each keeps two of four directions, and theirs are orthogonal."""
    tau = np.zeros((2, 4, 4))
    tau[0, 0, 1], tau[0, 1, 0], tau[1, 2, 2], tau[1, 3, 3] = 5, 3, 2, -7
    np.testing.assert_allclose(merged("tsv", tau), tau.sum(0), rtol=0, atol=1e-13)


def test_iso_c_by_hand():
    """Singular values 6 and 2 become 4 and 4."""
    tau = np.array([[[3.0, 0], [0, -1]], [[3.0, 0], [0, -1]]])
    np.testing.assert_allclose(merged("iso_c", tau), [[4, 0], [0, -4]], rtol=1e-14)


def test_directions_that_nobody_changed_stay_out():
    tau = np.zeros((2, 5, 5))
    tau[0, 0, 0], tau[1, 1, 1] = 4, 6
    # The mean of five singular values, 4, 6 and three of 0, is 2.
    np.testing.assert_allclose(merged("iso_c", tau), np.diag([2.0, 2, 0, 0, 0]), rtol=0, atol=1e-14)


def test_experts_with_disjoint_subspaces_add_up():
    """Each has a third of the rank, and rows and columns of its own, in bases that are not the coordinates'."""
    left, right = (np.linalg.qr(x)[0] for x in changes(4, count=2, shape=(12, 12)))
    tau = np.zeros((3, 12, 12))
    for k in range(3):
        block = slice(4 * k, 4 * k + 4)
        tau[k, block, block] = changes(5 + k, count=1, shape=(4, 4))[0]
    tau = left @ tau @ right
    np.testing.assert_allclose(merged("tsv", tau), tau.sum(0), rtol=0, atol=1e-10)


def test_an_expert_alone_comes_back_from_tsv():
    tau = changes(8, count=1)
    np.testing.assert_allclose(merged("tsv", tau), tau[0], rtol=0, atol=1e-10)


def test_equal_experts_come_back_at_the_rank_each_may_keep():
    tau = np.repeat(np.random.default_rng(9).standard_normal((1, 12, 3)) @ changes(10, 1, (3, 10)), 3, axis=0)
    # Directions that coincide share one: K copies of (U/√K) σ (V/√K)ᵀ.
    np.testing.assert_allclose(merged("tsv", tau), tau[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
@given(st.permutations(range(3)))
def test_the_order_of_experts_does_not_matter(name, order):
    tau = changes(11)
    np.testing.assert_allclose(merged(name, tau[list(order)]), merged(name, tau), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_the_merge_scales_with_the_changes(name):
    tau = changes(12)
    np.testing.assert_allclose(merged(name, 1e-6 * tau), 1e-6 * merged(name, tau), rtol=1e-7, atol=1e-15)
    np.testing.assert_allclose(merged(name, tau, weight=0.5, lam=2.0), merged(name, tau), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_other_tensors_are_averaged_and_nothing_stays_nothing(name):
    tau = changes(13, shape=(7,))
    np.testing.assert_allclose(merged(name, tau), tau.mean(0), rtol=1e-14)
    assert not merged(name, np.zeros((2, 4, 6))).any()
    row = changes(14, shape=(1, 9))
    np.testing.assert_allclose(merged(name, row), row.mean(0), rtol=1e-14)


def test_more_experts_than_the_rank_keep_one_direction_each():
    tau = changes(15, count=5, shape=(3, 8))
    assert np.isfinite(merged("tsv", tau)).all()
    assert np.isfinite(merged("iso_cts", tau)).all()
