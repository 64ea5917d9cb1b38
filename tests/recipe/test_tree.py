import numpy as np
import pytest

from rlmerge.errors import RecipeError
from rlmerge.recipe.tree import MAX_DEPTH, MAX_NODES, from_value


def test_python_data_has_places_too(tmp_path):
    root = from_value({"models": [{"model": tmp_path, "parameters": {"weight": np.float32(0.5)}}]})
    weight = root.fields["models"].items[0].fields["parameters"].fields["weight"]
    assert (weight.value, weight.where) == (0.5, "models[0].parameters.weight")
    assert root.fields["models"].items[0].fields["model"].text == str(tmp_path)


def test_arrays_and_tuples_are_lists():
    root = from_value({"a": np.array([1, 2]), "b": (True, None)})
    assert [item.value for item in root.fields["a"].items] == [1, 2]
    assert [item.value for item in root.fields["b"].items] == [True, None]


@pytest.mark.parametrize("value", [b"bytes", object(), {1, 2}, 1j])
def test_python_data_must_be_plain(value):
    with pytest.raises(RecipeError, match="a: a recipe cannot hold"):
        from_value({"a": value})


def test_keys_must_be_plain():
    with pytest.raises(RecipeError, match="must be text, not a tuple"):
        from_value({("a",): 1})
    assert list(from_value({1: 2, 0.5: 3}).fields) == ["1", "0.5"]


def test_data_that_contains_itself_is_refused():
    ring = []
    ring.append(ring)
    with pytest.raises(RecipeError, match="nested too deeply"):
        from_value({"a": ring})


def test_budgets_hold():
    deep = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(RecipeError, match="nested too deeply"):
        from_value(deep)
    with pytest.raises(RecipeError, match="more than 100000 values"):
        from_value([0] * MAX_NODES)
    with pytest.raises(RecipeError, match="too long to read"):
        from_value({"a": 10**5000})
