"""Paired intervals of the winner, and rank correlations."""

import numpy as np
import pytest

from rlmerge.evaluate.evaluator import Score
from rlmerge.search.confirm import Entrant, confirm, correlation
from rlmerge.search.objectives import Standards, read_objective

OWN = Standards("base", {"t": ("e",)})


def scores(**items):
    return {"t": {name: Score.of_items("t", "pass@1", values) for name, values in items.items()}}


def test_differences_are_paired_over_the_same_items():
    rng = np.random.default_rng(1)
    hard = rng.random(200) * 0.8
    found = scores(base=hard, e=hard + 0.2, winner=hard + 0.15, other=hard + 0.1)
    entrants = [Entrant("winner", "winner", 0.9), Entrant("other", "task arithmetic", 0.5)]
    finalists, comparisons, _ = confirm(found, entrants, [read_objective("gain_kept", "")], OWN)
    assert [each.test.value for each in finalists] == [pytest.approx(0.75), pytest.approx(0.5)]
    (pair,) = comparisons
    # Items differ by 0.8 and models by a constant: in pairs nothing is left to chance.
    assert pair.difference.value == pytest.approx(0.25)
    assert pair.difference.high - pair.difference.low < 1e-9
    assert pair.verdict == "better"


def test_equal_models_are_undecided():
    rng = np.random.default_rng(2)
    base = rng.random(50) * 0.5
    noise = rng.standard_normal((2, 50)) * 0.2
    found = scores(base=base, e=base + 0.3, winner=base + 0.2 + noise[0], other=base + 0.2 + noise[1])
    entrants = [Entrant("winner", "winner", 0.9), Entrant("other", "task arithmetic", 0.5)]
    _, (pair,), _ = confirm(found, entrants, [read_objective("gain_kept", "")], OWN)
    assert pair.verdict == "undecided"


def test_rank_correlation_by_hand():
    # Ranks 0 1 2 3 4 against 0 1 2 4 3: 1 − 6 Σd² / (n (n² − 1)) = 1 − 6 · 2 / 120.
    pairs = [(1.0, 10.0), (2.0, 11.0), (3.0, 12.0), (4.0, 14.0), (50.0, 13.0)]
    assert correlation("p", "o", pairs).rho == pytest.approx(0.9)
    # Ties share the mean of their ranks: 0 1.5 1.5 3 4 against themselves.
    assert correlation("p", "o", [(a, a) for a in (1.0, 2.0, 2.0, 3.0, 4.0)]).rho == pytest.approx(1.0)
    assert correlation("p", "o", [(1.0, b) for b in range(5)]).rho is None
    assert correlation("p", "o", pairs[:4]) is None
