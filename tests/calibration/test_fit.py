import numpy as np
import pytest

pytest.importorskip("torch")

from rlmerge.calibration.fit import minimise

CENTRE = np.array([[1.0, -2.0], [0.5, 3.0]])
SCALE = np.array([[1.0, 100.0], [0.1, 5.0]])


def bowl(values):
    """Σ s (c − centre)², with slopes a thousand times steeper one way than another."""
    return float(np.sum(SCALE * (values - CENTRE) ** 2)), 2 * SCALE * (values - CENTRE)


def test_finds_the_bottom_of_a_bowl():
    found = minimise(bowl, np.zeros((2, 2)), 50)
    began = bowl(np.zeros((2, 2)))[0]
    # The search rests where a step changes the objective by less than 1e-5 of what it began with.
    assert found.objective < 1e-4 * began and found.converged
    # So a coefficient of curvature s is off by at most sqrt(1e-4 · began / s).
    assert np.all(np.abs(found.values - CENTRE) <= np.sqrt(1e-4 * began / SCALE))
    assert found.history[0] == began and min(found.history) == found.objective


def test_the_ridge_draws_to_the_start():
    """min s (c − 1)² + r (c − 0)² is at s / (s + r)."""
    start = np.zeros((1, 1))
    found = minimise(lambda c: (float(3 * (c[0, 0] - 1) ** 2), 6 * (c - 1)), start, 50, ridge=1.0)
    np.testing.assert_allclose(found.values, [[0.75]], atol=1e-4)
    assert found.objective == pytest.approx(3 / 4, abs=1e-4)


def test_never_returns_worse_than_the_start():
    """A slope that lies leads uphill everywhere."""
    found = minimise(lambda c: (float(np.sum(c**2)), -2 * c), np.full((1, 2), 0.5), 5)
    np.testing.assert_array_equal(found.values, [[0.5, 0.5]])
    assert found.objective == 0.5


def test_stops_when_told():
    found = minimise(bowl, np.zeros((2, 2)), 1)
    assert not found.converged and len(found.history) <= 3
