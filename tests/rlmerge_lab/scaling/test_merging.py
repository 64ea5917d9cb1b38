"""The mergers of Table 2 against independent float64 definitions written from the papers' equations."""

from __future__ import annotations

import numpy as np
import pytest

from rlmerge_lab.scaling.generator import rng, task_vectors
from rlmerge_lab.scaling.merging import MERGERS, active_masks


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
    return MERGERS[name](tau, rng(0, 9))


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


def test_ram_is_averaging_bit_for_bit_once_nine_tenths_are_zero():
    tau = task_vectors(rng(0), 1000, 99)
    assert active_masks(tau).all()
    assert np.array_equal(merged("RAM", tau), merged("Simple Avg", tau))


def test_one_entry_more_and_the_mask_is_the_support():
    tau = task_vectors(rng(0), 1000, 100)
    assert np.array_equal(active_masks(tau), tau != 0)
