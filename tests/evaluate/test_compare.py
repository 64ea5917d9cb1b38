import numpy as np
import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.compare import Comparer, check_own
from rlmerge.evaluate.evaluator import Score

ROLES = {"base": "base", "rl-a": "expert", "rl-b": "expert", "ta": "merge", "ties": "merge"}


def row(task, base, a, b, ta, ties, higher=True, count=200):
    """Scores of the five models: the given means with 0.02 times the same noise, so that pairs are sharp."""
    noise = np.random.default_rng(5).normal(size=count)
    noise -= noise.mean()
    return {
        name: Score.of_items(task, "acc", (mean + 0.02 * noise).tolist(), higher_is_better=higher)
        for name, mean in zip(ROLES, (base, a, b, ta, ties), strict=True)
    }


def comparer(*rows):
    return Comparer({row["base"].task: row for row in rows}, ROLES)


def test_what_a_merge_keeps_by_hand():
    found = comparer(row("a", 0.2, 0.6, 0.2, 0.5, 0.3), row("b", 0.4, 0.4, 0.8, 0.6, 0.9))
    own = {"a": ("rl-a",), "b": ("rl-b",)}
    merge = found.merge("ta", own)
    a, b = merge.per_task
    # (0.5 − 0.2) / (0.6 − 0.2) and (0.6 − 0.4) / (0.8 − 0.4)
    assert (a.gain_kept.value, b.gain_kept.value) == pytest.approx((0.75, 0.5))
    assert merge.gain_kept.value == pytest.approx(0.625)
    # 0.5 / 0.6 and 0.6 / 0.8; degradation is that less 1
    assert (a.retention.value, b.retention.value) == pytest.approx((5 / 6, 0.75))
    assert (a.degradation.value, b.degradation.value) == pytest.approx((-1 / 6, -0.25))
    assert merge.worst.task == "b" and merge.mean.value == pytest.approx(0.55)
    assert merge.retention.value == pytest.approx((5 / 6 + 0.75) / 2)
    assert (a.difference_to_expert.value, a.difference_to_base.value) == pytest.approx((-0.1, 0.3))
    assert (a.verdict_to_expert, a.verdict_to_base) == ("worse", "better")
    # The noise is the same for all models, so differences and gains kept have no spread at all.
    assert a.gain_kept.high - a.gain_kept.low < 1e-9
    assert a.retention.low < 5 / 6 < a.retention.high


def test_where_lower_is_better_losses_keep_their_sign():
    found = comparer(row("loss", 4.0, 2.0, 4.0, 2.5, 5.0, higher=False), row("a", 0.2, 0.6, 0.2, 0.5, 0.3))
    (loss,) = found.merge("ta", {"loss": ("rl-a",)}).per_task
    assert loss.gain_kept.value == pytest.approx(0.75)
    # 2 / 2.5 of the expert; 25 % more loss
    assert (loss.retention.value, loss.degradation.value) == pytest.approx((0.8, -0.25))
    assert (loss.verdict_to_expert, loss.verdict_to_base) == ("worse", "better")
    assert found.merge("ta", {}).mean.value == pytest.approx(0.5)
    assert found.warnings == ["means over tasks leave out loss, where lower is better"]


def test_own_tasks_are_found_by_gain():
    found = comparer(
        row("a", 0.2, 0.6, 0.3, 0.5, 0.3),  # both gain, rl-a more
        row("b", 0.4, 0.4, 0.8, 0.6, 0.9),
        row("drift", 0.4, 0.43, 0.4, 0.4, 0.4),  # beyond doubt, but a tenth of what rl-a gains on its own
        row("lost", 0.4, 0.3, 0.4, 0.4, 0.4),
    )
    assert found.own_tasks(None) == {"a": ("rl-a",), "b": ("rl-b",), "drift": (), "lost": ()}
    given = {"rl-a": ["a", "drift"], "rl-b": ["a"]}
    assert found.own_tasks(given) == {"a": ("rl-a", "rl-b"), "b": (), "drift": ("rl-a",), "lost": ()}


def test_no_gain_is_kept_of_a_gain_that_is_in_doubt():
    random = np.random.default_rng(0)
    noisy = {name: Score.of_items("a", "acc", (0.5 + 0.3 * random.normal(size=100)).tolist()) for name in ROLES}
    merge = Comparer({"a": noisy}, ROLES).merge("ta", {"a": ("rl-a",)})
    assert merge.gain_kept is None and merge.per_task[0].gain_kept is None
    assert merge.per_task[0].verdict_to_expert == "undecided"
    assert merge.retention is not None


def test_no_ratio_to_a_score_of_zero():
    merge = comparer(row("a", 0.0, 0.0, 0.2, 0.1, 0.3)).merge("ta", {"a": ("rl-a",)})
    (only,) = merge.per_task
    assert (only.retention, only.degradation, merge.worst, merge.retention) == (None, None, None, None)


def test_without_own_tasks_there_is_the_mean_alone():
    merge = comparer(row("a", 0.2, 0.6, 0.2, 0.5, 0.3)).merge("ta", {"a": ()})
    assert (merge.per_task, merge.worst, merge.gain_kept) == ((), None, None)
    assert merge.mean.value == pytest.approx(0.5)


def test_merges_are_compared_with_one_another_and_with_the_base():
    found = comparer(row("a", 0.2, 0.6, 0.2, 0.5, 0.3), row("b", 0.4, 0.4, 0.8, 0.6, 0.9))
    by_pair = {(c.a, c.b, c.task): c for c in found.comparisons()}
    assert set(by_pair) == {
        (a, b, task) for a, b in (("ta", "ties"), ("ta", "base"), ("ties", "base")) for task in ("a", "b", "mean")
    }
    assert by_pair["ta", "ties", "a"].verdict == "better"
    mean = by_pair["ta", "ties", "mean"]
    assert (mean.difference.value, mean.verdict) == (pytest.approx(-0.05), "worse")


def test_equal_models_are_never_better():
    found = comparer(row("a", 0.2, 0.6, 0.2, 0.6, 0.6))
    assert {c.verdict for c in found.comparisons() if (c.a, c.b) == ("ta", "ties")} == {"undecided"}
    assert found.merge("ta", {"a": ("rl-a",)}).per_task[0].verdict_to_expert == "undecided"


def test_verdicts_of_equal_models_are_wrong_one_time_in_twenty():
    wrong = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        scores = {name: Score.of_items("a", "acc", random.normal(0.5, 0.2, 60).tolist()) for name in ROLES}
        found = Comparer({"a": scores}, ROLES, seed=seed)
        wrong += next(iter(found.comparisons())).verdict != "undecided"
    # Binomial(200, 0.05) with the percentile interval's slight excess at 60 items: 10 expected, 22 is four deviations.
    assert 1 <= wrong <= 22


def test_own_names_are_checked():
    check_own({"rl-a": ["a"]}, ["rl-a"], ["a"])
    with pytest.raises(RequestError, match=r"unknown expert 'rl_a'(.|\n)*Did you mean 'rl-a'"):
        check_own({"rl_a": ["a"]}, ["rl-a"], ["a"])
    with pytest.raises(RequestError, match=r"unknown task 'match'(.|\n)*Did you mean 'math'"):
        check_own({"rl-a": ["match"]}, ["rl-a"], ["math"])
