"""Table 1's simulation: what is fed in comes out, L0 follows its closed form, and verdicts follow the result."""

from dataclasses import replace

import pytest

from rlmerge_lab.scaling import sparsity
from rlmerge_lab.scaling.simulation import gini_of_zero_share, l0_of_zero_share
from rlmerge_lab.scaling.sparsity import Spread
from rlmerge_lab.scaling.verdict import Verdict
from support.claims import verdict


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


def test_gini_off_by_more_than_its_error_is_not_reproduced(results):
    rows = tuple(replace(row, gini=Spread(row.gini.mean - 0.05, 0.001)) for row in results["sparsity"].rows)
    shifted = replace(results["sparsity"], rows=rows)
    assert verdict(sparsity, "Gini", shifted) is Verdict.NOT_REPRODUCED


def test_a_few_sizes_apart_is_in_kind_for_gini(results):
    rows = results["sparsity"].rows
    off = tuple(replace(row, gini=Spread(0.5, 0.0)) for row in rows[:2])
    assert verdict(sparsity, "Gini", replace(results["sparsity"], rows=off + rows[2:])) is Verdict.IN_KIND


def test_falling_metrics_are_not_rising(results):
    reversed_rows = replace(results["sparsity"], rows=results["sparsity"].rows[::-1])
    assert verdict(sparsity, "All four", reversed_rows) is Verdict.NOT_REPRODUCED


def test_table_1_holds_the_printed_row_and_ours(outcomes):
    row = dict(zip(outcomes["sparsity"].tables[0].head, outcomes["sparsity"].tables[0].rows[0], strict=True))
    assert row["L0 paper"] == "0.9139 ± 0.0224" and row["kurtosis paper"] == "793"
    assert row["L0 ours"] != row["L0 paper"]
