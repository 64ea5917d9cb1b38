from dataclasses import replace
from math import inf, nan

import pytest

from rlmerge.evaluate.report.summary import (
    divergence,
    fixed,
    headline,
    next_step,
    pairs,
    places,
    references,
    scoring_notes,
    shortened,
    verdicts,
)
from rlmerge.evaluate.statistics import Interval
from support.evaluations import SCORES, comparison, evaluation, health, hostile, spread


def rows(*verdicts_to_base_and_expert):
    """A merge of experts on tasks a, b, … with these verdicts."""
    merge = evaluation().merges[0]
    per_task = [
        replace(merge.per_task[0], task="abcdefgh"[i], verdict_to_base=base, verdict_to_expert=expert)
        for i, (base, expert) in enumerate(verdicts_to_base_and_expert)
    ]
    return evaluation(merges=(replace(merge, per_task=tuple(per_task)),), comparisons=())


@pytest.mark.parametrize(
    ("found", "level", "text"),
    [
        ([("better", "undecided")], "good", "Better than the base on a. Undecided against its expert on a."),
        ([("better", "worse"), ("better", "better")], "warning", "Better than its expert on b, worse on a."),
        ([("worse", "worse"), ("better", "better")], "problem", "Better than the base on b, worse on a."),
        ([("undecided", "undecided")] * 2, "info", "Undecided against the base on both own tasks."),
        ([("better", "worse")] * 3, "warning", "Worse than its expert on all 3 own tasks."),
        (
            [("better", "undecided")] * 4 + [("undecided", "undecided")] * 4,
            "info",
            "Better than the base on 4 of 8 own tasks, undecided on 4.",
        ),
    ],
)
def test_a_verdict_says_where_a_merge_is_better_worse_and_undecided(found, level, text):
    (verdict,) = verdicts(rows(*found))
    assert verdict.level == level and text in verdict.text


def test_a_verdict_leads_with_the_gain_that_is_kept_and_ends_with_the_worst_task():
    first = verdicts(evaluation())[0]
    # (0.302-0.252)/(0.435-0.252) = 0.2732, 0.3725 and 0.2987 on the three tasks
    assert first.title == "average keeps 31.5 % [24.5 %, 38.5 %] of the experts’ gain"
    assert first.text.endswith("Worst task: shift, 69.1 % of rl-shift.")


def test_without_own_tasks_nothing_is_called_lost():
    result = evaluation({"base": (0.1,), "merge": (0.1,)}, ("t",), experts=0)
    (verdict,) = verdicts(result)
    assert (verdict.level, verdict.label) == ("info", "no own tasks")
    assert verdict.title == "merge: mean score 0.1 [0.085, 0.115]"


def test_a_loss_on_a_task_that_no_expert_owns_is_said():
    found = evaluation()
    sort = replace(found.tasks[0], task="sort", experts=())
    lost = comparison("task-arithmetic", "base", "sort", -0.1, 0.03)
    found = replace(found, tasks=(*found.tasks, sort), comparisons=(*found.comparisons, lost))
    first, second, _ = verdicts(found)
    assert second.text.endswith("92.2 % of rl-rev. Other tasks: worse than the base on sort.")
    assert "Other tasks" not in first.text
    kept = replace(rows(("better", "undecided")).merges[0], model="task-arithmetic")
    (verdict,) = verdicts(replace(found, merges=(kept,)))
    assert (verdict.level, verdict.label) == ("warning", "below the base elsewhere")
    (verdict,) = verdicts(replace(found, merges=(replace(kept, per_task=()),)))
    assert (verdict.level, verdict.label) == ("problem", "below the base")
    assert verdict.text.endswith("Worse than the base on sort.")


def test_next_steps():
    only_experts = evaluation(dict(list(SCORES.items())[:4]))
    assert next_step(only_experts).startswith("Merge the experts")
    assert next_step(evaluation()).startswith("ties loses most on rev.")  # the lowest retention, 0.231 / 0.435
    undecided = evaluation({"base": (0.5,), "e": (0.52,), "m": (0.51,)}, ("t",), experts=1)
    assert "four times as many halve the intervals (now ±0.03 at the widest)" in next_step(undecided)
    good = evaluation({"base": (0.2,), "e": (0.6,), "m": (0.6,)}, ("t",), experts=1)
    assert next_step(good).startswith("Nothing here speaks against")


def test_headline():
    found = evaluation()
    assert headline(found) == "3 merges, 3 experts and their base on 3 tasks; all scores are from the cache"
    now = [replace(model, scored="now") for model in found.models]
    assert headline(replace(found, models=(now[0], *found.models[1:]))).endswith("; 6 models are from the cache")
    assert headline(replace(found, models=tuple(now))) == "3 merges, 3 experts and their base on 3 tasks"


def test_how_tasks_were_scored():
    found = evaluation()
    assert scoring_notes(found) == ["all 3 tasks: pass@1, n = 500"]
    rev, cnt, shift = found.tasks
    cnt = replace(cnt, metric="loss", higher_is_better=False, n=None, k=4)
    notes = scoring_notes(replace(found, tasks=(rev, cnt, shift)))
    assert notes == ["rev, shift: pass@1, n = 500", "cnt: loss, 4 samples an item, lower is better"]


@pytest.mark.parametrize(("half", "digits"), [(0.03, 3), (0.4, 2), (3.1, 1), (40.0, 0), (0.00004, 4)])
def test_decimals_show_two_digits_of_the_interval(half, digits):
    assert places([spread(0.5, half)]) == digits


def test_decimals_without_intervals():
    assert places([Interval(0.5, nan, nan)]) == 3


def test_fixed_decimals():
    assert [fixed(v, 2) for v in (-0.125, -0.001, 1.5, None, float("nan"))] == ["−0.12", "0.00", "1.50", "–", "–"]


def test_means_stand_for_pairs_and_decided_ones_come_first():
    found = pairs(evaluation())
    assert {pair.task for pair in found} == {"mean"} and len(found) == 3 + 3
    verdict = [pair.verdict == "undecided" for pair in found]
    assert verdict == sorted(verdict)
    single = evaluation({"base": (0.2,), "e": (0.6,), "m": (0.6,)}, ("t",), experts=1)
    assert [pair.task for pair in pairs(single)] == ["t"]


def test_a_divergence_that_is_infinite_is_told_from_one_that_is_not_measured():
    model = replace(health().models[0], name="m", kl_to={"base": inf, "e": 0.125})
    assert [divergence(model, name) for name in ("base", "e", "m")] == ["∞", "0.125", "–"]


def test_references_keep_the_order_of_the_models():
    first, second = health().models[:2]
    base = replace(first, name="base", kl_to={"e": 0.1})
    expert = replace(second, name="e", kl_to={"base": 0.1, "gone": 0.2})
    assert references([base, expert]) == ["base", "e", "gone"]


def test_short_names_stay_different_and_lose_what_moves_a_cursor():
    long = ["a" * 30 + str(i) + "b" * 30 for i in range(3)]
    short = shortened(evaluation(dict.fromkeys(long, (0.5,)), ("t",), experts=1), 20)
    names = [model.name for model in short.models]
    assert len(set(names)) == 3 and all(len(name) <= 20 for name in names)
    assert {cell.model for cell in short.scores} == set(names)
    assert short.merges[0].model == names[2] and short.merges[0].per_task[0].expert == names[1]
    bad = shortened(hostile(), 40)
    assert "\x1b" not in str(bad) and "\n" not in bad.warnings[0]
    assert set(bad.health.models[3].kl_to) <= {model.name for model in bad.models}
