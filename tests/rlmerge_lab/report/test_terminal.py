"""The terminal report of a study keeps to its width and says what it left out."""

import pytest

from rlmerge.report.axes import columns
from rlmerge_lab.claims import judge
from rlmerge_lab.report.terminal import study_text
from support.studies import METHODS, study


@pytest.fixture(scope="module")
def both():
    rows = study()
    return rows, judge(rows).to_dict()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_asked(both, width):
    assert max(columns(line) for line in study_text(*both, width=width, color=False).splitlines()) <= width


def test_narrow_tables_say_what_they_left_out(both):
    assert "Left out at this width: " in study_text(*both, width=60, color=False)
    assert "Left out at this width: " not in study_text(*both, width=400, color=False)


def test_every_verdict_and_method_is_there(both):
    rows, judged = both
    text = study_text(rows, judged, width=200, color=False)
    for verdict in judged["verdicts"]:
        assert f"{verdict['verdict']}" in text and verdict["claim"] in text
    assert all(f"\n{method} " in text for method in METHODS)


def test_colour_only_when_asked(both):
    assert "\x1b[" in study_text(*both, width=80, color=True)
    assert "\x1b[" not in study_text(*both, width=80, color=False)
