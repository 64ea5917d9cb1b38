import pytest

from rlmerge.evaluate.report.charts import BASE_COLOR, colors, compared, joined, scores
from support.evaluations import evaluation, wide


def test_every_model_has_a_colour_and_the_base_is_grey():
    found = colors(evaluation())
    assert found["base"] == BASE_COLOR
    assert [found[name] for name in ("average", "task-arithmetic", "ties", "rl-rev")] == [0, 1, 2, 3]
    assert BASE_COLOR not in [color for name, color in colors(wide(24, 2)).items() if name != "base"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("ties", "base", "ties − base"),
        ("a" * 30, "base", "aaa…aaa − base"),
        ("base", "a" * 30, "base − aaa…aaa"),
        ("a" * 30, "b" * 30, "aa…aa − bbb…bb"),
    ],
)
def test_two_names_share_a_label(first, second, expected):
    found = joined(first, second, " − ", 14)
    assert found == expected and len(found) <= 14


def test_many_tasks_are_spread_over_charts_with_one_axis():
    result = wide(2, 12)
    found = scores(result, colors(result))
    assert found.count('class="plot"') == 2
    first, second = (part.split("</svg>")[0] for part in found.split('class="plot"')[1:])
    ticks = [[line.split(">")[1].split("<")[0] for line in part.split("<text")[1:]] for part in (first, second)]
    numbers = [[text for text in found if text.startswith("0.")] for found in ticks]
    assert numbers[0] == numbers[1] and len(numbers[0]) >= 3


def test_without_other_merges_the_base_alone_is_compared_with():
    result = evaluation({"base": (0.2,), "e": (0.6,), "m": (0.6,)}, ("t",), experts=1)
    found = compared(result)
    assert "Merges against the base" in found and "one another" not in found
