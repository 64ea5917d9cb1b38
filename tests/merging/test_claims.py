"""What a resumed run believes of a journal: what a merge may write there, and nothing else."""

import numpy as np
import pytest

from rlmerge.checkpoint import ArraySource, JournalEntry, OutputTensor
from rlmerge.kernels.dtypes import FLOAT32
from rlmerge.merging import Job
from rlmerge.merging.claims import is_account, is_claim
from rlmerge.methods import get

DIGEST = "0123456789abcdef" * 2
STATS = {"counts": [3, 2, 3, 2, 3, 1], "sums": [1.0, 0.5, 2, 0.5, 2.0], "notes": [], "inputs": [DIGEST, DIGEST]}


def job(merged=True, size=4):
    base, expert = (ArraySource("w", FLOAT32, np.zeros(size, np.float32), name) for name in ("base", "expert"))
    method = get("task_arithmetic") if merged else None
    return Job(OutputTensor("w", FLOAT32, (size,)), method, base, (expert,), (0,))


def test_what_merges_write_is_believed():
    assert is_account(job(), STATS)
    assert is_account(job(), {"inputs": [DIGEST, DIGEST]})
    assert is_account(job(merged=False), {"inputs": [DIGEST, DIGEST]})
    assert is_account(job(size=0), {"inputs": []})


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": [DIGEST]}, {"inputs": [DIGEST, DIGEST[1:]]}, {"inputs": [DIGEST, 1]}, {"inputs": None},
        {"inputs": [DIGEST, DIGEST + "\n"]}, {"counts": [3, 2, 3, 2, 3]}, {"counts": [9, 2, 3, 2, 3, 1]},
        {"sums": None}, {"sums": ["1"] * 5}, {"notes": [1]}, {"more": 1}, {"report": {"x": [1, 2]}},
    ],
)  # fmt: skip
def test_anything_else_is_not(change):
    assert not is_account(job(), {**STATS, **change})


def test_a_copy_has_digests_alone():
    assert not is_account(job(merged=False), STATS)
    assert not is_account(job(merged=False), {})


def test_only_the_last_output_says_something():
    assert is_claim(job(), JournalEntry("w", "model.safetensors", "00", STATS))
    assert not is_claim(job(), JournalEntry("w", "model.safetensors", "00", {}))
    assert not is_claim(None, JournalEntry("x", "model.safetensors", "00", STATS))
