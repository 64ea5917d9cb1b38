import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

from rlmerge.kernels.dtypes import ALL, BFLOAT16, BY_CODE, BY_NAME, FLOAT16, FLOAT32, FLOAT64, MERGEABLE, decode

EVERY_WORD = np.arange(65536, dtype=np.uint16)


def test_the_safetensors_codes_and_their_sizes():
    sizes = {code: dtype.itemsize for code, dtype in BY_CODE.items()}
    assert sizes == {
        "BF16": 2, "F16": 2, "F32": 4, "F64": 8, "BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4,
        "U64": 8, "I64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    }  # fmt: skip
    assert len(BY_NAME) == len(BY_CODE) == len(ALL)
    assert all(dtype.storage.newbyteorder("<") == dtype.storage for dtype in ALL)  # files are little-endian


def test_only_float64_computes_in_float64():
    assert {d.name for d in MERGEABLE if d.arithmetic == np.float64} == {"float64"}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (0x3F80, 1.0), (0xC000, -2.0), (0x3F81, 1.0078125), (0x0001, 2.0**-133), (0x0080, 2.0**-126),
        (0x7F7F, 255 * 2.0**120), (0x7F80, np.inf),
    ],
)  # fmt: skip
def test_bfloat16_words_by_hand(word, value):
    assert decode(np.array([word], np.uint16), BFLOAT16)[0] == value


def test_every_bfloat16_word_decodes_as_in_ml_dtypes():
    expected = EVERY_WORD.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(decode(EVERY_WORD, BFLOAT16), expected)
    np.testing.assert_array_equal(np.signbit(decode(EVERY_WORD, BFLOAT16)), EVERY_WORD >= 0x8000)


def test_float16_decodes_to_float32_and_wide_types_are_not_copied():
    half = EVERY_WORD.view(np.float16)
    assert decode(half, FLOAT16).dtype == np.float32
    np.testing.assert_array_equal(decode(half, FLOAT16), half.astype(np.float64))
    for dtype in (FLOAT32, FLOAT64):
        array = np.ones(3, dtype.storage)
        assert decode(array, dtype) is array


@pytest.mark.parametrize("dtype", ALL, ids=lambda dtype: dtype.name)
def test_there_is_one_object_of_each_type(dtype):
    assert pickle.loads(pickle.dumps(dtype)) is dtype
    assert copy.deepcopy(dtype) is dtype
