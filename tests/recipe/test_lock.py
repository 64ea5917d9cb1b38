"""Lock files: the recipe in them, what they fix, and what is wrong with damaged ones."""

import pytest
import yaml

from rlmerge import __version__
from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe import ModelRef, load_recipe, load_recipes, to_yaml_documents

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
        ({"options": {"rounding": 5}}, "`rounding` of a lock cannot be '5'"),
        ({"options": {"on_nonfinite": None}}, "`on_nonfinite` of a lock must be text"),
        ({"options": {"seed": "x"}}, "`seed` of a lock must be a whole number from 0"),
        ({"options": {"seed": -1}}, "`seed` of a lock must be a whole number"),
        ({"options": {"seed": 2**64}}, "`seed` of a lock must be a whole number"),
        ({"options": {"shard_size": 0}}, "`shard_size` of a lock must be a whole number"),
        ({"options": {"shard_size": [5]}}, "`shard_size` of a lock must be a whole number"),
        ({"options": {"dtype": "int8"}}, "`dtype` of a lock cannot be 'int8'"),
        ({"options": {"out_dtype": {"a": 1}}}, "`out_dtype` of a lock must be text"),
        ({"options": 5}, "`options` of a lock must be a mapping"),
        ({"rlmerge_lock": True}, "lock format True is not known"),
        ({"inputs": [{**entry, "revision": ["x"]} for entry in LOCK["inputs"]]}, "a revision must be text"),
        ({"recipe": []}, "the recipe must be a mapping"),
        ({"recipe": [RECIPE, RECIPE]}, "two recipes of the file have no `name`"),
    ],
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


GENERAL = {
    "merge_method": "task_arithmetic",
    "modules": {
        "text": {
            "slices": [
                {
                    "base_model": "org/b1",
                    "sources": [
                        {"model": "org/b1", "layer_range": [0, 2]},
                        {"model": "math+org/lora", "layer_range": [2, 4], "parameters": {"weight": 0.5}},
                    ],
                },
                {
                    "base_model": "org/b2",
                    "sources": [
                        {"model": "org/b2", "layer_range": [0, 1]},
                        {"model": "org/b1", "layer_range": [3, 4]},
                        {"model": "org/b1", "layer_range": [4, 5]},
                    ],
                },
            ]
        },
        "vision": {"models": ["math"], "parameters": {"lambda": 2}},
    },
    "base_model": "org/b1",
    "tokenizer": {"source": "org/t", "tokens": {"<x>": {"source": "org/b2", "force": True}}},
    "chat_template": "chatml",
}


def test_a_lock_of_slices_modules_and_tokens(tmp_path):
    """One entry a model, in the order of `Recipe.models`; each place that names it is pinned."""
    models = load_recipe(GENERAL).models
    assert [str(model) for model in models] == ["org/b1", "math+org/lora", "org/b2", "math", "org/t"]
    inputs = [
        {"model": "org/b1", "revision": "c1", "fingerprint": "f1"},
        {"model": "math", "revision": None, "fingerprint": "f2", "adapter": {"model": "org/lora", "revision": "c2"}},
        {"model": "org/b2", "revision": "c3", "fingerprint": "f3"},
        {"model": "math", "revision": None, "fingerprint": "f4"},
        {"model": "org/t", "revision": "c5", "fingerprint": "f5"},
    ]
    path = tmp_path / "rlmerge.lock.yaml"
    path.write_text(yaml.safe_dump(LOCK | {"recipe": yaml.safe_load(load_recipe(GENERAL).text), "inputs": inputs}))
    recipe = load_recipe(path)
    assert recipe.locked.models == ("f1", "f2", "f3", "f4", "f5")
    assert [str(model) for model in recipe.models] == ["org/b1@c1", "math+org/lora@c2", "org/b2@c3", "math", "org/t@c5"]
    text = recipe.modules[0]
    assert [str(part.base) for part in text.slices] == ["org/b1@c1", "org/b2@c3"]
    assert [str(source.model) for source in text.slices[1].sources] == ["org/b1@c1"] * 2
    assert str(recipe.tokenizer.tokens["<x>"].source) == "org/b2@c3"
    assert load_recipe(recipe.text) == recipe


STAGES = """
name: first
merge_method: linear
models: [org/a, b]
---
merge_method: task_arithmetic
base_model: first
models: [org/c, first+org/lora]
"""


def test_a_lock_of_several_recipes():
    """The results of stages are made again, so they are no inputs."""
    documents = list(yaml.safe_load_all(to_yaml_documents(load_recipes(STAGES))))
    inputs = [
        {"model": "org/a", "revision": "ca", "fingerprint": "fa"},
        {"model": "b", "revision": None, "fingerprint": "fb"},
        {"model": "org/c", "revision": "cc", "fingerprint": "fc"},
    ]
    first, last = load_recipes(LOCK | {"recipe": documents, "inputs": inputs})
    assert [str(model) for model in first.models] == ["org/a@ca", "b"]
    assert (first.locked.models, last.locked.models) == (("fa", "fb"), ("fc",))
    assert last.base == ModelRef("first", stage=True)
    assert str(last.experts[0].model) == "org/c@cc"


def test_a_model_that_is_listed_twice_may_be_noted_twice():
    recipe = {"merge_method": "linear", "models": ["a", "a", "b"]}
    entries = [{"model": name, "fingerprint": f"f{name}"} for name in "aab"]
    for inputs in (entries, entries[1:]):
        assert load_recipe(LOCK | {"recipe": recipe, "inputs": inputs}).locked.models == ("fa", "fb")
