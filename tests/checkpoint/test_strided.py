import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.checkpoint import ArraySource
from rlmerge.checkpoint.source import Scratch
from rlmerge.checkpoint.strided import Strided
from rlmerge.kernels.dtypes import FLOAT32


def vector(count):
    return ArraySource("storage", FLOAT32, np.arange(count, dtype="<f4"), "memory")


def test_a_transposed_matrix():
    """2 × 3, element (i, j) at i + 2 j: 0 2 4 in the first row."""
    source = Strided("w", vector(6), 0, (2, 3), (1, 2))
    assert source.read().tolist() == [0, 2, 4, 1, 3, 5]
    assert source.read(1, 4).tolist() == [2, 4, 1]
    assert (source.name, source.dtype, source.shape) == ("w", FLOAT32, (2, 3))
    assert source.scratch == Scratch(0, 4)
    source.prefetch(1, 4)
    source.release(1, 4)


def test_its_fingerprint_is_that_of_its_values():
    source = Strided("w", vector(6), 0, (2, 3), (1, 2))
    written = ArraySource("w", FLOAT32, np.array([[0, 2, 4], [1, 3, 5]], "<f4"), "memory")
    assert source.fingerprint(True) == written.fingerprint(True)


def test_scalars_and_tensors_without_elements():
    assert Strided("s", vector(6), 4, (), ()).read().tolist() == [4]
    assert Strided("e", vector(6), 4, (0, 9), (9, 1)).read().size == 0


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(-1, (2,), (1,)), (0, (2,), (0,)), (0, (2,), (-1,)), (5, (2,), (1,)), (0, (2, 3), (4, 1)), (6, (), ())],
)
def test_what_leads_outside_of_the_storage(offset, shape, stride):
    with pytest.raises(ValueError, match="must"):
        Strided("w", vector(6), offset, shape, stride)


@given(st.data())
def test_any_view_of_an_array(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    whole = np.arange(math.prod(shape), dtype="<f4").reshape(shape)
    view = whole[tuple(slice(data.draw(st.integers(0, n)), None, data.draw(st.integers(1, 3))) for n in shape)]
    view = view.transpose(data.draw(st.permutations(range(len(shape)))))
    offset = (view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]) // 4
    steps = tuple(step // 4 for step in view.strides)
    source = Strided("w", vector(whole.size), offset, view.shape, steps)
    start = data.draw(st.integers(0, view.size))
    stop = data.draw(st.integers(start, view.size))
    np.testing.assert_array_equal(source.read(start, stop), view.reshape(-1)[start:stop])
