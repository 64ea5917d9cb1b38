import json
import math

import pytest

from rlmerge.errors import RunError
from rlmerge.evaluate.harness.results import parse_scores


def parse(found, *tasks):
    return parse_scores(found, tasks or ("math",), where="scores.json")


def test_a_number_for_each_task():
    found = parse({"math": 0.5, "code": 1})
    assert [(s.task, s.metric, s.value) for s in found["math"] + found["code"]] == [
        ("math", "score", 0.5),
        ("code", "score", 1.0),
    ]


def test_metrics_of_a_task():
    first, second = parse({"math": {"acc": 0.5, "acc_stderr": 0.1, "f1": 0.6, "n": 50}})["math"]
    assert (first.metric, first.value, first.stderr, first.n) == ("acc", 0.5, 0.1, 50)
    assert (second.metric, second.value, second.stderr) == ("f1", 0.6, None)


def test_full_scores_in_three_places():
    full = {"metric": "acc", "value": 0.5, "stderr": 0.1, "n": 4, "k": 2, "higher_is_better": False}
    named = {"task": "math", **full}
    expected = parse([named])
    assert parse({"scores": [named]}) == parse({"math": full}) == parse(full) == parse(named) == expected
    (score,) = expected["math"]
    assert (score.metric, score.k, score.higher_is_better) == ("acc", 2, False)


def test_items_give_value_and_error():
    (score,) = parse([{"task": "math", "items": [1, 0, True, 1]}])["math"]
    assert (score.value, score.stderr, score.n, score.items) == (0.75, 0.25, 4, (1.0, 0.0, 1.0, 1.0))


def test_items_that_disagree_with_the_value_are_an_error():
    assert parse([{"task": "math", "items": [1, 0, 0], "value": 0.333}])["math"][0].value == 1 / 3
    with pytest.raises(RunError, match=r"the value is 0\.9 and the mean of the items 0\.5"):
        parse([{"task": "math", "items": [1, 0], "value": 0.9}])


def test_lm_eval_files():
    metrics = {"alias": "math", "acc,none": 0.5, "acc_stderr,none": 0.1, "sample_len": 25}
    (score,) = parse({"results": {"math": metrics}, "higher_is_better": {"math": {"acc": True}}})["math"]
    assert (score.metric, score.value, score.stderr, score.n) == ("acc,none", 0.5, 0.1, 25)


INSPECT = {
    "version": 2,
    "status": "success",
    "eval": {"task": "my_evals/math", "config": {"epochs": 2}},
    "results": {
        "total_samples": 4,
        "scores": [
            {
                "name": "match",
                "scorer": "match",
                "scored_samples": 2,
                "metrics": {
                    "accuracy": {"name": "accuracy", "value": 0.5},
                    "stderr": {"name": "stderr", "value": 0.25},
                },
            }
        ],
    },
    "reductions": [{"scorer": "match", "samples": [{"value": "I", "sample_id": 2}, {"value": 1.0, "sample_id": 1}]}],
}
"""As inspect-ai 0.3.285 writes it with --log-format json, shortened."""


def test_logs_of_inspect_ai():
    (score,) = parse(INSPECT)["math"]
    assert (score.metric, score.value, score.stderr, score.n, score.k) == ("accuracy", 0.5, 0.25, 2, 2)
    assert score.items == (1.0, 0.0)
    assert parse([INSPECT]) == parse(INSPECT)


def test_a_failed_inspect_log_says_why():
    failed = {"version": 2, "status": "error", "eval": {"task": "math"}, "error": {"message": "no GPU"}}
    with pytest.raises(RunError, match=r"ended as 'error': no GPU"):
        parse(failed)


@pytest.mark.parametrize(
    "found",
    [
        {"math": math.nan},
        {"math": {"acc": math.inf}},
        [{"task": "math", "items": [1.0, math.nan]}],
        {"math": {"acc": 0.5, "acc_stderr": math.nan}},
    ],
)
def test_what_is_not_finite_is_refused(found):
    with pytest.raises(RunError, match=r"'math': the score '\w+' is (nan|inf)"):
        parse(json.loads(json.dumps(found)))


DEEP = {}
for _ in range(900):
    DEEP = {"scores": [DEEP]}


@pytest.mark.parametrize(
    "found",
    [
        {"math": None},
        {"math": "0.5"},
        {"math": [0.5]},
        {"math": {"acc": "high"}},
        {"math": {"acc": 0.5, "acc_stderr": "N/A"}},
        [0.5],
        [{"metric": "acc"}],
        {"scores": 3},
        {"math": 10**400},
        {"math": {"acc": 0.5, "n": "many"}},
        DEEP,
        {"eval": {"task": "t"}, "status": "success"},
    ],
)
def test_other_json_is_an_error_that_shows_the_shapes(found):
    with pytest.raises(RunError, match=r"scores.json: holds JSON of a shape that is not(.|\n)*\"task\": 0.5"):
        parse(found)


def test_a_full_score_without_task_needs_that_there_is_one():
    with pytest.raises(RunError, match="KeyError"):
        parse({"value": 0.5}, "math", "code")
