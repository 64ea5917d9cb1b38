"""Lock files: the recipe in them, what they fix, and what is wrong with damaged ones."""

import pytest
import yaml

from rlmerge import __version__
from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe import ModelRef, load_recipe

RECIPE = {
    "merge_method": "task_arithmetic",
    "base_model": "org/base",
    "models": [{"model": "math"}, {"model": "org/code", "parameters": {"weight": 0.5}}],
}
LOCK = {
    "rlmerge_lock": 1,
    "recipe": RECIPE,
    "options": {"seed": 3, "dtype": None, "rounding": "stochastic", "shard_size": 1000},
    "inputs": [
        {"model": "org/base", "revision": "c0ffee", "fingerprint": "aa"},
        {"model": "math", "revision": None, "fingerprint": "bb"},
        {"model": "org/code", "revision": "beef", "fingerprint": "cc"},
    ],
    "versions": {"rlmerge": __version__, "python": "3.12.0"},
}


def test_a_lock_is_its_recipe_with_hub_models_pinned(tmp_path):
    path = tmp_path / "rlmerge.lock.yaml"
    path.write_text(yaml.safe_dump(LOCK))
    recipe = load_recipe(path)
    assert recipe.base == ModelRef("org/base", "c0ffee")
    assert [source.model for source in recipe.experts] == [ModelRef("math"), ModelRef("org/code", "beef")]
    assert recipe.values("w", 1)["weight"].tolist() == [1.0, 0.5]
    assert recipe.locked.models == ("aa", "bb", "cc")
    assert recipe.locked.origin == str(path)
    assert recipe.warnings == ()
    plain = load_recipe(RECIPE)
    assert plain.locked is None
    assert load_recipe(recipe.text) == recipe, "locks are not part of a recipe's identity"


def test_options_are_filled_in_and_may_not_be_contradicted():
    locked = load_recipe(LOCK).locked
    assert locked.fill({"memory": 5, "seed": 3}) == {"memory": 5, **LOCK["options"]}
    with pytest.raises(RequestError, match="the lock fixes seed at 3, but 4 is asked for"):
        locked.fill({"seed": 4})


def test_fingerprints_of_further_inputs_are_read():
    further = {"sensitivity": [{"directory": "s0", "fingerprint": "dd"}, {"directory": "s1", "fingerprint": "ee"}]}
    assert load_recipe(LOCK | further).locked.further == {"sensitivity": ("dd", "ee")}


def test_a_lock_of_another_version_is_used_with_a_warning():
    (warning,) = load_recipe(LOCK | {"versions": {"rlmerge": "0.0.7"}}).warnings
    assert warning.startswith("the lock was written by rlmerge 0.0.7")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rlmerge_lock": 2}, "lock format 2 is not known\n  Use the rlmerge that wrote it."),
        ({"inputs": LOCK["inputs"][:2]}, "does not name every model of its recipe"),
        ({"inputs": [{"model": "math"}] * 3}, "each with its `fingerprint`"),
        ({"inputs": "all"}, "each with its `fingerprint`"),
        ({"options": {"sede": 1}}, "unknown key 'sede' in `options` of a lock\n  Did you mean 'seed'?"),
        ({"recipe": {"merge_method": "tise"}}, "Did you mean 'ties'?"),
        ({"surprise": 1}, "must list what was merged"),
    ],
    ids=["format", "models", "fingerprint", "list", "option", "recipe", "key"],
)
def test_a_damaged_lock(change, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(LOCK | change)
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["recipe", "options", "inputs", "versions"])
def test_a_lock_without_a_part(key):
    with pytest.raises(RecipeError, match=f"the lock lacks `{key}`"):
        load_recipe({name: value for name, value in LOCK.items() if name != key})


def test_problems_name_the_line_of_the_lock(tmp_path):
    path = tmp_path / "rlmerge.lock.yaml"
    text = yaml.safe_dump(LOCK | {"recipe": RECIPE | {"paramters": {}}}, sort_keys=False)
    path.write_text(text)
    line = text.splitlines().index("  paramters: {}") + 1
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.problems[0].where == f"{path}:{line}"
