"""RAM and its presets against an example by hand, a loop over coordinates, and the papers' limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge import merge_state_dicts
from rlmerge.methods.ram import overlap_ratio
from support.examples import BASE, TAU, at, experts, whole_deltas
from support.interpret import interpret, statistics_of, warnings_of

# Several experts changed (0,0): mean of 4, −2; (1,0): of 3, 1; (1,3): of −1, −2; (2,1): of 2, 4, −3; (3,3): of 1, −1.
# Only the second changed (0,2), only the third (1,1).
SHARED = at(r0c0=1, r1c0=2, r1c3=-1.5, r2c1=1)
UNIQUE = at(r0c2=5, r1c1=6)


def reference(base, tau, active, epsilon, percentile, over_all, lam, r, alpha):
    """RAM coordinate by coordinate; ``active`` and the ratios as in the definitions."""
    masks = []
    for delta in tau:
        size, limit = np.abs(delta), np.percentile(np.abs(delta), percentile)
        test = {"epsilon": size > epsilon, "bits": delta != 0, "percentile": size >= limit}
        masks.append({**test, "strict": size > max(limit, epsilon)}[active])
    masks = np.stack(masks)
    times = masks.sum(0)
    scale = []
    for mask in masks:
        shared, unique = np.count_nonzero(mask & (times >= 2)), np.count_nonzero(mask & (times == 1))
        ratio = shared / unique if unique else float(shared > 0)
        scale.append(lam * (1 + r * min(alpha, ratio)))
    merged = base.astype(np.float64).copy()
    for place in np.ndindex(base.shape):
        mine = [k for k in range(len(tau)) if masks[(k, *place)]]
        if len(mine) == 1:
            merged[place] += scale[mine[0]] * tau[(mine[0], *place)]
        elif mine:
            chosen = range(len(tau)) if over_all else mine
            merged[place] += sum(tau[(k, *place)] for k in chosen) / len(chosen)
    return merged


def test_the_example_by_hand():
    np.testing.assert_array_equal(interpret("ram", BASE, experts(BASE, TAU)), BASE + SHARED + UNIQUE)


def test_ram_plus_amplifies_what_one_expert_changed():
    # Expert 2 shares five changes and owns one: ρ = 5, limited to 1. Expert 3 shares one and owns one: ρ = 1.
    merged = interpret("ram_plus", BASE, experts(BASE, TAU))
    np.testing.assert_allclose(merged, BASE + SHARED + 1.2 * UNIQUE, rtol=1e-15)


def test_ramplus_tl_limits_the_ratio_to_alpha():
    merged = interpret("ramplus_tl", BASE, experts(BASE, TAU))
    np.testing.assert_allclose(merged, BASE + SHARED + (1 + 0.1 * 0.2) * UNIQUE, rtol=1e-15)


def test_ratios_by_hand():
    # Expert 1 owns no change and shares five; an expert without any change has ratio 0.
    np.testing.assert_array_equal(overlap_ratio(np.array([5, 5, 1, 0]), np.array([0, 1, 1, 0])), [1, 5, 1, 0])


def test_the_ratio_is_counted_over_the_model_or_per_tensor():
    base = {name: np.zeros(4, np.float32) for name in "ab"}
    one = {"a": np.array([1, 0, 0, 0], np.float32), "b": np.array([1, 1, 1, 0], np.float32)}
    two = {"a": np.array([0, 1, 0, 0], np.float32), "b": np.array([1, 1, 0, 0], np.float32)}
    # Of expert 1's four changes two are shared (in b): ρ = 2/2 over the model, 0 in `a`, and 2/1 in `b`.
    over_model = merge_state_dicts(base, [one, two], "ram_plus", r=0.5, alpha=10.0)
    np.testing.assert_array_equal(over_model["a"][0], 1.5)
    np.testing.assert_array_equal(over_model["b"], [1, 1, 1.5, 0])
    by_tensor = merge_state_dicts(base, [one, two], "ram_plus", r=0.5, alpha=10.0, scope="tensor")
    np.testing.assert_array_equal(by_tensor["a"], [1, 1, 0, 0])
    np.testing.assert_array_equal(by_tensor["b"], [1, 1, 2, 0])


@pytest.mark.parametrize("active", ["epsilon", "bits", "percentile", "strict"])
@given(
    whole_deltas(3),
    st.sampled_from([0.0, 1e-5, 1.0, 2.5]),
    st.sampled_from([0.0, 25.0, 50.0, 90.0, 99.9, 100.0]),
    st.booleans(),
    st.sampled_from([0.0, 0.2]),
)
def test_equals_the_loop(active, tau, epsilon, percentile, over_all, r):
    options = {"active": active, "epsilon": epsilon, "percentile": percentile, "lam": 1.5, "r": r, "alpha": 0.75}
    merged = interpret("ram", BASE, experts(BASE, tau), shared="all" if over_all else "active", **options)
    expected = reference(BASE, tau, active, epsilon, percentile, over_all, 1.5, r, 0.75)
    # One rounding of a third of whole numbers below 16, and one of the sum.
    np.testing.assert_allclose(merged, expected, rtol=0, atol=2.0**-48)


def test_epsilon_ignores_small_changes_and_bits_count_them():
    tau = np.array([[1e-6, 1.0]])
    np.testing.assert_array_equal(interpret("ram", np.zeros(2), tau), [0, 1])
    np.testing.assert_array_equal(interpret("ram", np.zeros(2), tau, active="bits"), [1e-6, 1])


def test_epsilon_itself_does_not_count_as_a_change():
    np.testing.assert_array_equal(interpret("ram", np.zeros(2), [[0.5, 0.75]], epsilon=0.5), [0, 0.75])


def test_percentile_of_a_dense_tensor():
    # 0 … 10: the 90th percentile of |τ| is 9, and "at least" keeps 9 and 10, times λ = 1.5.
    tau = np.arange(11.0)[None]
    np.testing.assert_array_equal(
        interpret("ram_percentile", np.zeros(11), tau), np.where(tau[0] >= 9, 1.5 * tau[0], 0)
    )
    strict = interpret("ram_percentile", np.zeros(11), tau, active="strict")
    np.testing.assert_array_equal(strict, np.where(tau[0] > 9, 15.0, 0))


def test_a_percentile_between_two_changes_takes_the_upper_one_either_way():
    # Position 0.9 · 9 = 8.1, between 8 and 9: of 0 … 9 only the 9 is above it.
    tau = np.arange(10.0)[None]
    for active in ("percentile", "strict"):
        found = interpret("ram_percentile", np.zeros(10), tau, active=active)
        np.testing.assert_array_equal(found, np.where(tau[0] == 9, 13.5, 0))


def test_a_percentile_of_zero_makes_ram_an_average_and_says_so():
    # More than 90 % zeros: the percentile is 0, every coordinate counts as active, and RAM averages over all experts.
    tau = np.zeros((2, 32))
    tau[0, 0], tau[1, 5] = 4, 6
    np.testing.assert_array_equal(interpret("ram_percentile", np.zeros(32), tau), tau.mean(0))
    assert "simple average" in warnings_of("ram_percentile", np.zeros(32), tau)[0]
    strict = interpret("ram_percentile", np.zeros(32), tau, active="strict")
    np.testing.assert_array_equal(strict, 1.5 * tau.sum(0))
    assert warnings_of("ram_percentile", np.zeros(32), tau, active="strict") == []


def test_an_empty_mask_is_warned_of():
    assert "empty" in warnings_of("ram_percentile", np.zeros(4), np.zeros((1, 4)), active="strict")[0]


def test_presets_are_the_same_formula():
    assert statistics_of("ram", BASE, experts(BASE, TAU))["scale"].tolist() == [1, 1, 1]
    tau = experts(BASE, TAU)
    same = interpret("ram", BASE, tau, r=0.1, alpha=0.2, scope="tensor")
    np.testing.assert_array_equal(same, interpret("ramplus_tl", BASE, tau))


@given(whole_deltas(1))
def test_one_expert_is_kept(tau):
    np.testing.assert_array_equal(interpret("ram", BASE, experts(BASE, tau)), BASE + tau[0])


@given(whole_deltas(1), st.integers(2, 4))
def test_equal_experts_merge_to_the_expert(tau, count):
    merged = interpret("ram_plus", BASE, experts(BASE, np.repeat(tau, count, axis=0)))
    np.testing.assert_array_equal(merged, BASE + tau[0])


@given(whole_deltas(3), st.permutations(range(3)))
def test_the_order_of_experts_does_not_matter(tau, order):
    merged = interpret("ram_plus", BASE, experts(BASE, tau))
    np.testing.assert_array_equal(interpret("ram_plus", BASE, experts(BASE, tau[list(order)])), merged)


@given(whole_deltas(3))
def test_disjoint_supports_keep_every_change_whole(tau):
    owner = np.arange(16).reshape(4, 4) % 3
    apart = np.stack([np.where(owner == k, delta, 0.0) for k, delta in enumerate(tau)])
    # Without shared changes ρ is 0, so RAM+ amplifies nothing.
    for method in ("ram", "ram_plus", "ramplus_tl"):
        np.testing.assert_array_equal(interpret(method, BASE, experts(BASE, apart)), BASE + apart.sum(0))
