import pytest

from rlmerge.inspection import precision
from support.evidence import evidence


def test_nonfinite():
    found = precision.nonfinite(evidence(nonfinite=(0, 3)))
    assert found.level == "problem" and found.figures == {"coordinates of e1, base included": 3}
    assert precision.nonfinite(evidence()) is None


def test_mixed_dtypes():
    found = precision.mixed_dtypes(evidence(dtypes=("float32", "bfloat16", "float32")))
    assert found.level == "warning" and "e0 bfloat16" in found.text
    assert precision.mixed_dtypes(evidence()) is None


@pytest.mark.parametrize(
    ("dtype", "shares", "words"),
    [
        ("float32", (0.0, 0.9), "smallest step"),
        ("bfloat16", (0.8, 0.8), "too small"),
        ("bfloat16", (0.8, 0.1), "unequally"),
        ("bfloat16", (0.1, 0.2), "updates are dense"),
    ],
)
def test_the_unchanged_share_is_read_by_type(dtype, shares, words):
    found = precision.sparsity_reading(evidence(dtypes=(dtype,) * 3, unchanged=shares))
    assert words in found.text and dtype in found.title


def test_changes_below_epsilon():
    # 20 % changed, 15 % above 1e-5: a quarter of the changes is lost.
    found = precision.below_epsilon(evidence(unchanged=(0.8, 0.8), small=(0.85, 0.8)))
    assert found.figures["changes below 1e-5, e0"] == pytest.approx(0.25)
    assert precision.below_epsilon(evidence()) is None
