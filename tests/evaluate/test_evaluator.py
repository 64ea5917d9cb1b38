import math

import pytest

from rlmerge.errors import RunError
from rlmerge.evaluate.evaluator import Evaluator, Score


def test_of_items_is_mean_and_standard_error():
    score = Score.of_items("math", "acc", [1.0, 0.0, 1.0, 1.0])
    # mean 3/4; deviations ¼, −¾, ¼, ¼ square to 3/4; √(3/4 / 3 / 4) = ¼
    assert (score.value, score.stderr, score.n) == (0.75, 0.25, 4)
    assert Score.of_items("math", "acc", [1.0]).stderr is None


@pytest.mark.parametrize(
    "figures", [{"value": math.nan}, {"value": 0.5, "stderr": math.inf}, {"value": 0.5, "items": (1.0, math.nan)}]
)
def test_what_is_no_number_is_refused_by_name(figures):
    with pytest.raises(RunError, match=r"task 'math': the score 'acc' is (nan|inf)"):
        Score("math", "acc", **figures)


def test_no_items_are_no_score():
    with pytest.raises(RunError, match="no items"):
        Score.of_items("math", "acc", [])


def test_plain_data_and_back():
    score = Score.of_items("t", "m", [0.1, 1 / 3], k=4, higher_is_better=False, details={"file": "x"})
    assert Score.from_dict(score.to_dict()) == score
    with pytest.raises(KeyError):
        Score.from_dict({"task": "t"})


def test_the_protocol_is_met_by_anything_with_its_members():
    class Mine:
        name = "mine"

        def identity(self):
            return {}

        def score(self, model, tasks):
            return []

    assert isinstance(Mine(), Evaluator)
    assert not isinstance(object(), Evaluator)
