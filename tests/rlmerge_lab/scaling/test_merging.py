"""The mergers of Table 2 against definitions written from the papers' equations, their scores, and the verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlmerge_lab.scaling import merging
from rlmerge_lab.scaling.merging import active_masks, merge, quality
from rlmerge_lab.scaling.simulation import rng, task_vectors
from rlmerge_lab.scaling.verdict import Verdict
from support.claims import verdict


def reference_ram(tau, masks):
    """Equation 5, coordinate by coordinate."""
    merged = np.zeros(tau.shape[1])
    for i in range(tau.shape[1]):
        active = np.flatnonzero(masks[:, i])
        if len(active) >= 2:
            merged[i] = tau[:, i].mean()
        elif len(active) == 1:
            merged[i] = 1.5 * tau[active[0], i]
    return merged


def reference_ties(tau, density):
    keep = int(density * tau.shape[1])
    kept = np.zeros_like(tau)
    for k, own in enumerate(tau):
        top = np.argsort(-np.abs(own), kind="stable")[:keep]
        kept[k, top] = own[top]
    elected = np.where(kept.sum(axis=0) >= 0, 1, -1)
    agree = kept * elected > 0
    return (kept * agree).sum(axis=0) / np.maximum(agree.sum(axis=0), 1)


def merged(name, tau):
    (found,) = merge(name, [tau], seed=9)
    return found


@pytest.fixture(params=[0.7, 0.88, 0.95])
def tau(request):
    return task_vectors(rng(4), 2000, int((1 - request.param) * 2000))


def test_averaging_is_the_mean(tau):
    assert merged("Simple Avg", tau) == pytest.approx(tau.mean(axis=0), abs=1e-15)


def test_ram_is_equations_4_and_5(tau):
    masks = np.abs(tau) >= np.percentile(np.abs(tau), 90, axis=1)[:, None]
    assert np.array_equal(active_masks(tau), masks)
    assert merged("RAM", tau) == pytest.approx(reference_ram(tau, masks), abs=1e-15)


def test_ram_with_a_strict_mask_needs_more_than_the_percentile(tau):
    threshold = np.percentile(np.abs(tau), 90, axis=1)[:, None]
    masks = np.abs(tau) > np.maximum(threshold, 1e-5)
    assert merged("RAM, strict mask", tau) == pytest.approx(reference_ram(tau, masks), abs=1e-15)


def test_the_authors_ram_averages_the_active_and_keeps_the_unique(tau):
    times = np.maximum((tau != 0).sum(axis=0), 1)
    assert merged("RAM, authors' rule", tau) == pytest.approx(tau.sum(axis=0) / times, abs=1e-15)


def test_ties_trims_elects_and_averages(tau):
    assert merged("TIES", tau) == pytest.approx(reference_ties(tau, 0.2), abs=1e-15)


def test_dare_keeps_a_tenth_ten_times_as_large(tau):
    alone = (tau != 0).sum(axis=0) == 1
    result, total = merged("DARE", tau)[alone], tau.sum(axis=0)[alone]
    kept = result != 0
    assert result[kept] == pytest.approx(10 * total[kept] / 3)
    # A binomial share of 0.1, within five standard deviations.
    assert abs(kept.mean() - 0.1) < 5 * np.sqrt(0.09 / kept.size)


def test_what_dare_drops_follows_from_its_seed_and_the_trial(tau):
    first, second = merge("DARE", [tau, tau], seed=1)
    assert not np.array_equal(first != 0, second != 0)
    again, _ = merge("DARE", [tau, tau], seed=1)
    other, _ = merge("DARE", [tau, tau], seed=2)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_ram_is_averaging_bit_for_bit_once_nine_tenths_are_zero():
    tau = task_vectors(rng(0), 1000, 99)
    assert active_masks(tau).all()
    assert np.array_equal(merged("RAM", tau), merged("Simple Avg", tau))


def test_one_entry_more_and_the_mask_is_the_support():
    tau = task_vectors(rng(0), 1000, 100)
    assert np.array_equal(active_masks(tau), tau != 0)


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


def with_score(study, method, **changes):
    return replace(study, scores=tuple(replace(s, **changes) if s.method == method else s for s in study.scores))


def test_ram_above_averaging_would_be_an_advantage(results):
    better = with_score(with_score(results["merge"], "Simple Avg", cosine=0.5), "RAM", cosine=0.9, retention=1.0)
    for statement in ("RAM consistently", "RAM's advantage", "RAM's rescaling"):
        assert verdict(merging, statement, results["merge"]) is Verdict.NOT_REPRODUCED
        assert verdict(merging, statement, better) is Verdict.REPRODUCED


def test_dare_above_ties_is_not_the_printed_order(results):
    assert verdict(merging, "DARE", with_score(results["merge"], "DARE", cosine=0.99)) is Verdict.NOT_REPRODUCED


def test_table_2_leaves_the_papers_cells_empty_for_methods_it_lacks(outcomes):
    rows = {row[0]: row for row in outcomes["merge"].tables[1].rows}
    assert rows["RAM"][1] == "1.0000" and rows["RAM, strict mask"][1] == ""
