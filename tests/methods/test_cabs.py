"""CABS block by block: by hand, against its steps, and what blocks and order do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from rlmerge.methods.cabs import kept
from support.interpret import interpret


def merged(tau, **options):
    return interpret("cabs", np.zeros(tau.shape[1:]), tau, **options)


def reference(tau, n, m):
    """The authors' loops over the flattened tensor, whose length m divides."""
    free, found = np.ones(tau[0].size), np.zeros_like(tau[0]).reshape(-1)
    for each in tau:
        flat = each.reshape(-1) * free
        for start in range(0, len(flat), m):
            best = sorted(range(start, start + m), key=lambda i: -abs(flat[i]))[:n]
            found[best] += flat[best]
            free[[i for i in best if flat[i] != 0]] = 0
    return found.reshape(tau[0].shape)


def test_by_hand():
    # One of two: 5 of (5, 1) and −3 of (2, −3); the second expert may have what is left: 8 of (·, 8), 1 of (1, ·).
    tau = np.array([[5.0, 1, 2, -3], [9, 8, 1, -7]])
    assert merged(tau, n=1, m=2).tolist() == [5, 8, 1, -3]
    # The other way round: 9 and −7 first, then 1 and 2.
    assert merged(tau[::-1], n=1, m=2).tolist() == [9, 1, 2, -7]


@given(st.integers(0, 200), st.integers(0, 4))
def test_equals_the_loops(seed, n):
    rng = np.random.default_rng(seed)
    tau = rng.integers(-9, 10, (3, 5, 8)).astype(float)
    np.testing.assert_array_equal(merged(tau, n=n, m=4), reference(tau, n, 4))


def test_no_coordinate_is_kept_twice():
    mask = kept(None, None, np.random.default_rng(0).standard_normal((4, 6, 50)), n=3, m=10)
    assert mask.sum(0).max() == 1
    assert mask.sum((1, 2)).tolist() == [90] * 3 + [30]


def test_the_first_of_equal_magnitudes_stays_and_no_0():
    assert merged(np.array([[1.0, -1, 1, 1]]), n=2, m=4).tolist() == [1, -1, 0, 0]
    assert kept(None, None, np.zeros((1, 2, 4)), n=2, m=4).sum() == 0


def test_a_short_block_keeps_its_share():
    # Six columns in blocks of four: two of four, then one of two.
    assert merged(np.array([[1.0, 2, 3, 4, 5, 6]]), n=2, m=4).tolist() == [0, 0, 3, 4, 0, 6]


def test_a_row_shorter_than_a_block_keeps_the_block_s_share():
    # Of rows of 4, blocks of 8 that keep 2 keep 1; blocks of a million that keep one keep 1 too.
    tau = np.array([[[5.0, 1, 2, -3], [0, -4, 2, 1]]])
    expected = [[5, 0, 0, 0], [0, -4, 0, 0]]
    assert merged(tau, n=2, m=8).tolist() == expected
    assert merged(tau, n=1, m=1_000_000).tolist() == expected


def test_everything_kept_is_the_first_expert_where_it_changed():
    tau = np.array([[1.0, 0, 2], [7, 8, 9]])
    assert merged(tau, n=3, m=3).tolist() == [1, 8, 2]
    assert merged(tau[:1], n=3, m=3).tolist() == [1, 0, 2]
    assert merged(tau, n=3, m=3, weight=[2.0, 0.5], lam=10).tolist() == [20, 40, 40]


@pytest.mark.parametrize(("n", "m"), [(5, 4), (1.5, 4), (1, 2.5)])
def test_blocks_that_do_not_exist_are_refused(n, m):
    state = {"w": np.ones(3, np.float32)}
    with pytest.raises(RequestError, match="n and m are whole numbers"):
        merge_state_dicts(state, [state], "cabs", n=n, m=m)
