from itertools import pairwise

import numpy as np
import pytest

from rlmerge.checkpoint import ArraySource
from rlmerge.kernels.dtypes import FLOAT32
from rlmerge.transplant import fit
from rlmerge.transplant.fit import gather, nearest, pursue


def table(values):
    return ArraySource("embed", FLOAT32, np.asarray(values, np.float32), "model")


def ignore(amount):
    pass


def rebuilt(values, shared, result):
    """The sums that a fit describes, in float64."""
    start, positions, weights = result
    rows = np.asarray(values, np.float64)[np.asarray(shared)[positions]]
    return np.array([weights[a:b] @ rows[a:b] if b > a else np.zeros(rows.shape[1]) for a, b in pairwise(start)])


def test_the_nearest_row_has_the_largest_cosine_not_the_largest_product():
    values = [[1, 0], [5, 5], [-9, 0], [2, 0.1], [0, 3]]
    start, positions, weights = nearest(table(values), np.array([0, 1, 2]), np.array([3, 4]), ignore)
    # (2, 0.1) points along (1, 0); (0, 3) along (5, 5) more than along the others. Opposite is not alike.
    assert (start.tolist(), positions.tolist(), weights.tolist()) == ([0, 1, 2], [0, 1], [1, 1])


def test_a_sum_of_shared_rows_is_found_exactly():
    rng = np.random.default_rng(0)
    # Orthogonal rows of different lengths, among which greedy choices are the right ones.
    values = np.zeros((30, 25))
    values[:25] = np.linalg.qr(rng.standard_normal((25, 25)))[0] * rng.uniform(0.5, 2, (25, 1))
    values[25] = 2 * values[3] - 0.5 * values[7] + values[11]
    values[26] = -4 * values[20]
    values[27] = 0
    shared, new = np.arange(25), np.array([25, 26, 27])
    result = pursue(table(values), shared, new, 5, ignore)
    start, positions, weights = result
    assert start.tolist() == [0, 3, 4, 4]
    found = dict(zip(positions[:3].tolist(), weights[:3].tolist(), strict=True))
    # float32 rows: the sum is that of rounded numbers
    assert found == pytest.approx({3: 2, 7: -0.5, 11: 1}, abs=1e-5)
    assert positions[3] == 20 and weights[3] == pytest.approx(-4, abs=1e-5)


def reference_pursuit(target, atoms, terms):
    """Orthogonal matching pursuit as the textbook has it, fitted anew in every step."""
    taken, rest = [], target
    for _ in range(terms):
        likeness = np.abs(atoms @ rest) / np.linalg.norm(atoms, axis=1)
        likeness[taken] = -1
        taken.append(int(np.argmax(likeness)))
        weights = np.linalg.lstsq(atoms[taken].T, target, rcond=None)[0]
        rest = target - weights @ atoms[taken]
    return taken, weights


@pytest.mark.parametrize("terms", [1, 3, 8])
def test_the_textbook(terms):
    values = np.random.default_rng(terms).standard_normal((60, 20)).astype(np.float32)
    shared, new = np.arange(50), np.arange(50, 60)
    start, positions, weights = pursue(table(values), shared, new, terms, ignore)
    for i, row in enumerate(new):
        taken, expected = reference_pursuit(values[row].astype(float), values[shared].astype(float), terms)
        assert positions[start[i] : start[i + 1]].tolist() == taken
        np.testing.assert_allclose(weights[start[i] : start[i + 1]], expected, rtol=1e-9)


def test_more_terms_explain_more():
    values = np.random.default_rng(5).standard_normal((80, 16))
    shared, new = np.arange(70), np.arange(70, 80)
    errors = [
        np.linalg.norm(rebuilt(values, shared, pursue(table(values), shared, new, terms, ignore)) - values[new])
        for terms in (1, 2, 4, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5  # sixteen independent rows span everything, but for float32


def test_blocks_do_not_matter(monkeypatch):
    values = np.random.default_rng(6).standard_normal((90, 8)).astype(np.float32)
    shared, new = np.arange(0, 90, 2), np.arange(1, 90, 2)
    whole = [pursue(table(values), shared, new, 4, ignore), nearest(table(values), shared, new, ignore)]
    monkeypatch.setattr(fit, "_ELEMENTS", 8 * 7)
    pieces = [pursue(table(values), shared, new, 4, ignore), nearest(table(values), shared, new, ignore)]
    for one, two in zip(whole, pieces, strict=True):
        assert one[1].tolist() == two[1].tolist()
        np.testing.assert_allclose(one[2], two[2], rtol=1e-9)


def test_only_the_rows_most_alike_are_candidates(monkeypatch):
    monkeypatch.setattr(fit, "CANDIDATES", 2)
    values = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 2, 1]]
    _, positions, _ = pursue(table(values), np.arange(3), np.array([3]), 3, ignore)
    assert sorted(positions.tolist()) == [0, 1]


def test_rows_that_repeat_or_are_zero_are_taken_once():
    values = [[1, 0], [2, 0], [0, 0], [3, 4]]
    start, positions, weights = pursue(table(values), np.arange(3), np.array([3]), 3, ignore)
    assert (start.tolist(), positions.tolist()) == ([0, 1], [0])
    assert weights == pytest.approx([3])


def test_what_is_not_finite_counts_as_zero():
    values = np.array([[np.nan, 1.0], [np.inf, 2.0]])
    assert gather(table(values), np.array([1, 0])).tolist() == [[0, 2], [0, 1]]


def test_progress_counts_tokens():
    seen = []
    pursue(table(np.eye(4)), np.arange(3), np.array([3, 3]), 1, seen.append)
    nearest(table(np.eye(4)), np.arange(3), np.array([3, 3]), seen.append)
    assert seen == [1, 1, 2]


def test_nothing_new():
    for result in (pursue(table(np.eye(3)), np.arange(3), np.zeros(0, int), 2, ignore),
                   nearest(table(np.eye(3)), np.arange(3), np.zeros(0, int), ignore)):  # fmt: skip
        assert [part.tolist() for part in result] == [[0], [], []]
