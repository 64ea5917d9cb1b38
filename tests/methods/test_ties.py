"""TIES against an example worked by hand, a loop over coordinates, and the rules for ties and zeros."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge import merge_state_dicts
from support.examples import BASE, TAU, at, experts, whole_deltas
from support.interpret import interpret

THREE_OF_16 = 3 / 16

# Trimmed to the 3 largest of 16: threshold 2 keeps {4, 3, 2} of the first expert; the second's third largest of
# {5, 4, 2, 2, 1, 1} is 2, and both are kept; the third has only two changes, 6 and -3, and no zero is kept.
MEANS = at(
    r0c0=4,  # 4 - 2 > 0 elects +; only the 4 agrees
    r0c2=5,
    r1c0=3,
    r1c1=6,
    r1c3=-2,
    r2c1=3,  # 2 + 4 - 3 > 0 elects +; the mean of 2 and 4
)


def reference(base, tau, density, weight, lam, normalize):
    """TIES coordinate by coordinate, from the paper's three steps."""
    trimmed = []
    for delta in tau:
        keep = max(1, int(density * delta.size)) if density > 0 else 0
        threshold = np.sort(np.abs(delta), axis=None)[::-1][keep - 1] if keep else np.inf
        trimmed.append(np.where(np.abs(delta) >= threshold, delta, 0.0))
    merged = base.astype(np.float64).copy()
    for place in np.ndindex(base.shape):
        weighted = [w * delta[place] for w, delta in zip(weight, trimmed, strict=True)]
        sign = 1 if sum(weighted) >= 0 else -1
        chosen = [(w, x) for w, x in zip(weight, weighted, strict=True) if x * sign > 0]
        total, mass = sum(x for _, x in chosen), sum(w for w, _ in chosen)
        merged[place] += lam * (total / mass if normalize and mass else total)
    return merged


def test_the_example_by_hand():
    merged = interpret("ties", BASE, experts(BASE, TAU), density=THREE_OF_16)
    np.testing.assert_array_equal(merged, BASE + MEANS)


def test_without_normalize_agreeing_changes_add_up():
    merged = interpret("ties", BASE, experts(BASE, TAU), density=THREE_OF_16, normalize=False)
    np.testing.assert_array_equal(merged, BASE + MEANS + at(r2c1=3))


def test_lambda_scales_the_merged_task_vector():
    merged = interpret("ties", BASE, experts(BASE, TAU), density=THREE_OF_16, lam=0.5)
    np.testing.assert_array_equal(merged, BASE + 0.5 * MEANS)


def test_weights_move_the_election():
    # At (0, 0): 4·1 − 2·3 < 0 elects −, and the mean of what agrees is −6/3.
    merged = interpret("ties", BASE, experts(BASE, TAU), density=THREE_OF_16, weight=[1, 3, 1])
    assert merged[0, 0] - BASE[0, 0] == -2


@given(
    whole_deltas(3),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, -1.0]), min_size=3, max_size=3),
    st.booleans(),
)
def test_equals_the_loop(tau, density, weight, normalize):
    merged = interpret("ties", BASE, experts(BASE, tau), density=density, weight=weight, lam=0.5, normalize=normalize)
    np.testing.assert_array_equal(merged, reference(BASE, tau, density, weight, 0.5, normalize))


def test_a_sum_of_zero_elects_plus():
    merged = interpret("ties", [0.0], [[1.0], [-1.0]])
    assert merged == [1.0]


def test_a_negative_weight_turns_sign_and_divisor():
    # 1·1 and −1·2: −2 wins, divided by its weight −1.
    assert interpret("ties", [0.0], [[1.0], [2.0]], weight=[1, -1]) == [2.0]


@pytest.mark.parametrize(
    ("density", "kept"), [(0.0, 0), (1e-9, 1), (0.25, 1), (0.49, 1), (0.5, 2), (0.75, 3), (1.0, 4)]
)
def test_density_keeps_the_whole_part_but_at_least_one(density, kept):
    merged = interpret("ties", np.zeros(4), [np.array([1.0, -2.0, 3.0, 4.0])], density=density)
    assert np.count_nonzero(merged) == kept


def test_equal_magnitudes_at_the_threshold_all_stay():
    merged = interpret("ties", np.zeros(6), [np.array([2.0, -2.0, 2.0, 1.0, 0.0, 5.0])], density=2 / 6)
    np.testing.assert_array_equal(merged, [2, -2, 2, 0, 0, 5])


def test_zeros_are_never_kept_nor_counted_in_the_mean():
    # Density 1 of a sparse task vector: the expert without a change has no vote in the mean.
    merged = interpret("ties", np.zeros(2), [np.array([3.0, 0.0]), np.array([0.0, 0.0])])
    np.testing.assert_array_equal(merged, [3, 0])


def test_global_scope_spends_the_density_where_changes_are_large():
    # A quarter of 8 entries is 2: globally the 4 and the 3, both in `a`; by tensor the largest of each.
    base = {"a": np.zeros(4, np.float32), "b": np.zeros(4, np.float32)}
    expert = {"a": np.array([4, -3, 0, 0], np.float32), "b": np.array([2, 1, 0, 0], np.float32)}
    everywhere = merge_state_dicts(base, [expert], "ties", density=0.25, scope="global")
    np.testing.assert_array_equal(everywhere["a"], [4, -3, 0, 0])
    np.testing.assert_array_equal(everywhere["b"], 0)
    each = merge_state_dicts(base, [expert], "ties", density=0.25)
    np.testing.assert_array_equal(each["a"], [4, 0, 0, 0])
    np.testing.assert_array_equal(each["b"], [2, 0, 0, 0])


@given(whole_deltas())
def test_one_expert_at_full_density_is_that_expert(tau):
    np.testing.assert_array_equal(interpret("ties", BASE, experts(BASE, tau[:1])), BASE + tau[0])


@given(whole_deltas(1), st.sampled_from([0.1, 0.5, 1.0]))
def test_equal_experts_merge_to_what_one_gives(tau, density):
    one = interpret("ties", BASE, experts(BASE, tau), density=density)
    three = interpret("ties", BASE, experts(BASE, np.repeat(tau, 3, axis=0)), density=density)
    np.testing.assert_array_equal(three, one)


@given(whole_deltas(3), st.permutations(range(3)), st.sampled_from([0.2, 1.0]))
def test_the_order_of_experts_does_not_matter(tau, order, density):
    merged = interpret("ties", BASE, experts(BASE, tau), density=density)
    np.testing.assert_array_equal(interpret("ties", BASE, experts(BASE, tau[list(order)]), density=density), merged)


@given(whole_deltas(3))
def test_disjoint_supports_keep_every_change_whole(tau):
    owner = np.arange(16).reshape(4, 4) % 3
    apart = np.stack([np.where(owner == k, delta, 0.0) for k, delta in enumerate(tau)])
    np.testing.assert_array_equal(interpret("ties", BASE, experts(BASE, apart)), BASE + apart.sum(0))
