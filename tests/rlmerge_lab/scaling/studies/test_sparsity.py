"""Table 1's simulation: what is fed in comes out, and L0 follows its closed form."""

import pytest

from rlmerge_lab.scaling.expectation import gini_of_zero_share, l0_of_zero_share
from rlmerge_lab.scaling.studies import sparsity


def test_the_zeros_fed_in_are_the_calibrated_law(results):
    fed = {row.billions: row.fed for row in results["sparsity"].rows}
    assert fed[3] == pytest.approx(0.85) and fed[7] == pytest.approx(0.90)
    assert fed[70] == pytest.approx(0.9668, abs=1e-4)


def test_vectors_grow_up_to_a_million_entries():
    assert [sparsity.entries_at(n) for n in (1, 70, 100, 405)] == [10_000, 700_000, 1_000_000, 1_000_000]


def test_measured_metrics_follow_their_closed_forms(results):
    for row in results["sparsity"].rows:
        # Means of five trials: within the scatter that trials of 10 000 entries show.
        assert row.gini.mean == pytest.approx(gini_of_zero_share(row.fed), abs=0.005)
        assert row.l0.mean == pytest.approx(l0_of_zero_share(row.fed, row.entries), abs=0.02)
        assert row.l0_fixed.mean == pytest.approx(l0_of_zero_share(row.fed, 100_000), abs=0.02)


def test_a_dense_vector_of_real_size_reads_as_sparse(results):
    assert all(row.l0_dense_real > 0.998 for row in results["sparsity"].rows)


def test_a_seed_repeats_and_another_differs():
    first, again, other = (sparsity.run(seed, trials=1).rows[0] for seed in (3, 3, 4))
    assert first == again and first.l0 != other.l0
