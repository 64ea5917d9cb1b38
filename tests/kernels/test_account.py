"""Accounting of a merge: a case by hand."""

import numpy as np

from rlmerge.kernels.account import account
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32

BASE = np.array([1, 2, 0, -1, 4], np.float32)
DELTAS = [np.array([1, 0, 0, 2, 0.001], np.float32), np.array([0, 0, 3, -1, 0], np.float32)]
MERGED = np.array([1.5, 2, 3, -1, 4.001], np.float32)


def test_counts_and_sums_by_hand():
    counts, sums = account(BASE, DELTAS, MERGED, MERGED, FLOAT32)
    changed, survived = 4, 3  # the two experts cancel at the fourth coordinate
    assert counts.tolist() == [changed, survived, 3, 2, 2, 0, 2, 1, 1, 0]
    small = float(np.float32(0.001))
    kept = float(np.float32(4.001)) - 4
    first = [0.5 + kept * small, 0.5 + kept * small, 1 + small**2, 0.5 + kept * small, 5 + small**2]
    assert sums.tolist() == [*first, 9, 9, 9, 9, 10]


def test_rounding_can_undo_a_change_that_was_asked_for():
    stored = np.array([0x3FC0, 0x4000, 0x4040, 0xBF80, 0x4080], np.uint16)  # 4.001 became 4
    counts, sums = account(BASE, DELTAS, MERGED, stored, BFLOAT16)
    assert counts.tolist() == [4, 2, 3, 1, 2, 1, 2, 1, 1, 0]  # one change of the first expert was erased
    asked, got = sums[:2]
    assert got == 0.5
    assert asked > got


def test_what_is_compared_is_the_rounded_base():
    base = np.array([1.001], np.float32)  # bfloat16 holds 1 only
    counts, _ = account(base, [np.array([0.1], np.float32)], base, np.array([0x3F80], np.uint16), BFLOAT16)
    assert counts.tolist() == [1, 0, 1, 0, 1, 0]  # nothing was asked for, so nothing was erased


def test_nan_counts_as_a_change_that_survived():
    nan = np.array([np.nan], np.float32)
    counts, _ = account(np.ones(1, np.float32), [nan], nan, nan, FLOAT32)
    assert counts.tolist() == [1, 1, 1, 1, 1, 0]
