from itertools import pairwise
from math import erf, sqrt

import numpy as np
import pytest

from rlmerge.checkpoint import ArraySource
from rlmerge.checkpoint.compose import Renamed
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32, FLOAT64
from rlmerge.moe.noise import Adjusted, adjusted, normal


def source(values, dtype=FLOAT32):
    return ArraySource("w", dtype, np.asarray(values, dtype.storage), "model")


def test_nothing_to_do_keeps_the_bits():
    found = adjusted(source([[1.5, np.nan]]), "v", 1.0, 0.0, (0,))
    assert type(found) is Renamed
    assert found.name == "v"


def test_scale_by_hand():
    found = adjusted(source([[1.0, -2.0], [0.5, 4.0]]), "v", 0.25, 0.0, (0,))
    assert (found.shape, found.dtype) == ((2, 2), FLOAT32)
    assert found.read().tolist() == [0.25, -0.5, 0.125, 1.0]
    # 0x3F80 and 0xC000 are 1 and -2 in bfloat16
    assert adjusted(source([0x3F80, 0xC000], BFLOAT16), "v", 3.0, 0.0, (0,)).read().tolist() == [3.0, -6.0]
    assert adjusted(source([1.0], FLOAT64), "v", 0.1, 0.0, (0,)).read().tolist() == [0.1]


def test_noise_is_scaled_too():
    """What the block adds is scaled as a whole: 2 * (w + 0.5 n)."""
    noise = normal((7, "x"), 0, 3)
    found = Adjusted(source([1.0, 2.0, 3.0], FLOAT64), "v", 2.0, 0.5, (7, "x")).read()
    np.testing.assert_allclose(found, 2 * (np.array([1.0, 2, 3]) + 0.5 * noise), rtol=1e-15)


@pytest.mark.parametrize("cuts", [[0, 100], [0, 1, 50, 99, 100], [0, 33, 66, 100]])
def test_ranges_do_not_matter(cuts):
    found = Adjusted(source(np.arange(100.0)), "v", 1.5, 0.25, (1,))
    pieces = [found.read(a, b) for a, b in pairwise(cuts)]
    assert np.array_equal(np.concatenate(pieces), found.read())


def test_the_noise_is_normal():
    numbers = normal((3,), 10, 20000)
    expected = np.array([0.5 * (1 + erf(x / sqrt(2))) for x in np.sort(numbers)])
    # Kolmogorov and Smirnov: 2.2 / sqrt(n) is passed by one sample of normal numbers in ten thousand
    assert np.abs(expected - (np.arange(20000) + 0.5) / 20000).max() < 2.2 / sqrt(20000)
    assert not np.array_equal(numbers, normal((4,), 10, 20000))
    assert np.array_equal(numbers[5:], normal((3,), 15, 19995))


def test_fingerprints_tell_settings_apart():
    of = source([1.0])
    found = {
        Adjusted(of, "v", s, n, (k,)).fingerprint(True) for s, n, k in [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 1, 1)]
    }
    assert len(found) == 4
