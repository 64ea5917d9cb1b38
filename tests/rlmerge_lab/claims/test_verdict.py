"""The rule over several figures, and the correction for many comparisons."""

import pytest

from rlmerge_lab.claims.figure import Figure, Margin, Outcome, Side, from_seeds
from rlmerge_lab.claims.verdict import Verdict, adjust

MARGIN = Margin(0.05)


def figure(name, *values, side=Side.ABOVE):
    return from_seeds(name, dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0), side, MARGIN)


def verdict(*figures, **more):
    return Verdict("k", "group", "claim", "source", figures, "control", "limits", **more)


UP, DOWN = figure("up", 0.30, 0.31, 0.32), figure("down", -0.30, -0.31, -0.32)
OPEN, EQUAL = figure("open", 0.5, -0.5, 0.1), figure("equal", 0.001, 0.0, -0.001)


@pytest.mark.parametrize(
    ("figures", "outcome"),
    [
        ((UP,), "supported"),
        ((UP, UP), "supported"),
        ((UP, OPEN), "undecided here"),
        ((UP, EQUAL), "not supported"),
        ((OPEN, DOWN), "not supported"),
        ((OPEN,), "undecided here"),
    ],
)
def test_every_deciding_figure_must_agree(figures, outcome):
    assert verdict(*figures).outcome == outcome


def test_reasons_name_what_decided():
    assert verdict(UP).reason == "The interval lies on the claimed side of 0."
    assert verdict(DOWN).reason == "The interval lies on the other side of 0."
    assert verdict(EQUAL).reason == "The interval lies within the margin of 0."
    assert "up, supported; open, undecided here" in verdict(UP, OPEN).reason
    small = figure("small", 0.010, 0.011, 0.012)
    assert (
        verdict(small).reason == "The interval lies within the margin of 0: a difference, but one too small to count."
    )
    assert verdict(Figure("x", Side.ABOVE, MARGIN, empty="no seeds")).reason == "No interval: no seeds."


def test_the_cause_of_no_effect_is_undecided():
    moot = verdict(UP, moot="There is no gap.")
    assert moot.outcome is Outcome.UNDECIDED and moot.reason == "There is no gap."


def test_holm_by_hand():
    """Three p values p1 < p2 < p3 become 3·p1, max(that, 2·p2), max(that, p3)."""
    figures = [figure("a", 0.30, 0.31, 0.32), figure("b", 0.30, 0.36, 0.42), figure("c", 0.30, 0.50, 0.10)]
    p = [f.p for f in figures]
    assert p == sorted(p)
    (found,), count = adjust([verdict(*reversed(figures))])
    held = {f.name: f.p_holm for f in found.decides}
    expected = [min(1, 3 * p[0])]
    expected.append(max(expected[0], min(1, 2 * p[1])))
    expected.append(max(expected[1], p[2]))
    assert count == 3 and [held[name] for name in "abc"] == pytest.approx(expected)


def test_opposite_claims_count_one_comparison():
    found, count = adjust([verdict(UP), verdict(UP.flipped())])
    assert count == 1
    assert [v.outcome for v in found] == ["supported", "not supported"]
    assert [v.adjusted for v in found] == ["supported", "not supported"]


def test_what_holds_alone_may_not_hold_among_many():
    # p = 0.0132 by itself (test_figure works it out); among ten comparisons Holm makes it 0.132.
    lone = figure("lone", 0.1, 0.2, 0.3, 0.4, 0.5)
    alone, _ = adjust([verdict(lone)])
    many, count = adjust([verdict(lone), *(verdict(figure(f"n{i}", 0.5, -0.5, 0.1)) for i in range(9))])
    assert (alone[0].outcome, alone[0].adjusted) == ("supported", "supported")
    assert count == 10 and (many[0].outcome, many[0].adjusted) == ("supported", "undecided here")
    assert many[0].decides[0].p_holm == pytest.approx(10 * 0.0132351, abs=1e-5)


def test_equivalence_among_many_needs_the_wide_interval():
    tight = figure("tight", 0.0100, 0.0000, -0.0100)
    (alone,), _ = adjust([verdict(tight)])
    many, _ = adjust([verdict(tight), *(verdict(figure(f"n{i}", 0.5, -0.5, 0.1)) for i in range(30))])
    assert alone.adjusted == "not supported" and many[0].adjusted == "undecided here"


def test_figures_without_interval_are_no_comparison():
    _, count = adjust([verdict(Figure("x", Side.ABOVE, MARGIN, empty="none")), verdict(UP)])
    assert count == 1
