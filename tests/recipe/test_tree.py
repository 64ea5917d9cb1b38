import numpy as np
import pytest

from rlmerge.errors import RecipeError
from rlmerge.recipe.tree import MAX_BYTES, from_text, from_value


def plain(node):
    if isinstance(node.value, dict):
        return {name: plain(entry) for name, entry in node.value.items()}
    return [plain(item) for item in node.value] if isinstance(node.value, list) else node.value


def fails(text):
    with pytest.raises(RecipeError) as caught:
        from_text(text, "r.yaml")
    return caught.value.problems


def test_values_and_lines():
    root = from_text("a: 1\nb:\n  - true\n  - x\nc: {d: 0.5}\n", "r.yaml")
    assert plain(root) == {"a": 1, "b": [True, "x"], "c": {"d": 0.5}}
    assert root.fields["b"].where == "r.yaml:2"
    assert root.fields["b"].items[1].line == 4


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("2E3", 2000.0), ("-.5", -0.5), ("'1e-5'", "1e-5")])
def test_numbers_without_a_point_are_numbers_unless_quoted(text, value):
    assert from_text(f"a: {text}", "r").fields["a"].value == value


def test_scalars_keep_their_spelling():
    root = from_text("a: 007\nb: 2024-01-01\n", "r")
    assert (root.fields["a"].text, root.fields["b"].value) == ("007", "2024-01-01")


def test_duplicate_keys_name_both_lines():
    (problem,) = fails("a: 1\nb: 2\na: 3\n")
    assert (problem.where, problem.hint) == ("r.yaml:3", "First at r.yaml:1.")


def test_anchors_and_merge_keys_work_as_in_yaml():
    root = from_text("x: &x {w: 1, d: 2}\ny: {<<: *x, d: 3}\nz: {<<: [*x, {e: 4}]}\n", "r")
    assert plain(root.fields["y"]) == {"w": 1, "d": 3}
    assert plain(root.fields["z"]) == {"w": 1, "d": 2, "e": 4}


def test_a_billion_laughs_is_refused_quickly():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (problem,) = fails("\n".join(lines))
    assert "expands" in problem.what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("a: [1\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "no meaning"),
        ("a: !secret x", "no meaning"),
        ("a: !!int x", "cannot read"),
        (f"a: {'9' * 5000}", "cannot read"),
        ("? [a]\n: 1", "plain name"),
        ("a: &a [*a]", "contains it"),
        ("<<: 3", "'<<'"),
        ("a: " + "[" * 5000, "too deeply"),
        ("a" * (MAX_BYTES + 1), "larger than 1 MB"),
    ],
)
def test_hostile_or_broken_text_is_one_clear_error(text, what):
    assert what in fails(text)[0].what


def test_python_data_has_places_too(tmp_path):
    root = from_value({"models": [{"model": tmp_path, "parameters": {"weight": np.float32(0.5)}}]})
    weight = root.fields["models"].items[0].fields["parameters"].fields["weight"]
    assert (weight.value, weight.where) == (0.5, "models[0].parameters.weight")
    assert root.fields["models"].items[0].fields["model"].text == str(tmp_path)


@pytest.mark.parametrize("value", [b"bytes", object(), {1, 2}])
def test_python_data_must_be_plain(value):
    with pytest.raises(RecipeError, match="cannot hold"):
        from_value({"a": value})
