from io import StringIO

import pytest
from rich.console import Console
from scoreboard import BASE, MODELS, TASKS, Judge, answers, scores, stored

from rlmerge import MergeResult
from rlmerge.merging import ExpertSurvival

EXPERTS = [MODELS / f"rl-{task}" for task in TASKS]


@pytest.fixture(scope="module")
def judge():
    """A judge of 40 questions a task that has read the base and the experts."""
    judge = Judge("test.jsonl", (*TASKS, "add", "sort"))
    judge.items = tuple(item for i, item in enumerate(judge.items) if i % 500 < 40)
    judge.read((BASE, *EXPERTS))
    return judge


def result(out, peak=5_000_000):
    survival = ExpertSurvival("e", 100, 80, 40, 10, 0.5, 0.25, 0.6)
    return MergeResult(out, "ram", "exact", 0.5, 1, 1, peak, 1, 0, 1, 100, 80, (survival,) * 3, ())


def text(table):
    out = StringIO()
    Console(file=out, width=120).print(table)
    return [line.split() for line in out.getvalue().splitlines() if line.strip()]


def test_an_expert_keeps_all_of_its_gain_and_the_base_none(judge):
    assert judge.kept(EXPERTS, BASE) == ([0.0, 0.0, 0.0], "0% [0, 0]")
    shares, _ = judge.kept(EXPERTS, EXPERTS[1])
    assert shares[1] == 1.0
    assert all(share < 1.0 for share in (shares[0], shares[2]))


def test_scores_fit_a_line_each_and_show_what_was_kept_and_spent(judge):
    lines = text(scores(judge, EXPERTS, {"copy": result(EXPERTS[0]), "other": result(BASE, None)}))
    assert lines[1] == ["model", *TASKS, "add", "sort", "gain", "kept", "survived", "s", "MB"]
    assert lines[3] == ["base", *(f"{judge.mean(BASE, task):.3f}" for task in (*TASKS, "add", "sort"))]
    assert lines[4][:3] == ["rl-rev", f"{judge.mean(EXPERTS[0], 'rev'):.3f}", "100%"]
    assert lines[7][:3] == ["copy", f"{judge.mean(EXPERTS[0], 'rev'):.3f}", "100%"]
    assert lines[7][-3:] == ["80%", "0.50", "5"]
    assert lines[8][-3:] == ["80%", "0.50", "–"]
    assert len(lines) == 9


def test_stored_shows_what_rounding_took(judge):
    lines = text(stored(judge, {"bf16": (EXPERTS, result(BASE))}))
    assert lines[-1] == ["bf16", "80%", "10%", "0.500", "0.250", "0%", "[0,", "0]"]


def test_answers_show_questions_that_only_the_expert_gets_right(judge):
    lines = text(answers(judge, EXPERTS, "merge", EXPERTS[0]))[-3:]
    for question, right, base, expert, _ in lines:
        assert base != right == expert, question
