"""The three forms of a study's report, on hand-made studies: the same numbers, none of them invented, none missing."""

import math
import re
from xml.etree import ElementTree

import pytest

from rlmerge_lab.claims import judge
from rlmerge_lab.report.markdown import study_markdown
from rlmerge_lab.report.study import study_html, study_text
from support.studies import SPLIT, study


def texts(rows):
    judged = judge(rows).to_dict()
    page = study_markdown(rows, judged)
    return {
        "terminal": study_text(rows, judged, width=120, color=False),
        "html": study_html(rows, judged),
        "markdown": page["README.md"],
        "pictures": "".join(page.values()),
    }


@pytest.fixture(scope="module")
def rows():
    gains = {("rl", "linear", "default"): lambda seed: 0.5 + SPLIT[seed]}
    return study(gains=gains)


@pytest.fixture(scope="module")
def shown(rows):
    return texts(rows)


@pytest.mark.parametrize("form", ["terminal", "html", "markdown"])
def test_the_answer_is_in_the_numbers_of_the_study(shown, form):
    text = re.sub(r"\s+", " ", shown[form].replace("\\", ""))
    # RL keeps 0.5 + 0.03 + the drift's mean 0.008, SFT 0.5 + 0.008; the interval is worked out in support.studies.
    assert "Averaged, RL experts keep 53.8 % of their gain and accuracy-matched SFT experts 50.8 %" in text
    assert "a difference of 3.0 points [1.0, 5.0] (n = 5). RL merges better here." in text
    assert "no difference by the stated margin" in text


@pytest.mark.parametrize("form", ["terminal", "html", "markdown"])
def test_everything_a_reader_needs_to_run_it_again(shown, rows, form):
    for what in (rows["command"], "0, 1, 2, 3, 4", "2.25 (training 1.50, study 0.75)", "607,104", "torch 2.13.0"):
        assert what in shown[form]
    assert "takes at most 2 experts, not 5" in shown[form]


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_every_claim_has_source_verdict_control_and_limits(shown, rows, form):
    judged = judge(rows).to_dict()
    text = re.sub(r"\\(.)", r"\1", shown[form]).replace("&#x27;", "'")
    for verdict in judged["verdicts"]:
        for part in ("claim", "source", "control", "cannot_say", "reason"):
            assert verdict[part] in text
    assert "arXiv 2606.18521" in text and judged["rule"] in text
    assert f"{judged['comparisons']} comparisons decide these verdicts" in text


def test_it_says_how_scores_came_about(shown):
    assert "not a count" in shown["html"] and "not a count" in shown["markdown"]
    sampled = texts(study(scores="sampled"))
    assert "carry sampling noise" in sampled["html"] and "not a count" not in sampled["markdown"]


def test_what_becomes_of_verdicts_among_all_comparisons_is_said(shown):
    # p = 0.0132 for the averaged difference by itself; with dozens of comparisons it does not hold.
    text = re.sub(r"\s+", " ", shown["terminal"])
    head = "✓ supported (among all comparisons: undecided here): "
    assert f"{head}RL experts merge better than accuracy-matched SFT experts when averaged." in text


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": 0},
        {"seeds": 1},
        {"seeds": 2},
        {"arms": ("rl",)},
        {"arms": ("sft", "rft")},
        {"methods": ("linear",)},
        {"health": []},
        {"health": None, "landscape": None, "sweep": None, "geometry": None},
        {"merges": [], "experts": [], "bases": []},
        {"versions": {}, "cpu_hours": None, "cpu_seconds": None, "skipped": None, "parameters": None},
    ],
    ids=lambda change: " ".join(change),
)
def test_studies_that_lack_something_still_have_a_report(change):
    _hold_no_holes(texts(study(**change)))


def test_time_by_the_clock_is_called_an_upper_bound():
    assert not any("at most 2.25" in text for text in texts(study(cpu_at_most=False)).values())
    assert all("at most 2.25" in text for text in texts(study(cpu_at_most=True)).values())


def test_nan_is_never_printed():
    rows = study()
    for part, fields in {
        "merges": ("gain_kept", "retention", "norm"),
        "experts": ("norm", "unchanged"),
        "geometry": ("cosine", "conflict_norm"),
        "sweep": ("gain_kept",),
        "health": ("entropy", "seq_rep_4"),
    }.items():
        for number, row in enumerate(rows[part]):
            row |= dict.fromkeys(fields, (math.nan, None, math.inf)[number % 3])
    rows["landscape"][0]["score"][0][0] = None
    _hold_no_holes(texts(rows))


def _hold_no_holes(found):
    for form, text in found.items():
        words = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", text, flags=re.DOTALL)
        assert not re.search(r"(?<![\w-])(nan|inf|None)(?![\w-])", words), form


def test_names_from_outside_are_only_text():
    hostile = '"><script>alert(1)</script>|`x`\x1b[31m'
    rows = study(arms=("rl", "sft", hostile), methods=("linear", "ties", hostile), command=hostile)
    found = texts(rows)
    outside_code = re.sub(r"```.*?```", "", found["pictures"], flags=re.DOTALL)
    assert "<script>alert" not in found["html"] and "<script>alert" not in outside_code
    assert "\x1b" not in found["terminal"] + found["markdown"]
    for name, content in study_markdown(rows, judge(rows).to_dict()).items():
        assert name == "README.md" or ElementTree.fromstring(content) is not None
    for block in found["markdown"].split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.split(r"(?<!\\)\|", row)) for row in rows}) <= 1
