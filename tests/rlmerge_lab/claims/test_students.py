"""Merging against distillation, on curves worked by hand."""

import pytest

from rlmerge_lab.claims import judge
from rlmerge_lab.claims.students import tokens_to
from support.studies import DRIFT, TASKS, second_edition, study

CURVE = [(0.0, 0.2), (100.0, 0.4), (300.0, 0.3), (400.0, 0.6)]


@pytest.mark.parametrize(
    ("level", "tokens"), [(0.1, 0), (0.2, 0), (0.3, 50), (0.4, 100), (0.45, 350), (0.6, 400), (0.9, 400)]
)
def test_tokens_are_read_where_a_level_is_first_reached(level, tokens):
    # 0.45 lies half way from 0.3 to 0.6; a level that is never reached counts with all tokens.
    assert tokens_to(CURVE, level) == pytest.approx(tokens)


def verdicts(rows):
    return {verdict.key: verdict for verdict in judge(rows).verdicts}


def test_a_better_start_reaches_the_same_level_with_fewer_tokens():
    found = verdicts(second_edition())["distil-sooner"]
    # The base's student ends at 0.6 with 2000 tokens; from 0.5 it takes 1000 of them.
    assert (found.decides[0].a, found.decides[0].b) == (pytest.approx(0.5), 1.0)
    assert found.decides[0].differences == pytest.approx([-0.5] * 5) and found.outcome == "supported"
    # From 0.45 it takes 1500.
    assert found.beside[0].differences == pytest.approx([-0.25] * 5)


def test_a_student_that_falls_behind_is_no_support():
    rows = second_edition()
    for row in rows["students"]:
        if row["arm"] == "distil-own":
            row["curve"] = [[tokens, dict.fromkeys(TASKS, 0.5)] for tokens in (0, 1000, 2000)]
    found = verdicts(rows)["distil-sooner"]
    assert found.decides[0].differences == (0.0,) * 5 and found.outcome == "not supported"


def test_whether_distillation_overtakes_the_merge():
    found = verdicts(second_edition())["distil-overtakes"]
    # 0.6 on test against the merge's 0.3 + 0.4 · 0.5 and 1.4 times the seed's drift.
    assert found.decides[0].differences == pytest.approx([0.1 - 1.4 * drift for drift in DRIFT])


def test_unknown_scores_and_absent_students_are_no_error():
    rows = second_edition()
    for row in rows["students"]:
        row["curve"] = [[0, {"make": None}], [None, {"make": 0.5}]]
        row["test"] = {}
    assert not any(verdicts(rows)[key].tested for key in ("distil-sooner", "distil-overtakes"))
    assert not verdicts(study())["distil-sooner"].tested
