"""Spherical interpolation against angles computed in float64, and where it is undefined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from rlmerge.methods.spherical import slerp_coefficients
from support.examples import BASE, fine_tunes, whole_deltas
from support.interpret import interpret, warnings_of


def arc(x, y, t):
    """Slerp by Shoemake's formula, for vectors with an angle between them."""
    cosine = np.vdot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * x + np.sin(t * angle) * y) / np.sin(angle)


def test_a_third_of_a_right_angle():
    # From (1, 0) to (0, 1) by 30 degrees: (cos 30°, sin 30°).
    merged = interpret("slerp", [1.0, 0.0], [[0.0, 1.0]], t=1 / 3)
    np.testing.assert_allclose(merged, [np.sqrt(3) / 2, 0.5], rtol=1e-15)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_slerp_follows_the_arc(seed, t):
    x, y = np.random.default_rng(seed).standard_normal((2, 6, 7))
    # θ₀ + s₁τ + (s₀ + s₁ − 1)θ₀ rounds a few times more than the formula itself.
    np.testing.assert_allclose(interpret("slerp", x, [y], t=t), arc(x, y, t), rtol=0, atol=1e-14)


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_almost_colinear_weights_are_interpolated_linearly(t):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(400)
    y = x + 0.01 * rng.standard_normal(400)
    np.testing.assert_allclose(interpret("slerp", x, [y], t=t), x + t * (y - x), rtol=0, atol=1e-15)
    assert "linear interpolation" in warnings_of("slerp", x, [y], t=t)[0]


def test_an_angle_worth_it_draws_no_warning():
    assert warnings_of("slerp", [1.0, 0.0], [[0.0, 1.0]]) == []


@pytest.mark.parametrize(("x", "y"), [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([0.0, 0.0], [0.0, 0.0])])
def test_a_vector_without_length_is_interpolated_linearly(x, y):
    expected = 0.75 * np.array(x) + 0.25 * np.array(y)
    np.testing.assert_array_equal(interpret("slerp", x, [y], t=0.25), expected)
    np.testing.assert_array_equal(interpret("nuslerp", None, [x, y], weight=[3, 1]), expected)


def test_opposite_weights_are_interpolated_linearly():
    np.testing.assert_array_equal(interpret("slerp", [2.0, 4.0], [[-2.0, -4.0]], t=0.25), [1, 2])
    np.testing.assert_array_equal(interpret("nuslerp", None, [[2.0, 4.0], [-2.0, -4.0]]), [0, 0])


@given(whole_deltas(1, limit=9), st.floats(0, 1))
def test_equal_weights_stay(tau, t):
    weights = BASE + tau[0]
    np.testing.assert_allclose(interpret("slerp", weights, [weights], t=t), weights, rtol=1e-14)
    # Two equal vectors whose cosine rounds to 1 or just below it: never 0/0.
    merged = interpret("nuslerp", None, [weights, weights], weight=[1 - t, t])
    np.testing.assert_allclose(merged, weights, rtol=1e-14)


def test_a_gram_matrix_with_a_cosine_just_below_one_has_no_pole():
    xx = 3.0
    for steps in range(4):
        first, second, _ = slerp_coefficients(np.array([xx, xx * (1 - steps * 2.0**-53), xx]), 0.5, 1.0)
        assert first == pytest.approx(0.5, abs=1e-7)
        assert second == pytest.approx(0.5, abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_nuslerp_of_weights_and_of_task_vectors(seed):
    base, x, y = np.random.default_rng(seed).standard_normal((3, 5, 8))
    weights = interpret("nuslerp", None, [x, y], weight=[1, 3])
    np.testing.assert_allclose(weights, arc(x, y, 0.75), rtol=0, atol=1e-14)
    deltas = interpret("nuslerp", base, [x, y], weight=[1, 3])
    np.testing.assert_allclose(deltas, base + arc(x - base, y - base, 0.75), rtol=0, atol=1e-14)


def test_nuslerp_row_by_row():
    x, y = np.random.default_rng(1).standard_normal((2, 3, 8))
    merged = interpret("nuslerp", None, [x, y], weight=[1, 1], nuslerp_flatten=False)
    np.testing.assert_allclose(merged, [arc(a, b, 0.5) for a, b in zip(x, y, strict=True)], rtol=0, atol=1e-14)


def test_weights_that_add_up_to_zero_meet_half_way():
    x, y = np.random.default_rng(2).standard_normal((2, 9))
    merged = interpret("nuslerp", None, [x, y], weight=[1, -1])
    np.testing.assert_allclose(merged, arc(x, y, 0.5), rtol=0, atol=1e-14)


def test_task_vectors_keep_coordinates_that_nobody_changed():
    base, found = fine_tunes(0, 2, (16, 32))
    merged = merge_state_dicts({"w": base}, [{"w": x} for x in found], "nuslerp")["w"]
    untouched = (found[0] == base) & (found[1] == base)
    assert np.count_nonzero(untouched) > 100
    np.testing.assert_array_equal(merged[untouched], base[untouched])


@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (9,), (4, 3, 2)])
def test_vectors_of_the_first_dimension_follow_their_own_arcs(shape, based):
    base, x, y = np.random.default_rng(1).standard_normal((3, *shape))
    options = {"nuslerp_flatten": False, "nuslerp_row_wise": True, "weight": [1.0, 3.0]}
    merged = interpret("nuslerp", base if based else None, [x, y], **options)
    first, second = (x - base, y - base) if based else (x, y)
    flat = [v.reshape(shape[0], -1) for v in (first, second)]
    expected = np.stack([arc(flat[0][:, j], flat[1][:, j], 0.75) for j in range(flat[0].shape[1])], axis=1)
    expected = expected.reshape(shape) + (base if based else 0)
    np.testing.assert_allclose(merged, expected, rtol=0, atol=1e-13)


def test_rows_along_the_last_dimension_are_columns_of_the_transposed():
    x, y = np.random.default_rng(2).standard_normal((2, 6, 4))
    columns = interpret("nuslerp", None, [x, y], nuslerp_flatten=False, nuslerp_row_wise=True)
    rows = interpret("nuslerp", None, [x.T, y.T], nuslerp_flatten=False)
    np.testing.assert_allclose(columns, rows.T, rtol=0, atol=1e-14)


@pytest.mark.parametrize("count", [1, 3])
def test_nuslerp_takes_two_models(count):
    with pytest.raises(RequestError, match="2"):
        merge_state_dicts(None, [{"w": np.ones(2, np.float32)}] * count, "nuslerp")
