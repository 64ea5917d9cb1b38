import re
from pathlib import Path

import pytest

from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe import load_recipe, load_recipes

TEXT = "merge_method: ties\nbase_model: base\nmodels: [a, b]\nparameters: {lambda: 1.5}\n"


def test_file_text_and_mapping_are_one_recipe(load, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT)
    from_file = load(path)
    assert from_file.origin == str(path)
    assert load(str(path)) == from_file == load(TEXT)
    mapping = {"merge_method": "ties", "base_model": "base", "models": ["a", "b"], "parameters": {"lambda": 1.5}}
    assert load(mapping) == load([mapping]) == from_file


@pytest.mark.parametrize(
    "data",
    [
        TEXT.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        b"---\n" + TEXT.encode() + b"...\n",
        b'{"merge_method": "ties", "base_model": "base", "models": ["a", "b"], "parameters": {"lambda": 1.5}}',
    ],
    ids=["windows", "byte order mark", "markers", "json"],
)
def test_files_as_people_save_them(load, tmp_path, data):
    (tmp_path / "recipe.yaml").write_bytes(data)
    assert load(tmp_path / "recipe.yaml") == load(TEXT)


def test_problems_of_a_file_name_it_and_its_line(problems, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT.replace("lambda", "lamda"))
    assert problems(path) == [(f"{path}:4", "method 'ties' has no parameter 'lamda'", "Did you mean 'lambda'?")]


@pytest.mark.parametrize("text", ["\n", "# nothing\n", "---\n---\n", "null\n"])
def test_an_empty_recipe(problems, text):
    ((_, what, hint),) = problems(text)
    assert what == "recipe is empty"
    assert "merge_method" in hint


def test_a_file_that_is_not_there():
    with pytest.raises(RequestError, match="no such recipe file"):
        load_recipe(Path("nowhere.yaml"))
    with pytest.raises(RequestError, match="cannot read"):
        load_recipe("x" * 5000)


@pytest.mark.parametrize("source", [None, 5, b"merge_method: ties\n", {1, 2}])
def test_what_is_no_source(source):
    with pytest.raises(RequestError, match="a recipe is a file, YAML text or a mapping, not a"):
        load_recipe(source)


def test_a_list_of_other_things_is_none(problems):
    assert "must be a mapping" in problems(["a"])[0][1]


def test_the_default_lookup_is_the_registry():
    assert load_recipe({"merge_method": "task_arithmetic", "base_model": "b", "models": ["a"]}).method.summary
    with pytest.raises(RecipeError, match="unknown merge method 'tiess'\n  Did you mean 'ties'"):
        load_recipe({"merge_method": "tiess", "models": ["a"]})


DOCUMENTATION = Path(__file__).parents[2] / "docs" / "recipes.md"
SHOWN = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)


@pytest.mark.parametrize("text", SHOWN, ids=range(len(SHOWN)))
def test_the_recipes_of_the_documentation_are_recipes(text):
    recipes = load_recipes(text)
    copies = [warning for recipe in recipes for warning in recipe.warnings if "its tensors are copied" in warning]
    assert [warning for recipe in recipes for warning in recipe.warnings] == copies
