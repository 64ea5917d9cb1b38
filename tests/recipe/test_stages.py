"""Several recipes in one file: names instead of models, and the order in which they run."""

import pytest

from rlmerge.errors import RequestError
from rlmerge.recipe import load_recipe

from .conftest import find


def document(models, name=None, **more):
    head = {"name": name} if name else {}
    return {**head, "merge_method": "linear", "models": list(models), **more}


def order(recipes):
    return [recipe.name for recipe in recipes]


def refused(problems, *documents):
    return [(where, what) for where, what, _ in problems(list(documents))]


def test_the_result_comes_last_and_names_stand_for_results(load_all):
    recipes = load_all(
        "merge_method: ties\nbase_model: base\nmodels: [second, c]\n---\n"
        "name: first\nmerge_method: linear\nmodels: [a, b]\n---\n"
        "name: second\nmerge_method: slerp\nbase_model: first\nmodels: [d]\nparameters: {t: 0.5}\n"
    )
    assert order(recipes) == ["first", "second", None]
    assert recipes[1].base.stage and not recipes[1].experts[0].model.stage
    assert [expert.model.stage for expert in recipes[2].experts] == [True, False]


def test_names_stand_wherever_a_model_does(load_all):
    _, recipe = load_all(
        "name: x\nmerge_method: linear\nmodels: [a, b]\n---\n"
        "merge_method: ties\nbase_model: {path: x}\nmodels: [{model: {model: x, lora: l}}, a]\n"
        "tokenizer: {source: x, tokens: {t: {source: x}, u: {source: {kind: model_token, model: x, token: v}}}}\n"
        "chat_template: x\n"
    )
    assert recipe.base.stage
    assert recipe.experts[0].model.stage and str(recipe.experts[0].model) == "x+l"
    assert all(model.stage for model in recipe.tokenizer.models)
    assert recipe.chat_template.kind == "model" and recipe.chat_template.model.stage


def test_names_stand_nowhere_else(load_all):
    recipes = load_all(
        [
            document("ab", "linear"),
            document("cd", "union"),
            document("ef", "float32"),
            {"merge_method": "linear", "models": ["linear", "union", "float32"], "dtype": "float32",
             "tokenizer_source": "union"},
        ]
    )  # fmt: skip
    assert recipes[-1].method.name == "linear"
    assert recipes[-1].tokenizer.source == "union"
    assert recipes[-1].dtype == "float32"
    assert all(expert.model.stage for expert in recipes[-1].experts)


def test_recipes_that_do_not_depend_on_each_other_keep_their_order(load_all):
    recipes = load_all([document("ab", "y"), document("ab", "x"), document(["x", "y"])])
    assert order(recipes) == ["y", "x", None]


def test_where_all_have_names_the_one_that_none_uses_is_the_result(load_all, problems):
    assert order(load_all([document(["x", "c"], "z"), document("ab", "x")])) == ["x", "z"]
    ((where, what),) = refused(problems, document("ab", "x"), document("ab", "y"))
    assert (where, what) == ("recipe[1]", "which recipe is the result: 'x', 'y'?")


def test_a_recipe_that_none_uses_is_made_with_a_warning(load_all):
    recipes = load_all([document("ab", "x"), document("cd")])
    assert order(recipes) == ["x", None]
    assert recipes[-1].warnings == ("recipe[0]: no other recipe uses 'x', which is made all the same",)


def test_one_recipe_with_a_name_just_runs(load_all):
    (recipe,) = load_all("---\nname: a\nmerge_method: linear\nmodels: [a, b]\n---\n")
    assert recipe.name == "a"
    assert not recipe.experts[0].model.stage


def test_a_name_shadows_a_directory(load_all, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    recipes = load_all([document("ab", "x"), document(["x", "./x"])])
    assert [expert.model.stage for expert in recipes[-1].experts] == [True, False]


@pytest.mark.parametrize(
    ("documents", "what"),
    [
        ([document("ab", "x"), document("ab", "x"), document("x")], "the name 'x' is given twice"),
        ([document("ab"), document("ab")], "two recipes of the file have no `name`"),
        ([document("xa", "x"), document("x")], "wait for each other: 'x' -> 'x'"),
        ([document("y", "x"), document("x", "y"), document("x")], "wait for each other: 'x' -> 'y' -> 'x'"),
        ([document("y", "x"), document("x", "y")], "wait for each other: 'x' -> 'y' -> 'x'"),
        ([document("ab", "../x"), document("c")], "'../x' cannot name a recipe"),
        ([document("ab", "/etc"), document("c")], "cannot name a recipe"),
        ([document("ab", "a\\b"), document("c")], "cannot name a recipe"),
        ([document("ab", "a//b"), document("c")], "cannot name a recipe"),
        ([document("ab", "x" * 300), document("c")], "cannot name a recipe"),
        ([document("ab", "x\x1b[31m"), document("c")], "cannot name a recipe"),
    ],
)
def test_what_has_no_order_is_an_error(problems, documents, what):
    found = problems(documents)
    assert what in found[0][1]


def test_a_name_may_have_a_slash(load_all):
    assert order(load_all([document("ab", "org/x"), document(["org/x"])])) == ["org/x", None]


def test_the_problems_of_all_recipes_come_at_once(problems):
    found = problems(
        "name: x\nmerge_method: linaer\nmodels: [a]\n---\n"
        "name: x\nmerge_method: linear\nmodls: [a]\n---\n"
        "merge_method: ties\nmodels: [x]\n"
    )
    assert [where for where, _, _ in found] == ["recipe:5", "recipe:2", "recipe:5", "recipe:7", "recipe:9"]


def test_there_is_a_most(problems):
    documents = [document("a", f"n{number}") for number in range(101)]
    assert "at most 100 recipes" in refused(problems, *documents)[0][1]


def test_a_long_chain_is_no_problem(load_all):
    chain = [document([f"n{number + 1}"], f"n{number}") for number in range(98)]
    recipes = load_all([*chain, document("a", "n98"), document(["n0"])])
    assert order(recipes) == [*(f"n{number}" for number in reversed(range(99))), None]


def test_load_recipe_wants_one():
    with pytest.raises(RequestError, match="this holds 2 recipes, and the result needs those before it: 'x'"):
        load_recipe([document("ab", "x"), document("x")], lookup=find)
