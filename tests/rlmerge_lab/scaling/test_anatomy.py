"""Table 3's arithmetic, trends by hand, the equal-zeros control, and the verdicts."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from rlmerge_lab.scaling import anatomy
from rlmerge_lab.scaling.anatomy import pooled, trend
from rlmerge_lab.scaling.verdict import Verdict
from support.claims import verdict


def test_pooled_equals_the_statistics_of_all_members():
    groups = [np.array([1.0, 2.0, 3.0]), np.array([10.0]), np.array([4.0, 8.0])]
    mean, std = pooled([(g.mean(), g.std()) for g in groups], [g.size for g in groups])
    everything = np.concatenate(groups)
    assert (mean, std) == pytest.approx((everything.mean(), everything.std()))


def test_the_papers_overall_row(results):
    study = results["anatomy"]
    assert (round(study.mean, 4), round(study.std, 4), study.count) == (0.9412, 0.0397, 723)


def test_weighing_by_parameters_is_dominated_by_mlp(results):
    study = results["anatomy"]
    assert study.row("mlp").parameter_share == pytest.approx(3 * 80 * 8192 * 28672 / 70_553_706_496)
    assert study.row("norm").parameter_share < 1e-4
    assert round(study.parameter_mean, 3) == 0.949


def test_trend_is_scipys_line_over_the_whole_depth():
    values = tuple(np.random.default_rng(0).normal(0.95, 0.01, 80))
    line, found = stats.linregress(np.arange(80), values), trend("mlp", values)
    assert found.rise == pytest.approx(79 * line.slope)
    assert (found.high - found.low) / 2 == pytest.approx(79 * 1.96 * line.stderr)


def test_equal_zeros_make_short_tensors_read_less_sparse(results):
    control = {row.kind: row.control[0] for row in results["anatomy"].rows}
    assert control["norm"] < control["attention"] < control["mlp"]


def test_only_the_ramp_that_is_fed_in_comes_out(results):
    study = results["anatomy"]
    assert all(t.low > 0 for t in study.trends)
    assert all(abs(t.rise) < 0.001 for t in study.control_trends)
    assert all(len(layers) == 80 for layers in study.by_layer.values())


def test_a_wider_gap_would_be_the_printed_one(results):
    study = results["anatomy"]
    rows = tuple(replace(row, printed=(0.9700, 0.01)) if row.kind == "attention" else row for row in study.rows)
    assert verdict(anatomy, "Attention is 2.4", replace(study, rows=rows)) is Verdict.REPRODUCED
    assert round(100 * study.gap, 2) == 2.34


def test_flat_layers_have_no_trend(results):
    flat = replace(results["anatomy"], trends=results["anatomy"].control_trends)
    assert verdict(anatomy, "Sparsity increases", flat) is Verdict.NOT_REPRODUCED
