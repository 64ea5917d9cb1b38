import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlmerge.geometry import vector
from rlmerge.geometry.magnitudes import SIDE_LIMIT, Magnitudes, total

FLOATS = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.one_of(st.just(0.0), st.floats(-4, 4, width=16), st.floats(-(2.0**-10), 2.0**-10, width=32)),
)


def binned(tau: np.ndarray) -> Magnitudes:
    """The same magnitudes with only their bins known, as after an overflow of the side list."""
    words = np.abs(tau[tau != 0]).view(np.uint32)
    return Magnitudes.counted(np.bincount(words >> 15, minlength=1 << 16), None)


def test_a_hand_worked_vector():
    table = Magnitudes.of(np.array([0, 0, -1, 3], np.float32)).table
    assert table.values.tolist() == [1.0, 3.0]
    assert table.counts.tolist() == [1, 1]
    # Ranks 3 and 4 of n = 4: ((2·3-5)·1 + (2·4-5)·3) / (4·4) = 10/16.
    assert table.gini(4).value == 0.625
    assert table.top_mass(4, 25).value == 0.75
    assert table.moment(2).value == 10.0
    assert table.below_share_of_largest(4).value == 0.5
    assert [table.kth_largest(r).value for r in (0, 1, 2, 3)] == [np.inf, 3.0, 1.0, 0.0]
    assert table.gini(4).error == table.moment(4).error == 0.0


@given(FLOATS)
def test_equals_the_in_memory_definitions(tau):
    table, n = Magnitudes.of(tau).table, tau.size
    # Both are float64 sums of the same terms in another order.
    assert table.gini(n).value == pytest.approx(vector.gini(tau), rel=1e-12, abs=1e-12, nan_ok=True)
    for percent in (1, 5, 50):
        assert table.top_mass(n, percent).value == pytest.approx(vector.top_mass(tau, percent), rel=1e-12, nan_ok=True)
    assert table.below_share_of_largest(n).value == vector.l0_share(tau)
    assert table.moment(4).value == pytest.approx(np.sum(tau.astype(np.float64) ** 4), rel=1e-12)


@given(FLOATS)
def test_bounds_hold_when_only_bins_are_known(tau):
    known, exact, n = binned(tau).table, Magnitudes.of(tau).table, tau.size
    pairs = [
        (known.gini(n), exact.gini(n)),
        (known.top_mass(n, 5), exact.top_mass(n, 5)),
        (known.below_share_of_largest(n), exact.below_share_of_largest(n)),
        (known.moment(1), exact.moment(1)),
        (known.moment(4), exact.moment(4)),
    ] + [(known.kth_largest(r), exact.kth_largest(r)) for r in range(1, n + 2)]
    for estimate, truth in pairs:
        if np.isfinite(truth.value):
            assert abs(estimate.value - truth.value) <= estimate.error * (1 + 1e-9) + 1e-12


@given(FLOATS, st.integers(0, 60), st.integers(0, 60))
def test_chunks_add_up_in_any_order(tau, first, second):
    first, second = sorted((min(first, tau.size), min(second, tau.size)))
    chunks = [Magnitudes.of(tau[a:b]) for a, b in ((0, first), (first, second), (second, tau.size))]
    whole = Magnitudes.of(tau).table
    for parts in (chunks, chunks[::-1]):
        table = total(parts).table
        assert np.array_equal(table.values, whole.values)
        assert np.array_equal(table.counts, whole.counts)


def test_a_full_side_list_keeps_every_count_and_reports_a_bound():
    values = (np.arange(SIDE_LIMIT + 1, dtype=np.uint32) * 2 + 0x3F800001).view(np.float32)
    magnitudes = Magnitudes.of(values)
    assert not magnitudes.is_exact
    assert magnitudes.count == values.size
    mass = magnitudes.table.moment(1)
    assert abs(mass.value - values.astype(np.float64).sum()) <= mass.error
    assert mass.error < mass.value / 256  # half a bin of 8 mantissa bits is at most 2^-9 of the value


def test_float32_and_float64_parts_combine_within_their_bound():
    single, double = np.array([1.0, 1.001953125], np.float32), np.array([0.3, 5.0])
    both = Magnitudes.of(single) + Magnitudes.of(double)
    assert both.count == 4
    mass = both.table.moment(1)
    assert abs(mass.value - (single.astype(np.float64).sum() + double.sum())) <= mass.error


def test_magnitudes_by_power_of_two():
    tau = np.array([0.0, 0.25, -0.49, 0.5, 3.0], np.float32)
    assert Magnitudes.of(tau).by_exponent() == {-2: 2, -1: 1, 1: 1}


def test_nothing_at_all():
    table = Magnitudes.empty().table
    assert np.isnan(table.gini(5).value)
    assert np.isnan(table.top_mass(5, 1).value)
    assert (table.largest, table.below_share_of_largest(5).value, table.kth_largest(1).value) == (0.0, 0.0, 0.0)
