"""Every operation of the namespace on every pair of awkward numbers: compiled code has NumPy's bits."""

import numpy as np
import pytest

from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, MERGEABLE
from rlmerge.kernels.emit import Emitter, storage_type
from rlmerge.kernels.program import Operands, merge_kernel

from .tiles import SPECIAL, on_numpy, same, store, unaligned, widest

NUMBERS = (*SPECIAL, 1e-300, 1e300, 0.1, -0.3, 2.5, 1 / 3, 7.0, 1e10)
PAIRS = np.array([(x, y) for x in NUMBERS for y in NUMBERS]).T

OPERATIONS = {
    "add": lambda xp, x, y: x + y,
    "radd": lambda xp, x, y: 0.1 + x,
    "sub": lambda xp, x, y: x - y,
    "rsub": lambda xp, x, y: 0.1 - x,
    "mul": lambda xp, x, y: x * y,
    "rmul": lambda xp, x, y: 3 * x,
    "div": lambda xp, x, y: x / y,
    "rdiv": lambda xp, x, y: 1 / x,
    "neg": lambda xp, x, y: -x,
    "pos": lambda xp, x, y: +x,
    "builtin abs": lambda xp, x, y: abs(x),
    "huge constant": lambda xp, x, y: x * 1e300,
    "minus zero": lambda xp, x, y: x + -0.0,
    "not fused": lambda xp, x, y: x * y + x,
    "abs": lambda xp, x, y: xp.abs(x),
    "sign": lambda xp, x, y: xp.sign(x),
    "sqrt": lambda xp, x, y: xp.sqrt(x),
    "sqrt of abs": lambda xp, x, y: xp.sqrt(xp.abs(x)),
    "minimum": lambda xp, x, y: xp.minimum(x, y),
    "maximum": lambda xp, x, y: xp.maximum(x, y),
    "maximum of a number": lambda xp, x, y: xp.maximum(x, 0.5),
    "where": lambda xp, x, y: xp.where(x < y, x, y),
    "where of a float": lambda xp, x, y: xp.where(x, x, y),
    "where of masks": lambda xp, x, y: xp.where(xp.where(x < 0, x < y, y < 0), x, y),
    "where of mask and number": lambda xp, x, y: xp.where(x < 0, y > 0, 2.0),
    "mask times tile": lambda xp, x, y: (x > 0) * y + (x < y) / y,
    "minimum of mask": lambda xp, x, y: xp.minimum(x > 0, y),
    "mask compared": lambda xp, x, y: xp.where((x > 0) == y, x, y),
    "isfinite": lambda xp, x, y: xp.where(xp.isfinite(x), 1.0, 0.0),
    "lt": lambda xp, x, y: xp.where(x < y, 1.0, 0.0),
    "le": lambda xp, x, y: xp.where(x <= y, 1.0, 0.0),
    "gt": lambda xp, x, y: xp.where(x > y, 1.0, 0.0),
    "ge": lambda xp, x, y: xp.where(x >= y, 1.0, 0.0),
    "eq": lambda xp, x, y: xp.where(x == y, 1.0, 0.0),
    "ne": lambda xp, x, y: xp.where(x != y, 1.0, 0.0),
    "and": lambda xp, x, y: xp.where((x < 0) & (y < 0), x, 1.0),
    "or": lambda xp, x, y: xp.where((x < 0) | (y < 0), x, 1.0),
    "not": lambda xp, x, y: xp.where(~(x < y), x, 1.0),
    "and with a truth value": lambda xp, x, y: xp.where((x < 0) & True | False, x, 1.0),
    "sum": lambda xp, x, y: xp.sum([x, y, x]),
    "count": lambda xp, x, y: xp.count([x > 0, y > 0]),
    "any": lambda xp, x, y: xp.where(xp.any([x > 0, y > 0]), x, y),
    "all": lambda xp, x, y: xp.where(xp.all([x > 0, y > 0]), x, y),
    "any of floats": lambda xp, x, y: xp.where(xp.any([x, y]), 1.0, 0.0),
    "max": lambda xp, x, y: xp.max([x, y, 0.25 * y]),
    "min": lambda xp, x, y: xp.min([x, y, 0.25 * y]),
}  # fmt: skip


def check(operation, dtypes, arrays):
    def formula(xp, base, experts):
        return operation(xp, experts[0], experts[1])

    layout = Operands(None, dtypes, False)
    wide = FLOAT64 if layout.real == np.float64 else FLOAT32
    expected, _, _ = on_numpy(formula, layout, arrays, {})
    out = np.zeros(len(arrays[0]), wide.storage)
    merge_kernel(formula, layout, {}, wide)(arrays, out=out)
    assert same(out, np.broadcast_to(np.asarray(expected, layout.real), out.shape))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_have_the_bits_of_numpy(name, dtype):
    check(OPERATIONS[name], (dtype, dtype), [store(row, dtype) for row in PAIRS])


@pytest.mark.parametrize("first", MERGEABLE)
@pytest.mark.parametrize("second", MERGEABLE)
def test_mixed_types_are_widened_first(first, second):
    arrays = [unaligned(store(PAIRS[0], first)), unaligned(store(PAIRS[1], second))]
    assert Operands(None, (first, second), False).real == widest((first, second))
    check(OPERATIONS["not fused"], (first, second), arrays)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_every_16_bit_word_decodes_as_on_numpy(dtype):
    words = np.arange(65536, dtype=np.uint16).view(dtype.storage)
    for other in (FLOAT32, FLOAT64):
        check(lambda xp, x, y: x, (dtype, other), [words, np.zeros(65536, other.storage)])


def test_long_chains_need_no_recursion():
    def many(xp, x, y):
        for _ in range(2000):
            x = x + y
        return x

    check(many, (FLOAT32, FLOAT32), [store([1.0, 0.1], FLOAT32), store([0.5, 0.3], FLOAT32)])


def test_float_constants_are_exact_in_the_text():
    assert Emitter(1, "float", "v").number(0.1) == "<float 0x3FB99999A0000000>"  # 0.1 rounded to float32
    assert Emitter(2, "double", "v").number(0.1) == "<double 0x3FB999999999999A, double 0x3FB999999999999A>"
    assert Emitter(1, "float", "v").number(1e300) == "<float 0x7FF0000000000000>"


def test_storage_types():
    assert [storage_type(d) for d in (BFLOAT16, FLOAT16, FLOAT32, FLOAT64)] == ["i16", "half", "float", "double"]
