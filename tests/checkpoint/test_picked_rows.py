import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.checkpoint import ArraySource, open_checkpoint
from rlmerge.checkpoint.picked_rows import MIX, NO_MIXES, PADDING, ZERO, Mixes, PickedRows, Rows
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BFLOAT16, BY_NAME, FLOAT16, FLOAT32, FLOAT64
from support.models import write_model


def source(values, dtype=FLOAT32, name="embed"):
    array = np.asarray(values)
    if dtype is BFLOAT16:
        array = array.astype(ml_dtypes.bfloat16).view(np.uint16)
    return ArraySource(name, dtype, array.astype(dtype.storage), "model")


def rows(table, row, mixes=NO_MIXES):
    return Rows(np.array(table, np.int16), np.array(row, np.int32), mixes)


def mixes(*terms, divisors):
    """Each mix as a list of (table, row, weight)."""
    flat = [term for mix in terms for term in mix]
    start = np.cumsum([0, *(len(mix) for mix in terms)])
    table, row, weight = (np.array([term[i] for term in flat]) for i in range(3))
    return Mixes(start, table, row, weight.astype(float), np.array(divisors, float))


A = source([[0, 1], [2, 3], [4, 5], [6, 7]])
B = source([[10, 20], [30, 40]])


def test_rows_in_another_order_from_two_tables():
    picked = PickedRows(A, [A, B], rows([0, 1, 0, 0, 1], [3, 0, 1, 2, 1]))
    assert picked.shape == (5, 2)
    assert picked.read().reshape(5, 2).tolist() == [[6, 7], [10, 20], [2, 3], [4, 5], [30, 40]]
    assert (picked.name, picked.dtype, picked.where) == ("embed", FLOAT32, "model: embed")


def test_zeros_mixes_and_padding():
    half = mixes([(0, 0, 1.0), (1, 1, 1.0)], [(0, 3, 0.5), (0, 1, -2.0)], divisors=[2.0, 1.0])
    picked = PickedRows(A, [A, B], rows([0, ZERO, MIX, PADDING, MIX], [1, 0, 0, 0, 1], half))
    # mixes: ((0, 1) + (30, 40)) / 2 and (6, 7) / 2 - 2 (2, 3); padding: the mean of the other four
    expected = np.array([[2, 3], [0, 0], [15, 20.5], [0, 0], [-1, -2.5]])
    expected[3] = expected[[0, 1, 2, 4]].mean(axis=0)
    assert picked.read().reshape(5, 2).tolist() == expected.tolist()


def test_one_dimension():
    bias = source([1, 2, 3], name="lm_head.bias")
    picked = PickedRows(bias, [bias], rows([0, ZERO, 0, PADDING], [2, 0, 0, 0]))
    assert picked.shape == (4,)
    assert picked.read().tolist() == [3, 0, 1, np.float32(4 / 3)]


def test_copies_keep_their_bits_and_their_type():
    values = np.array([[1.1, -0.0], [np.nan, 3e38]])
    table = source(values, BFLOAT16)
    picked = PickedRows(table, [table], rows([0, ZERO, 0], [1, 0, 0]))
    assert picked.dtype is BFLOAT16
    stored = table.read().reshape(2, 2)
    assert picked.read().reshape(3, 2).tolist() == [stored[1].tolist(), [0, 0], stored[0].tolist()]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([BFLOAT16, BFLOAT16], FLOAT32),
        ([FLOAT16, FLOAT16], FLOAT32),
        ([FLOAT64, FLOAT64], FLOAT64),
        ([BFLOAT16, FLOAT64], FLOAT64),
    ],
)
def test_what_is_computed_is_wide_and_thought_to_be_stored_as_the_models(types, expected):
    one, two = (source([[0.1, 0.3]], dtype) for dtype in types)
    picked = PickedRows(one, [one, two], rows([0, 1, MIX], [0, 0, 0], mixes([(0, 0, 1), (1, 0, 1)], divisors=[2])))
    assert picked.dtype is expected
    assert picked.nominal is types[0]


def test_mixed_types_without_computation_are_widened():
    one, two = source([[0.1, 0.3]], BFLOAT16), source([[0.5, 0.25]], FLOAT16)
    picked = PickedRows(one, [one, two], rows([0, 1], [0, 0]))
    assert picked.dtype is FLOAT32
    narrow = np.array([0.1, 0.3], ml_dtypes.bfloat16).astype(np.float32)
    assert picked.read().tolist() == [*narrow.tolist(), 0.5, 0.25]


def test_a_mix_is_summed_in_float32_in_order():
    one, two = source([[1e8, 1.0]]), source([[1.0, 1.0], [-1e8, 1.0]])
    three = mixes([(0, 0, 1), (1, 0, 1), (1, 1, 1)], divisors=[3])
    picked = PickedRows(one, [one, two], rows([MIX], [0], three))
    # In float32 1e8 + 1 is 1e8 again, so that nothing is left of the first column.
    assert picked.read().tolist() == [0.0, 1.0]


def test_padding_is_summed_in_float64():
    table = source(np.concatenate([[[1e8]], np.ones((1000, 1)), [[-1e8]]]))
    picked = PickedRows(table, [table], rows([0] * 1002 + [PADDING], [*range(1002), 0]))
    assert picked.read()[-1] == np.float32(1000 / 1002)


def test_padding_between_rows_counts_for_nothing():
    picked = PickedRows(A, [A], rows([0, PADDING, 0, PADDING, 0], [3, 0, 1, 0, 2]))
    assert picked.read().reshape(5, 2)[[1, 3]].tolist() == [[4, 5], [4, 5]]


def test_only_padding_is_zero():
    picked = PickedRows(A, [A], rows([PADDING], [0]))
    assert picked.read().tolist() == [0, 0]


picks = st.lists(st.sampled_from([0, 0, 0, 1, ZERO, MIX, PADDING]), min_size=1, max_size=40)


@given(picks, st.integers(1, 5), st.data())
def test_any_range_has_the_bits_of_the_whole(table, width, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    one, two = source(rng.standard_normal((7, width))), source(rng.standard_normal((3, width)))
    limits = {0: 7, 1: 3, MIX: 4}
    row = [data.draw(st.integers(0, limits[k] - 1)) if k in limits else 0 for k in table]
    blend = mixes(*([(0, i, 0.3), (1, i % 3, -1.7)] for i in range(4)), divisors=[1, 2, 3, 4])
    picked = PickedRows(one, [one, two], rows(table, row, blend))
    whole = picked.read()
    start = data.draw(st.integers(0, picked.numel))
    stop = data.draw(st.integers(start, picked.numel))
    fresh = PickedRows(one, [one, two], rows(table, row, blend))
    fresh.prefetch(start, stop)
    assert fresh.read(start, stop).tobytes() == whole[start:stop].tobytes()
    fresh.release(start, stop)
    # An independent reference: float64, which differs by less than a few steps of float32.
    a, b = (x.read().reshape(-1, width).astype(np.float64) for x in (one, two))
    expected = np.zeros((len(table), width))
    for i, (k, r) in enumerate(zip(table, row, strict=True)):
        if k in (0, 1):
            expected[i] = (a, b)[k][r]
        elif k == MIX:
            expected[i] = (0.3 * a[r] - 1.7 * b[r % 3]) / (r + 1)
    others = [i for i, k in enumerate(table) if k != PADDING]
    for i, k in enumerate(table):
        if k == PADDING and others:
            expected[i] = expected[others].mean(axis=0)
    np.testing.assert_allclose(whole.reshape(-1, width), expected, rtol=1e-6, atol=1e-6)


def test_many_threads_agree():
    table = source(np.random.default_rng(0).standard_normal((500, 16)))
    picked = PickedRows(table, [table], rows([0] * 500 + [PADDING] * 20, [*range(499, -1, -1), *[0] * 20]))
    found = []
    threads = [threading.Thread(target=lambda: found.append(picked.read().tobytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_files_and_ranges_outside(tmp_path):
    model = open_checkpoint(write_model(tmp_path / "m", {"a": np.ones((2, 2)), "b": np.ones((2, 2))}))
    a, b = model.tensors["a"], model.tensors["b"]
    picked = PickedRows(a, [a, b], rows([0, 1], [0, 0]))
    assert picked.files == a.files
    with pytest.raises(ValueError, match="not a range of the 4 elements of a"):
        picked.read(0, 5)
    assert picked.read(2, 2).tolist() == []


def test_fingerprints_tell_tables_and_mappings_apart():
    def print_of(own, mapping):
        return PickedRows(own, [own, B], mapping).fingerprint(True)

    first = print_of(A, rows([0, 1], [0, 1]))
    assert first == print_of(A, rows([0, 1], [0, 1]))
    assert first != print_of(A, rows([0, 1], [1, 1]))
    assert first != print_of(A, rows([1, 1], [0, 1]))
    assert first != print_of(source([[9, 1], [2, 3], [4, 5], [6, 7]]), rows([0, 1], [0, 1]))
    one = mixes([(0, 0, 1.0)], divisors=[1.0])
    two = mixes([(0, 0, 1.0)], divisors=[2.0])
    assert print_of(A, rows([MIX], [0], one)) != print_of(A, rows([MIX], [0], two))


def test_scratch_covers_the_result():
    picked = PickedRows(A, [A], rows([0, PADDING], [0, 0]))
    assert picked.scratch.per_element >= 4
    assert picked.scratch.fixed >= 8 * 65536


def test_tables_of_another_width():
    with pytest.raises(CheckpointError, match=r"has rows of shape \[3\], but model: embed has \[2\]"):
        PickedRows(A, [A, source([[1, 2, 3]])], rows([0, 1], [0, 0]))


def test_quantised_tables_can_be_picked_from_but_not_computed_with():
    packed = ArraySource("embed", BY_NAME["float8_e4m3fn"], np.array([[1, 2], [3, 4]], np.uint8), "model")
    assert PickedRows(packed, [packed], rows([0, 0], [1, 0])).read().tolist() == [3, 4, 1, 2]
    with pytest.raises(CheckpointError, match="is stored as float8_e4m3fn"):
        PickedRows(packed, [packed], rows([0, PADDING], [0, 0]))
