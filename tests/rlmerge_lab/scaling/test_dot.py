"""Inner products by hand and against NumPy."""

import math

import numpy as np
import pytest

from rlmerge_lab.scaling.dot import cosine, dot, norm


def test_by_hand():
    a, b = np.array([3.0, 4.0]), np.array([4.0, -3.0])
    assert (dot(a, a), norm(a), dot(a, b), cosine(a, b), cosine(a, -2 * a)) == (25, 5, 0, 0, -1)


def test_zero_has_no_direction():
    assert math.isnan(cosine(np.zeros(2), np.ones(2)))


def test_equals_numpy():
    a, b = np.random.default_rng(0).normal(size=(2, 1001))
    assert dot(a, b) == pytest.approx(np.dot(a, b))
