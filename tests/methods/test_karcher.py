"""The Karcher mean from scalar products equals iterating on the vectors themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from rlmerge.methods.karcher import combination, mean_direction
from support.interpret import interpret


def on_the_sphere(vectors, steps):
    """The Karcher mean of directions at the mean length, iterated on the vectors in float64."""
    norms = np.linalg.norm(vectors, axis=1)
    unit = vectors / norms[:, None]
    mean = unit.sum(0) / np.linalg.norm(unit.sum(0))
    for _ in range(steps):
        logs = []
        for u in unit:
            angle = np.arccos(np.clip(u @ mean, -1, 1))
            logs.append((u - (u @ mean) * mean) * (angle / np.sin(angle) if angle > 1e-12 else 1))
        step = np.mean(logs, axis=0)
        size = np.linalg.norm(step)
        mean = np.cos(size) * mean + np.sinc(size / np.pi) * step
        mean /= np.linalg.norm(mean)
    return norms.mean() * mean


def test_the_middle_of_a_right_angle():
    # Unit vectors at 0 and 90 degrees meet at 45.
    np.testing.assert_allclose(interpret("karcher", None, [[1.0, 0.0], [0.0, 1.0]]), [np.sqrt(0.5)] * 2, rtol=1e-15)


def test_angles_in_a_plane_are_averaged():
    # 0, 30 and 90 degrees: the mean angle is 40, which the average of the vectors (38.8 degrees) is not.
    angles = np.radians([0, 30, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = interpret("karcher", None, vectors, max_iter=30, tol=0.0)
    assert np.degrees(np.arctan2(found[1], found[0])) == pytest.approx(40, abs=1e-9)
    start = interpret("karcher", None, vectors, max_iter=0)
    assert np.degrees(np.arctan2(start[1], start[0])) == pytest.approx(38.794, abs=1e-3)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_equals_iterating_on_vectors(count):
    vectors = np.random.default_rng(count).standard_normal((count, 40)) + 0.5
    merged = interpret("karcher", None, vectors, max_iter=20, tol=0.0)
    np.testing.assert_allclose(merged, on_the_sphere(vectors, 20), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [1e-2, 1e-5, 1e-8])
def test_fine_tunes_differ_from_the_average_by_the_square_of_the_angle_only(size):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal(500) + size * rng.standard_normal((3, 500))
    average = vectors.mean(0)
    found = interpret("karcher", None, vectors)
    assert np.abs(found - average).max() < 4 * size**2 + 1e-14  # and the rounding of sums of 500 products


def test_tolerance_stops_the_iterations():
    cosines = np.array([[1.0, 0.2, 0.1], [0.2, 1.0, 0.6], [0.1, 0.6, 1.0]])
    weight = np.full(3, 1 / 3)
    start = mean_direction(cosines, weight, 0, 0.0)
    np.testing.assert_array_equal(mean_direction(cosines, weight, 50, 10.0), start)
    assert np.abs(mean_direction(cosines, weight, 50, 1e-9) - start).max() > 1e-3


def test_opposite_directions_are_averaged_as_vectors():
    assert mean_direction(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([0.5, 0.5]), 10, 0.0) is None
    np.testing.assert_array_equal(interpret("karcher", None, [[2.0, 0.0], [-4.0, 0.0]]), [-1, 0])


def test_a_vector_without_length_counts_in_the_length_alone():
    np.testing.assert_allclose(interpret("karcher", None, [[3.0, 4.0], [0.0, 0.0]]), [1.5, 2.0], rtol=1e-15)
    np.testing.assert_array_equal(interpret("karcher", None, np.zeros((2, 3))), 0)


@given(arrays(np.float64, (3, 5), elements=st.integers(1, 9).map(float)), st.permutations(range(3)))
def test_the_order_of_experts_does_not_matter(vectors, order):
    merged = interpret("karcher", None, vectors)
    np.testing.assert_allclose(interpret("karcher", None, vectors[list(order)]), merged, rtol=1e-12)


@given(arrays(np.float64, 5, elements=st.integers(-9, 9).map(float)), st.integers(1, 4))
def test_equal_experts_stay(vector, count):
    for method in ("karcher", "multislerp"):
        np.testing.assert_allclose(interpret(method, None, [vector] * count), vector, rtol=1e-13)


def test_multislerp_is_the_average_direction_at_the_average_length():
    # Weights 1/4 and 3/4 of (2, 0) and (0, 4): direction (1, 3)/√10, length 0.5 + 3 = 3.5.
    merged = interpret("multislerp", None, [[2.0, 0.0], [0.0, 4.0]], weight=[1, 3])
    np.testing.assert_allclose(merged, 3.5 * np.array([1, 3]) / np.sqrt(10), rtol=1e-15)


def test_multislerp_without_normalized_weights_scales_the_length():
    merged = interpret("multislerp", None, [[2.0, 0.0], [0.0, 4.0]], weight=[1, 3], normalize_weights=False)
    np.testing.assert_allclose(merged, 14 * np.array([1, 3]) / np.sqrt(10), rtol=1e-15)


def test_multislerp_with_a_base_works_on_task_vectors():
    base = np.array([5.0, 7.0])
    merged = interpret("multislerp", base, [[7.0, 7.0], [5.0, 11.0]], weight=[1, 3])
    np.testing.assert_allclose(merged, base + 3.5 * np.array([1, 3]) / np.sqrt(10), rtol=1e-15)


def test_multislerp_refuses_weights_it_cannot_normalize():
    with pytest.raises(RequestError, match="normalize_weights"):
        merge_state_dicts(None, [{"w": np.ones(2, np.float32)}] * 2, "multislerp", weight=[1, -1])


def test_coefficients_reproduce_lengths():
    gram = np.array([[9.0, 0.0], [0.0, 16.0]])
    found = combination(gram, np.array([0.5, 0.5]), 10, 0.0)
    assert np.sqrt(found @ gram @ found) == pytest.approx(3.5, rel=1e-14)
