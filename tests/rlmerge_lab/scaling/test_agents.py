"""Overlap by hand, the limits that the generator implies, and the verdicts."""

from dataclasses import replace

import numpy as np
import pytest

from rlmerge_lab.scaling import agents
from rlmerge_lab.scaling.agents import overlap
from rlmerge_lab.scaling.verdict import Verdict
from support.claims import verdict


def test_overlap_by_hand():
    jaccard, cosine, null = overlap(np.array([3.0, 4.0, 0.0, 0.0]), np.array([0.0, 5.0, 12.0, 0.0]))
    assert jaccard == 1 / 3
    assert cosine == pytest.approx(20 / (5 * 13))
    assert null == pytest.approx(20 / (5 * 13))


def test_the_null_is_the_spread_of_cosines_under_random_signs():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 60))
    signs = generator.choice([-1.0, 1.0], (4000, 60))
    cosines = signs @ (a * b) / np.linalg.norm(a) / np.linalg.norm(b)
    assert overlap(a, b)[2] == pytest.approx(cosines.std(), rel=0.05)  # 4000 draws know a deviation to about 1 %


def test_disjoint_supports_overlap_in_the_shared_fifth_alone(results):
    for row in results["agents"].disjoint:
        # 0.2 / 1.8 and 2.4 / 2.6; truncating the shared fifth costs less than one entry in a thousand.
        assert row.jaccard == pytest.approx(1 / 9, abs=1e-3)
        assert row.unique == pytest.approx(12 / 13, abs=1e-3)


def test_independent_supports_exceed_chance_and_approach_the_disjoint(results):
    rows = results["agents"].independent
    assert all(row.jaccard > row.jaccard_chance for row in rows)
    assert rows[0].jaccard > rows[-1].jaccard > 1 / 9
    # Two supports of density 1/4 by chance: 1/16 over 7/16.
    assert rows[0].active == pytest.approx(0.25, abs=0.005)
    assert rows[0].jaccard_chance == pytest.approx(1 / 7, abs=0.005)


def test_rising_overlap_is_not_falling(results):
    study = results["agents"]
    assert verdict(agents, "Jaccard is stable", replace(study, independent=study.independent[::-1])) is (
        Verdict.NOT_REPRODUCED
    )


def test_aligned_agents_are_not_null(results):
    rows = tuple(replace(row, cosine=0.5) for row in results["agents"].independent)
    assert verdict(agents, "Cosine", replace(results["agents"], independent=rows)) is Verdict.NOT_REPRODUCED
