import math

import numpy as np
import pytest

from rlmerge.geometry.survival import Survival, compare, compared
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32
from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.kernels.program import Extra, Operands, merge_kernel, reduce_kernel
from rlmerge.kernels.rounding import encode

# Two experts on four coordinates: the first alone, both, the second alone, nobody.
BASE = np.array([1.0, 1.0, 1.0, 1.0])
EXPERTS = np.array([[3.0, 2.0, 1.0, 1.0], [1.0, 4.0, 5.0, 1.0]])


def look(merged):
    values = {"reference": Extra((FLOAT32,))}
    kernel = reduce_kernel(compare, Operands(FLOAT32, (FLOAT32,) * 3, deltas=False), values, "several")
    arrays = [np.asarray(x, np.float32) for x in (BASE, *EXPERTS, merged, BASE)]
    found = kernel(arrays)
    return compared(found.counts, found.sums.sum(axis=0))


def test_an_average_by_hand():
    first, second = look([2.0, 3.0, 3.0, 1.0]).outcomes(["a", "b"])
    assert (first.changed, first.survived, first.unique) == (2, 1.0, 0.5)
    assert first.realised == 0.5
    assert first.relative_error == 0.5
    # (1·2 + 2·1) / (4 + 1)
    assert first.projection == pytest.approx(0.8)
    assert second.realised == 0.5
    assert math.isnan(first.requested) and math.isnan(first.erased)


def test_what_did_not_survive():
    found = look([1.0, 4.0, 1.0, 1.0])
    assert found.share == pytest.approx(1 / 3)
    first, second = found.outcomes(["a", "b"])
    assert (first.survived, second.survived) == (0.5, 0.5)
    assert (first.realised, first.relative_error) == (0.0, 1.0)


def test_chunks_add_up_and_numpy_agrees():
    rng = np.random.default_rng(0)
    base = rng.standard_normal(64)
    weights = base + rng.standard_normal((4, 64)) * (rng.random((4, 64)) < 0.5)

    def part(cut):
        result = compare(NumpyNamespace(np.float64), base[cut], weights[:, cut], reference=base[None, cut])
        return compared(np.array([np.sum(c) for c in result["counts"]]), np.array([np.sum(s) for s in result["sums"]]))

    whole, total = part(slice(0, 64)), part(slice(40, 64)) + part(slice(0, 40))
    for mine, theirs in zip(whole.outcomes("abc"), total.outcomes("abc"), strict=True):
        assert mine.realised == pytest.approx(theirs.realised)
        assert (mine.survived, mine.unique) == (theirs.survived, theirs.unique)


def test_a_merging_kernel_reports_one_step_changes_that_an_average_erases():
    base = encode(np.ones(8, np.float32), BFLOAT16)
    first = base.copy()
    first[:4] += 1  # one bfloat16 step; a third of it rounds away
    kernel = merge_kernel(
        lambda xp, base, tau: base + xp.sum(tau) / 3.0, Operands(BFLOAT16, (BFLOAT16,) * 3, deltas=True), {}, BFLOAT16
    )
    counts = kernel([base, first, base, base], out=np.empty(8, np.uint16))
    outcome = Survival.of(counts.counts, counts.sums.sum(axis=0)).outcomes("abc")[0]
    assert (outcome.changed, outcome.survived, outcome.erased) == (4, 0.0, 1.0)
    assert outcome.requested == pytest.approx(1 / 3, rel=1e-4)  # 1 + 1/384 in float32, 2^-24 over 2^-7
    assert outcome.realised == 0.0
