import pytest

from rlmerge.inspection import merging
from support.evidence import evidence


@pytest.mark.parametrize(("kept", "level"), [(0.33, "warning"), (0.9, "good")])
def test_dilution(kept, level):
    found = merging.dilution(evidence(kept=kept))
    assert found.level == level and found.figures["kept of e0's own change"] == kept


def test_dilution_of_dense_experts_is_judged_by_direction():
    found = merging.dilution(evidence(own=(0.01, 0.01), kept=0.2))
    assert found.level == "warning" and found.figures == {"kept of e0": 0.2, "kept of e1": 0.2}
    assert "direction" in found.title


def test_no_dilution_with_one_expert_or_without_changes():
    assert merging.dilution(evidence(kept=float("nan"))) is None
    assert merging.dilution(evidence(relative=(0.1,), own=(1.0,))) is None


@pytest.mark.parametrize(("jaccard", "words"), [(0.11, "as chance says"), (0.5, "5.0 to 5.0 times")])
def test_overlap_beside_chance(jaccard, words):
    found = merging.overlap(evidence(jaccard=jaccard, chance=0.1))
    assert words in found.title and found.figures["by chance e0, e1"] == 0.1


@pytest.mark.parametrize(
    ("share", "cosine", "level"),
    [(0.7, -0.4, "warning"), (0.5, 0.01, "good"), (0.3, 0.5, "info"), (0.52, -0.02, "good")],
)
def test_conflict_means_more_than_random_signs(share, cosine, level):
    found = merging.conflict(evidence(conflict=share, cosine=cosine))
    assert found.level == level and found.figures["conflict share e0, e1"] == share


@pytest.mark.parametrize(("deviations", "level"), [(3.9, "good"), (4.1, "warning")])
def test_conflict_counts_from_four_standard_deviations_of_chance(deviations, level):
    assert merging.conflict(evidence(conflict=0.6, spread=0.1 / deviations)).level == level


def test_conflict_needs_two_that_moved():
    assert merging.conflict(evidence(conflict=float("nan"))) is None
    assert merging.conflict(evidence(relative=(0.1,))) is None


def test_uneven_norms():
    assert "e1's update is 10.0 times" in merging.uneven_norms(evidence(relative=(0.01, 0.1))).title
    assert merging.uneven_norms(evidence(relative=(0.01, 0.02))) is None


@pytest.mark.parametrize(("survived", "level"), [(0.75, "warning"), (0.99, "good")])
def test_erasure(survived, level):
    found = merging.erasure(evidence(survived=survived))
    assert found.level == level and found.figures["survives linear"] == survived


def test_degenerate_masks():
    rows = (((30,), 0.95), ((30,), 0.85), ((40,), 0.2))
    found = merging.degenerate_masks(evidence(rows=rows))
    assert list(found.figures.values()) == pytest.approx([0.6, 0.3])
    assert found.level == "warning"
    assert merging.degenerate_masks(evidence(rows=(((5,), 0.5),))) is None
    assert merging.degenerate_masks(evidence(rows=(((1,), 0.95), ((199,), 0.2)))) is None, "half a percent: norms"
    assert merging.degenerate_masks(evidence(rows=(((5,), 0.85),))).level == "info"
