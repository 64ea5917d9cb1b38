"""Figures and verdicts in a line."""

import pytest

from rlmerge_lab.report.words import (
    adjusted,
    beside_lines,
    claimed_line,
    control_line,
    difference,
    figure_line,
    probability,
)

SHARE = {
    "name": "gain kept", "claimed": "above 0", "margin": 0.05, "unit": "share", "a": 0.538, "b": 0.508, "value": 0.03,
    "low": 0.0104, "high": 0.0496, "n": 5, "p": 0.01324, "p_holm": 0.4, "outcome": "supported", "empty": "",
}  # fmt: skip


def test_shares_differ_in_points():
    assert difference(SHARE) == "3.0 points [1.0, 5.0] (n = 5)"
    assert figure_line(SHARE) == "gain kept: 3.0 points [1.0, 5.0] (n = 5), means 53.8 % and 50.8 %"
    assert difference(SHARE | {"value": -0.0301, "low": -0.05, "high": -0.0001}) == "−3.0 points [−5.0, 0.0] (n = 5)"


def test_other_numbers_keep_three_digits():
    norm = SHARE | {"unit": "number", "value": -0.0051234, "low": None, "high": None, "n": 2}
    assert difference(norm) == "−0.00512 (n = 2)"


def test_nothing_known_says_why():
    gone = SHARE | {"value": None, "low": None, "high": None, "a": None, "b": None, "n": 0, "empty": "no arm rft"}
    assert figure_line(gone) == "gain kept: not known (no arm rft)"


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("supported", "equal by the margin"),
        ("not supported", "not equal"),
        ("undecided here", "not shown to be equal"),
    ],
)
def test_controls_say_whether_they_held(outcome, said):
    assert control_line(SHARE | {"claimed": "near 0", "outcome": outcome}) == f"{figure_line(SHARE)}: {said}"


def test_the_test_behind_a_figure():
    assert claimed_line(SHARE) == "claimed above 0, margin ±5 points, p = 0.013, after Holm 0.4"
    assert claimed_line(SHARE | {"p": None, "p_holm": None}) == "claimed above 0, margin ±5 points"


@pytest.mark.parametrize(("p", "shown"), [(0.04567, "0.046"), (1.0, "1"), (1e-9, "<0.0001"), (0.0, "<0.0001")])
def test_small_p(p, shown):
    assert probability(p) == shown


def test_a_verdict_that_does_not_hold_among_all_says_so():
    assert adjusted({"verdict": "supported", "adjusted": "supported"}) == "supported"
    shown = adjusted({"verdict": "supported", "adjusted": "undecided here"})
    assert shown == "supported (among all comparisons: undecided here)"


def test_many_figures_beside_are_counted_and_few_are_listed():
    one = SHARE | {"name": "retention, rl − sft"}
    each = [SHARE | {"name": f"gain kept, m{n}", "outcome": outcome} for n, outcome in enumerate(
        ["supported"] * 3 + ["not supported"] * 2 + ["undecided here"])]  # fmt: skip
    assert len(beside_lines({"beside": [one, *each[:3]]})) == 4
    lines = beside_lines({"beside": [one, *each]})
    assert lines[0].startswith("retention, rl − sft: 3.0 points")
    assert lines[1:] == ["gain kept, 6 comparisons one by one: 3 supported, 2 not supported, 1 undecided here"]
