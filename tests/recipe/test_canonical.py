"""Canonical text reads back as an equal recipe, whatever the recipe."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.recipe import load_recipe, load_recipes, recipe_from_flags, to_yaml_documents

from .conftest import METHODS, find

names = st.text("abc/._-@+ é1e:#{}'\"", min_size=1, max_size=8).filter(lambda s: s.strip() == s)
paths = st.fixed_dictionaries({"path": names}, optional={"revision": names})
models = st.one_of(
    st.sampled_from(["base", "org/a", "org/a@v1", "1e5", "007", "true", "null", "2024-01-01", "org/a/sub@v1", "a+b",
                     "org/a@v1+org/b@v2"]),
    paths,
    st.fixed_dictionaries({"model": paths, "lora": paths}),
)  # fmt: skip
numbers = st.floats(1e-6, 1)
gradients = st.lists(numbers, min_size=1, max_size=3)
filters = st.lists(st.fixed_dictionaries({"filter": names, "value": st.one_of(numbers, gradients)}), min_size=1)
varying = st.one_of(numbers, gradients, filters)


def value_of(parameter):
    if parameter.choices:
        return st.sampled_from([*parameter.choices, True, False])
    return st.booleans() if isinstance(parameter.default, bool) else varying


def shared_of(method):
    return st.fixed_dictionaries({}, optional={p.name: value_of(p) for p in method.parameters})


def own_of(method):
    return st.fixed_dictionaries({}, optional={p.name: varying for p in method.parameters if p.per == "expert"})


@st.composite
def listings(draw, method, base="base"):
    """`models:` with one entry or more, at least one of which is not the base."""
    inputs = dict.fromkeys(method.inputs, names) if draw(st.booleans()) else {}
    entry = st.fixed_dictionaries({"model": models, **inputs}, optional={"parameters": own_of(method)})
    entries = draw(st.lists(entry, min_size=1, max_size=3).filter(lambda es: any(e["model"] != base for e in es)))
    return {"models": entries}


@st.composite
def slicings(draw, method):
    """`slices:` with the base first in each, and sources of one length."""
    slices = []
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.integers(0, 4))
        sources = [{"model": "base", "layer_range": [3, 3 + length]}]
        for _ in range(draw(st.integers(0, 2))):
            start = draw(st.integers(0, 50))
            source = {"model": draw(models), "layer_range": [start, start + length]}
            sources.append(source | draw(st.fixed_dictionaries({}, optional={"parameters": own_of(method)})))
        more = draw(st.fixed_dictionaries({}, optional={"parameters": shared_of(method)}))
        slices.append({"sources": sources, **more})
    return {"slices": slices}


@st.composite
def documents(draw):
    several = [m for m in METHODS.values() if m.max_experts is None and m.name != "measured"]
    method = draw(st.sampled_from([*several, METHODS["measured"]]))
    forms = st.one_of(listings(method), slicings(method)) if not method.inputs else listings(method)
    form = draw(forms)
    if draw(st.booleans()):
        more = st.fixed_dictionaries({}, optional={"parameters": shared_of(method)})
        form = {"modules": {name: draw(forms) | draw(more) for name in draw(st.lists(names, min_size=1, unique=True))}}
    document = {"merge_method": method.name, "base_model": "base", **form, "parameters": draw(shared_of(method))}
    token = st.fixed_dictionaries(
        {},
        optional={
            "source": st.one_of(
                models,
                st.just({"kind": "zero"}),
                st.fixed_dictionaries({"kind": st.just("model_token"), "model": models, "token": names}),
                st.fixed_dictionaries({"kind": st.just("model_token"), "model": models, "token_id": st.integers(0, 9)}),
            ),
            "force": st.booleans(),
        },
    )
    vocabulary = st.one_of(st.sampled_from(["base", "union"]), models)
    tokenizer = {
        "source": vocabulary,
        "tokens": st.dictionaries(names, token),
        "pad_to_multiple_of": st.integers(0, 64),
    }
    extra = {
        "name": names,
        "dtype": st.sampled_from(["bf16", "torch.float32", "float64"]),
        "out_dtype": st.just("float16"),
        "compat": st.just("mergekit"),
        "tokenizer": st.fixed_dictionaries({}, optional=tokenizer),
        "chat_template": st.one_of(
            st.text().map(lambda s: s + "{{ x }}"), st.sampled_from(["auto", "chatml", "base"]), paths
        ),
    }
    return document | draw(st.fixed_dictionaries({}, optional=extra))


@given(documents())
@settings(max_examples=200, deadline=None)
def test_text_reads_back_equal(document):
    recipe = load_recipe(document, lookup=find)
    again = load_recipe(recipe.text, lookup=find)
    assert again == recipe
    assert again.text == recipe.text


def test_text_is_the_recipe_a_person_would_write():
    document = {
        "merge_method": "ties",
        "base_model": "org/base@main",
        "models": [{"model": "org/math", "parameters": {"weight": 0.5, "density": [{"value": [0.2, 1]}]}}, "org/code"],
        "parameters": {"lambda": [{"filter": "mlp", "value": 2}, {"value": 1e-5}], "normalize": 0},
        "dtype": "fp32",
    }
    assert load_recipe(document, lookup=find).text == (
        "merge_method: ties\n"
        "base_model: org/base@main\n"
        "models:\n"
        "- model: org/math\n"
        "  parameters:\n"
        "    weight: 0.5\n"
        "    density: [0.2, 1.0]\n"
        "- {model: org/code}\n"
        "parameters:\n"
        "  lambda:\n"
        "  - {filter: mlp, value: 2.0}\n"
        "  - {value: 1.0e-05}\n"
        "  normalize: false\n"
        "dtype: float32\n"
    )


def test_slices_modules_and_tokens_are_written_as_mergekit_reads_them():
    document = {
        "merge_method": "ties",
        "base_model": "base",
        "modules": {
            "text": {
                "slices": [
                    {
                        "sources": [
                            {"model": "m+l", "layer_range": [1, 3], "parameters": {"weight": 0.5}},
                            {"model": "base", "layer_range": [0, 2]},
                        ],
                        "parameters": {"lambda": 2},
                    }
                ]
            },
            "vision": {"models": ["base"]},
        },
        "tokenizer": {"tokens": {"<x>": {"source": {"kind": "zero"}, "force": True}}, "pad_to_multiple_of": 8},
        "chat_template": "chatml",
    }
    assert load_recipe(document, lookup=find).text == (
        "merge_method: ties\n"
        "base_model: base\n"
        "modules:\n"
        "  text:\n"
        "    slices:\n"
        "    - sources:\n"
        "      - model: base\n"
        "        layer_range: [0, 2]\n"
        "      - model: m+l\n"
        "        layer_range: [1, 3]\n"
        "        parameters: {weight: 0.5}\n"
        "      parameters: {lambda: 2.0}\n"
        "  vision:\n"
        "    models:\n"
        "    - {model: base}\n"
        "tokenizer:\n"
        "  source: union\n"
        "  tokens:\n"
        "    <x>:\n"
        "      source: {kind: zero}\n"
        "      force: true\n"
        "  pad_to_multiple_of: 8\n"
        "chat_template: chatml\n"
    )


def test_the_recipes_of_one_file_read_back_together():
    text = (
        "name: first\nmerge_method: linear\nmodels: [a, b]\n---\n"
        "merge_method: ties\nbase_model: first\nmodels: [c, first+lora]\n"
        "tokenizer_source: first\nchat_template: first\n"
    )
    recipes = load_recipes(text, lookup=find)
    again = load_recipes(to_yaml_documents(recipes), lookup=find)
    assert again == recipes
    assert again[1].base.stage


@pytest.mark.parametrize("parameters", [{"weight": 0.5}, {"normalize": False}, {"weight": "1,2"}])
@pytest.mark.parametrize("method", ["linear", "karcher"])
def test_a_base_that_is_only_a_reference_stays_one(method, parameters):
    """On the command line a base is never averaged in; the text must not be read as if it were."""
    given = parameters if method == "linear" else {}
    recipe = recipe_from_flags(method, "base", ["a", "b"], given, lookup=find)
    assert [str(expert.model) for expert in recipe.experts] == ["a", "b"]
    again = load_recipe(recipe.text, lookup=find)
    assert again == recipe
    assert str(again.modules[0].slices[0].base) == "base"


@pytest.mark.parametrize("name", ["union", "base", "chatml", "auto"])
def test_models_that_are_called_like_a_word_of_the_language(name):
    model = {"path": name}
    given = {"models": [{"model": model}], "tokenizer": {"source": model}, "chat_template": model}
    document = {"merge_method": "linear", **given}
    recipe = load_recipe(document, lookup=find)
    assert load_recipe(recipe.text, lookup=find) == recipe
    assert recipe.chat_template.kind == "model"


def test_a_whole_model_slice_stays_a_slice():
    sources = [{"model": name, "layer_range": [0, 24], "parameters": {"weight": 0.5}} for name in "ab"]
    recipe = load_recipe({"merge_method": "ties", "base_model": "b", "slices": [{"sources": sources}]}, lookup=find)
    assert load_recipe(recipe.text, lookup=find) == recipe
    assert recipe.depth == 24


def test_every_kind_of_line_break_survives():
    template = "a\r\nb\x85c\u2028d\u2029{{ é }}\ufeff\t\n"
    recipe = load_recipe({"merge_method": "linear", "models": ["a"], "chat_template": template}, lookup=find)
    assert load_recipe(recipe.text, lookup=find).chat_template.text == template
