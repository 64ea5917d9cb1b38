"""Merge quality: metrics by hand, and the degenerate mask."""

import numpy as np
import pytest

from rlmerge_lab.scaling.studies.merge import quality

TAU = np.array([[2.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 4.0, 1.0]])


def test_averaging_scores_one_and_keeps_a_third():
    cosine, fidelity, retention, error = quality(TAU.mean(axis=0), TAU)
    assert (cosine, retention, error) == pytest.approx((1.0, 1 / 3, 2 / 3))
    # The oracle (2, 1, 4, 3) against each agent, by hand.
    assert fidelity == pytest.approx((7 / 150**0.5 + 4 / 60**0.5 + 19 / 510**0.5) / 3)


def test_keeping_every_own_update_retains_one_without_error_but_loses_cosine():
    cosine, _, retention, error = quality(np.array([2.0, 1.0, 4.0, 1.0]), TAU)
    assert (retention, error) == (1.0, 0.0)
    assert cosine < 1


def test_overshoot_by_lambda():
    assert quality(1.5 * TAU.sum(axis=0), TAU)[2:] == pytest.approx((1.5, 0.5))


def test_the_printed_mask_is_a_tenth_below_ninety_percent_and_everything_above(results):
    study = results["merge"]
    assert [study.active_at(s) for s in (0.80, 0.88)] == pytest.approx([0.1, 0.1])
    assert [study.active_at(s) for s in (0.90, 0.95)] == [1.0, 1.0]


def test_one_entry_more_at_ninety_percent_undoes_the_degeneracy(results):
    assert results["merge"].boundary_active == pytest.approx(0.1)
    assert results["merge"].boundary_cosine < 0.95


def test_degenerate_ram_scores_exactly_as_the_average(results):
    ram, average = (results["merge"].score(name, 0.95) for name in ("RAM", "Simple Avg"))
    assert (ram.cosine, ram.fidelity, ram.retention) == (average.cosine, average.fidelity, average.retention)
