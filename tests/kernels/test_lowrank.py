"""The low-rank product: by hand, against float64, and with the same bits however it is cut, strided or compiled."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.kernels import compiler, lowrank
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, decode
from rlmerge.kernels.lowrank import add_product
from rlmerge.kernels.rounding import encode

F32 = (FLOAT32, FLOAT32, FLOAT32)
TYPES = [
    F32,
    (BFLOAT16, FLOAT32, FLOAT32),
    (BFLOAT16, BFLOAT16, BFLOAT16),
    (FLOAT16, FLOAT32, FLOAT16),
    (FLOAT64, FLOAT32, BFLOAT16),
    (FLOAT64, FLOAT64, FLOAT64),
]


def matrices(rows, rank, cols, types=F32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((rows * cols,), (rows, rank), (rank, cols))
    return [encode(rng.standard_normal(shape), dtype) for shape, dtype in zip(shapes, types, strict=True)]


def product(ground, left, right, scale=0.75, types=F32):
    out = np.empty(len(ground), types[0].arithmetic)
    add_product(ground, left, right, scale, types, out)
    return out


def test_by_hand():
    """[[1,2],[3,4]] + ½·[1; −2]·[10, 20] = [[6, 12], [−7, −16]]."""
    ground = np.array([1, 2, 3, 4], np.float32)
    left, right = np.array([[1], [-2]], np.float32), np.array([[10, 20]], np.float32)
    assert product(ground, left, right, 0.5).tolist() == [6, 12, -7, -16]


def test_the_order_of_the_sum_is_that_of_the_inner_index():
    """2²⁴ + 1 is 2²⁴ in float32, so (2²⁴ + 1) − 2²⁴ is 0; any other order of these three gives 1."""
    left = np.array([[2.0**24, 1, -(2.0**24)]], np.float32)
    right = np.ones((3, 40), np.float32)
    assert product(np.zeros(40, np.float32), left, right, 1.0).tolist() == [0.0] * 40


@pytest.mark.parametrize("types", TYPES, ids=lambda types: "-".join(dtype.name for dtype in types))
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 15), (4, 5, 16), (9, 8, 53), (5, 33, 64), (2, 1, 3), (0, 3, 4)])
def test_numpy_has_the_same_bits_and_float64_is_near(types, shape, monkeypatch):
    ground, left, right = matrices(*shape, types)
    compiled = product(ground, left, right, types=types)
    by_numpy = np.empty_like(compiled)
    lowrank._with_numpy(ground, left, right, 0.75, types, by_numpy)
    assert compiled.tobytes() == by_numpy.tobytes()
    g, a, b = (decode(x, t).astype(np.float64) for x, t in zip((ground, left, right), types, strict=True))
    exact = g + (0.75 * (a @ b)).reshape(-1)
    # r products, r sums, the scale and the last sum round once each, relative to the sum of magnitudes.
    bound = (np.abs(g) + (0.75 * (np.abs(a) @ np.abs(b))).reshape(-1)) * (2 * shape[1] + 2)
    unit = np.finfo(compiled.dtype).eps / 2
    assert np.all(np.abs(compiled - exact) <= bound * unit * 1.01)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_bits_do_not_depend_on_the_rectangle(data):
    rows, rank, cols = (data.draw(st.integers(1, limit)) for limit in (12, 9, 70))
    ground, left, right = matrices(rows, rank, cols, seed=data.draw(st.integers(0, 99)))
    whole = product(ground, left, right).reshape(rows, cols)
    top, bottom = sorted(data.draw(st.tuples(*[st.integers(0, rows)] * 2)))
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, cols)] * 2)))
    part = np.ascontiguousarray(ground.reshape(rows, cols)[top:bottom, first:last]).reshape(-1)
    cut = product(part, left[top:bottom], right[:, first:last])
    assert cut.tobytes() == whole[top:bottom, first:last].tobytes()


def test_the_left_factor_may_be_strided():
    ground, left, right = matrices(7, 3, 20)
    padded = np.zeros((14, 9), np.float32)
    padded[::2, ::3] = left
    expected = product(ground, left, right)
    assert product(ground, padded[::2, ::3], right).tobytes() == expected.tobytes()
    assert product(ground, np.asfortranarray(left), right).tobytes() == expected.tobytes()


def test_threads_have_the_same_bits():
    ground, left, right = matrices(33, 6, 77, (BFLOAT16, FLOAT32, FLOAT32))
    types = (BFLOAT16, FLOAT32, FLOAT32)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: product(ground, left, right, types=types).tobytes(), range(16)))
    assert len(found) == 1


def test_infinity_goes_through():
    ground, left, right = matrices(2, 2, 3)
    left[0, 0] = np.inf
    out = product(ground, left, right)
    assert not np.isfinite(out[:3]).any() and np.isfinite(out[3:]).all()


def test_a_processor_without_float16_uses_numpy(monkeypatch):
    types = (FLOAT16, FLOAT32, FLOAT32)
    ground, left, right = matrices(3, 2, 18, types)
    expected = product(ground, left, right, types=types)
    monkeypatch.setattr(lowrank, "_compiled", {})
    monkeypatch.setattr(lowrank, "find_host", lambda: compiler.Host("generic", "", False))
    assert product(ground, left, right, types=types).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda g, l, r: (g[:-1], l, r),
        lambda g, l, r: (g, l[:, :1], r),
        lambda g, l, r: (g, l, r.astype(np.float64)),
        lambda g, l, r: (g, l, np.asfortranarray(r)),
        lambda g, l, r: (np.repeat(g, 2)[::2], l, r),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change):
    ground, left, right = change(*matrices(4, 2, 5))
    with pytest.raises(ValueError, match="fit together"):
        add_product(ground, left, right, 1.0, F32, np.empty(20, np.float32))
