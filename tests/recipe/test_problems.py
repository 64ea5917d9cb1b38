import pytest

from rlmerge.errors import RecipeError
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.tree import from_value


def test_nothing_found_raises_nothing():
    problems = Problems()
    problems.warn("r:1", "odd")
    problems.raise_if_any()
    assert problems.warnings == ["r:1: odd"]


def test_all_findings_are_raised_together():
    problems = Problems()
    problems.add("r:1", "first", "Do this.")
    problems.add("r:2", "second")
    with pytest.raises(RecipeError, match=r"r:1: first\n  Do this\.\nr:2: second"):
        problems.raise_if_any()


def test_fields_reports_unknown_keys_and_keeps_the_known():
    problems = Problems()
    fields = problems.fields(from_value({"model": 1, "modle": 2}), ("model", "parameters"), "an entry")
    assert list(fields) == ["model"]
    assert problems.errors[0].hint == "Did you mean 'model'?"


@pytest.mark.parametrize("value", [None, "", "  ", [], {}])
def test_text_must_have_content(value):
    problems = Problems()
    node = from_value(value)
    assert problems.text(node, "a name") is None
    assert len(problems) == 1
