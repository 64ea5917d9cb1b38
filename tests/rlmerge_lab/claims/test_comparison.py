"""Studies side by side."""

import json

import pytest

from rlmerge.errors import RequestError
from rlmerge_lab.claims.comparison import compare
from support.studies import SPLIT, second_edition, study


def sized(weights, by, **changes):
    gains = {("rl", "covariance", "tuned"): lambda seed: 0.5 + by + SPLIT[seed]}
    return f"{weights}.json", second_edition(gains=gains, parameters=weights, profile=f"w{weights}", **changes)


@pytest.fixture(scope="module")
def found():
    return compare([sized(10**7, 0.2), sized(10**5, 0.0), ("old.json", study(vocabulary=49)), sized(10**6, 0.1)])


def test_small_vocabularies_and_small_models_come_first(found):
    assert [(one.vocabulary, one.weights) for one in found.studies] == [
        (49, 607104), (2048, 10**5), (2048, 10**6), (2048, 10**7),
    ]  # fmt: skip


def test_a_figure_has_a_trend_among_studies_of_its_vocabulary(found):
    line = next(line for line in found.lines if line.key == "own-arithmetic")
    assert line.figures[0] is None and line.verdicts == (None, "supported", "supported", "supported")
    assert list(line.trends) == ["vocabulary of 2,048 tokens"]
    trend = line.trends["vocabulary of 2,048 tokens"]
    # 0.03, 0.13 and 0.23 on average at three decades.
    assert trend.slope == pytest.approx(0.1) and trend.direction == "grows"


def test_only_figures_of_two_studies_are_compared(found):
    assert "better-averaging" not in {line.key for line in found.lines}
    assert {"own-layers", "entrywise", "orthogonal"} <= {line.key for line in found.lines}


def test_a_rival_that_differs_between_studies_is_named(found):
    other = second_edition(parameters=10**6)
    for row in other["merges"]:
        row["dev"] = float(row["method"] == "ties")
    line = next(one for one in compare([sized(10**5, 0.0), ("b", other)]).lines if one.key == "entrywise")
    assert line.name == "gain kept, rl, tuned, ties − task_arithmetic"
    for row in other["merges"]:
        row["dev"] = float(row["method"] == "ram")
    line = next(one for one in compare([sized(10**5, 0.0), ("b", other)]).lines if one.key == "entrywise")
    assert line.name.split("; ") == [f"gain kept, rl, tuned, {name} − task_arithmetic" for name in ("ties", "ram")]


def test_only_methods_of_all_studies_of_a_vocabulary_are_compared():
    """The best entrywise method of one study is not held against another study that never tried it."""
    one, two = second_edition(parameters=10**5), second_edition(parameters=10**6)
    for row in one["merges"]:
        row["dev"] = float(row["method"] == "ram")
    two["merges"] = [row for row in two["merges"] if row["method"] != "ram"]
    line = next(each for each in compare([("a", one), ("b", two)]).lines if each.key == "entrywise")
    assert "ram" not in line.name
    assert one["methods"] and any(row["method"] == "ram" for row in one["merges"])


def test_a_study_without_sizes_is_refused():
    with pytest.raises(RequestError, match="how many weights"):
        compare([("a.json", study(parameters=None)), sized(10**5, 0.0)])


def test_as_data(found):
    rows = found.to_dict()
    json.dumps(rows, allow_nan=False)
    assert rows["schema"] == "rlmerge.lab.comparison/1" and len(rows["lines"]) == len(found.lines)
