"""Measurements as users write them."""

import pytest

from rlmerge.errors import RequestError
from rlmerge_lab.scaling.measured import parse_measured


@pytest.mark.parametrize(
    ("text", "billions", "sparsity"),
    [
        ("mine=7.6B:0.72", 7.6, 0.72),
        ("mine=7600000000:72%", 7.6, 0.72),
        ("mine=500M:.5", 0.5, 0.5),
        ("mine=7.6e9:1", 7.6, 1.0),
        ("mine=1T:0", 1000.0, 0.0),
    ],
)
def test_forms(text, billions, sparsity):
    found = parse_measured(text)
    assert found.name == "mine"
    assert (found.billions, found.sparsity) == pytest.approx((billions, sparsity))


@pytest.mark.parametrize(
    "text", ["", "mine", "mine=7B", "=7B:0.5", "mine=7B:x", "mine=0B:0.5", "mine=7B:1.5", "a=7B:72"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(RequestError) as refusal:
        parse_measured(text)
    assert refusal.value.where == "--measured" and refusal.value.exit_code == 2
