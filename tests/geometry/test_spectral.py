import math

import numpy as np
import pytest

from rlmerge.geometry.spectral import ALPHA, compare, decompose, principal_angles


def low_rank(rng, shape, decay=0.8):
    left = np.linalg.qr(rng.standard_normal((shape[0], min(shape))))[0]
    right = np.linalg.qr(rng.standard_normal((shape[1], min(shape))))[0]
    return (left * decay ** np.arange(min(shape))) @ right.T


def test_a_diagonal_matrix_by_hand():
    before, after = np.diag([3.0, 2.0, 1.0]), np.diag([3.0, 2.0, 1.5])
    found = compare(before, decompose(before), after)
    assert found.nss == pytest.approx(0.5 / math.sqrt(14))
    assert found.angle_left == pytest.approx(0.0, abs=1e-6)
    assert found.stable_rank == pytest.approx(1.0)
    assert found.singular_values == pytest.approx((3.0, 2.0, 1.5))
    assert found.error == 0.0


def test_against_numpy():
    rng = np.random.default_rng(0)
    before = rng.standard_normal((50, 40))
    tau = rng.standard_normal((50, 40)) * (rng.random((50, 40)) < 0.2) * 0.05
    found = compare(before, decompose(before), before + tau)
    values = [np.linalg.svd(m, compute_uv=False) for m in (before, before + tau, tau)]
    assert found.nss == pytest.approx(np.linalg.norm(values[1] - values[0]) / np.linalg.norm(values[0]), rel=1e-10)
    assert found.stable_rank == pytest.approx(np.linalg.norm(tau) ** 2 / values[2][0] ** 2, rel=1e-9)
    left, s, right = np.linalg.svd(before)
    rebuilt = np.abs((left[:, :32] * s[:32]) @ right[:32])
    top = rebuilt >= np.sort(rebuilt.reshape(-1))[-round(ALPHA * 2000)]
    assert found.mask_overlap == pytest.approx(np.mean(top[tau != 0]))
    assert found.mask_chance == pytest.approx(ALPHA)


@pytest.mark.parametrize("angle", [1e-9, 1e-3, 0.7])
def test_angles_of_a_rotated_plane(angle):
    first = np.eye(5)[:, :1]
    second = np.array([[math.cos(angle)], [math.sin(angle)], [0], [0], [0]])
    assert principal_angles(first, second)[0] == pytest.approx(angle, rel=1e-6)


def test_randomised_decomposition_stays_within_its_bound():
    matrix = low_rank(np.random.default_rng(1), (200, 150))
    exact = np.linalg.svd(matrix, compute_uv=False)
    found = decompose(matrix, 10, exact=20)
    assert 0 < found.error < 1e-3
    assert np.abs(found.values - exact[:10]).max() <= found.error * exact[0]
    assert np.allclose(found.left.T @ found.left, np.eye(10), atol=1e-12)
    assert decompose(matrix, 10, exact=20).values.tolist() == found.values.tolist()


def test_an_unchanged_matrix_and_a_zero_matrix():
    matrix = np.random.default_rng(2).standard_normal((6, 4))
    found = compare(matrix, decompose(matrix), matrix)
    assert found.nss == 0.0
    assert math.isnan(found.stable_rank) and math.isnan(found.mask_overlap)
    zero = np.zeros((4, 4))
    assert math.isnan(compare(zero, decompose(zero), zero).nss)
