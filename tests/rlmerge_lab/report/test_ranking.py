"""The tables and pictures of methods on RL experts, on hand-made studies."""

import re

import pytest

from rlmerge_lab.claims import judge
from rlmerge_lab.report import ranking
from rlmerge_lab.report.markdown import study_markdown
from rlmerge_lab.report.study import study_html, study_text
from rlmerge_lab.report.words import method_answers, question
from support.studies import SPLIT, second_edition, study


@pytest.fixture(scope="module")
def rows():
    gains = {("rl", "covariance", "tuned"): lambda seed: 0.6 + SPLIT[seed]}
    return second_edition(gains=gains, off={("covariance", "tuned"): lambda seed: 0.01})


@pytest.fixture(scope="module")
def judged(rows):
    return judge(rows).to_dict()


def column(sheet, name):
    at = sheet.head.index(name)
    return {row[0]: row[at] for row in sheet.rows}


def test_methods_are_ranked_beside_what_they_do_off_task(judged):
    sheet = ranking.ranked(judged)
    assert sheet.rows[0][0] == "covariance" and len(sheet.rows) == 9
    # 0.6 + 0.03 + the drift's mean 0.008; the interval of the difference is 0.1 above the one in support.studies.
    assert column(sheet, "gain kept")["covariance"].startswith("63.8 % [")
    assert column(sheet, "minus task arithmetic")["covariance"] == "13.0 points [11.0, 15.0] (n = 5)"
    assert column(sheet, "minus task arithmetic")["task_arithmetic"] == "–"
    # A change of +0.01 or −0.02, and a tenth of the drift.
    assert column(sheet, "off task, points")["covariance"].startswith("1.1 [")
    assert column(sheet, "off task, points")["ties"].startswith("−1.9 [")
    assert column(sheet, "off task, merged / base")["covariance"].startswith("101.1 % [")
    looks = column(sheet, "looks at")
    assert (looks["ties"], looks["regmean:sum"], looks["tsv"]) == ("signs", "inputs", "subspaces")


def test_layers_stand_beside_nothing_and_everything(judged):
    sheet = ranking.by_layer(judged)
    assert sheet.head[1:] == [
        "nothing", "layer 0", "layer 1", "layer 2", "outside layers", "all but layer 0", "everything",
    ]  # fmt: skip
    (own,) = (row for row in sheet.rows if row[0] == "covariance")
    # From 50.8 to 63.8: a tenth of it by each layer, nine tenths by all but layer 0.
    assert [cell.split(" %")[0] for cell in own[1:]] == ["50.8", "52.1", "52.1", "52.1", "50.8", "62.5", "63.8"]


def test_students_by_their_start(judged):
    sheet = ranking.students(judged)
    assert [row[0] for row in sheet.rows] == [
        "distil, from the base",
        "distil-ta, from tuned task arithmetic",
        "distil-own, from the merge by covariance",
    ]
    assert sheet.rows[0][1] == "2,000" and column(sheet, "at the end")["distil, from the base"].startswith("60.0 %")
    assert column(sheet, "off task, points")["distil, from the base"].startswith("−3.0")


def test_held_tasks_have_a_table_for_each_rule(judged):
    assert column(ranking.off_task(judged, "tuned"), "rl")["covariance"].startswith("1.1 [")
    assert column(ranking.off_task(judged, "default"), "rl")["covariance"].startswith("−1.9 [")


def test_every_picture_is_on_the_page_and_in_the_files(rows, judged):
    files = study_markdown(rows, judged)
    assert {"drift.svg", "layers.svg", "students.svg"} <= set(files)
    page = study_html(rows, judged)
    for section in ("methods", "off-task", "students", "untested"):
        assert f'id="{section}"' in page


def test_the_drift_s_marks_lie_at_their_values(judged):
    drift = next(one for one in ranking.pictures_of_methods(judged) if one.key == "drift")
    assert "covariance, 1.08: 63.8 %" in drift.svg and "ties, −1.92: 50.8 %" in drift.svg
    assert ("looks at signs", 1) in drift.legend


def test_layers_of_many_methods_are_drawn_without_bands(judged):
    layers = next(one for one in ranking.pictures_of_methods(judged) if one.key == "layers")
    assert 'class="band"' not in layers.svg and len(layers.legend) == 5
    few = judged | {"summary": judged["summary"] | {"layers": judged["summary"]["layers"][:2]}}
    assert 'class="band"' in next(one for one in ranking.pictures_of_methods(few) if one.key == "layers").svg


def test_sentences_have_the_numbers_of_the_verdicts(rows, judged):
    lines = method_answers(judged)
    assert lines[2] == (
        "Of this program, covariance keeps 63.8 % of the experts' gain and task_arithmetic 50.8 %: a difference of "
        "13.0 points [11.0, 15.0] (n = 5). “The method covariance beats tuned task arithmetic.”: supported."
    )
    assert "covariance changes pass@1 by 1.1 points and task_arithmetic by −1.9" in lines[3]
    assert question(rows) == "What merges RL experts best?"
    assert question(study()) == "Do RL experts merge better or worse than supervised ones?"


def test_a_study_of_the_first_edition_has_none_of_it():
    rows = study()
    judged = judge(rows).to_dict()
    assert not ranking.by_layer(judged).rows and not ranking.students(judged).rows
    assert not ranking.off_task(judged, "tuned").rows and not ranking.pictures_of_methods(judged)
    assert not ranking.pictures_of_students(judged)
    assert 'id="students"' not in study_html(rows, judged)


def test_claims_without_a_figure_are_listed_with_the_reason(rows, judged):
    page = study_markdown(rows, judged)["README.md"].replace("\\", "")
    assert "## Not tested here" in page and "No study of the laboratory measures it." in page
    claim = "RL experts merge better than accuracy-matched SFT experts when averaged."
    assert page.count(claim) == 1
    assert f"{len(judged['verdicts'])} claims:" in re.sub(r"\s+", " ", study_text(rows, judged, width=100, color=False))
