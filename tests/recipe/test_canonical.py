"""Canonical text reads back as an equal recipe, whatever the recipe."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.recipe import load_recipe

from .conftest import METHODS, find

names = st.text("abc/._-@+ é1e:#{}'\"", min_size=1, max_size=8).filter(lambda s: s.strip() == s)
models = st.one_of(
    st.sampled_from(["base", "org/a", "org/a@v1", "1e5", "007", "true", "null", "2024-01-01"]),
    st.fixed_dictionaries({"path": names}, optional={"revision": names}),
)
numbers = st.floats(1e-6, 1)
gradients = st.lists(numbers, min_size=1, max_size=3)
filters = st.lists(st.fixed_dictionaries({"filter": names, "value": st.one_of(numbers, gradients)}), min_size=1)
varying = st.one_of(numbers, gradients, filters)


def value_of(parameter):
    if parameter.choices:
        return st.sampled_from([*parameter.choices, True, False])
    return st.booleans() if isinstance(parameter.default, bool) else varying


@st.composite
def documents(draw):
    method = draw(st.sampled_from([m for m in METHODS.values() if m.max_experts is None and m.parameters]))
    shared = {p.name: value_of(p) for p in method.parameters if not (method.name == "linear" and p.per == "expert")}
    own = {p.name: varying for p in method.parameters if p.per == "expert"}
    inputs = dict.fromkeys(method.inputs, names) if draw(st.booleans()) else {}
    own_parameters = st.fixed_dictionaries({}, optional=own)
    entry = st.fixed_dictionaries({"model": models, **inputs}, optional={"parameters": own_parameters})
    document = {
        "merge_method": method.name,
        "base_model": "base",
        "models": draw(
            st.lists(entry, min_size=1, max_size=3).filter(lambda es: any(e["model"] != "base" for e in es))
        ),
        "parameters": draw(st.fixed_dictionaries({}, optional=shared)),
    }
    extra = {
        "dtype": st.sampled_from(["bf16", "torch.float32", "float64"]),
        "out_dtype": st.just("float16"),
        "compat": st.just("mergekit"),
        "tokenizer_source": st.just("base"),
        "chat_template": st.text().map(lambda s: s + "{{ x }}"),
    }
    return document | draw(st.fixed_dictionaries({}, optional=extra))


@given(documents())
@settings(max_examples=150, deadline=None)
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


def test_a_whole_model_slice_stays_a_slice():
    sources = [{"model": "a", "layer_range": [0, 24], "parameters": {"weight": 0.5}}]
    recipe = load_recipe({"merge_method": "ties", "base_model": "b", "slices": [{"sources": sources}]}, lookup=find)
    assert load_recipe(recipe.text, lookup=find) == recipe


def test_every_kind_of_line_break_survives():
    template = "a\r\nb\x85c\u2028d\u2029{{ é }}\ufeff\t\n"
    recipe = load_recipe({"merge_method": "linear", "models": ["a"], "chat_template": template}, lookup=find)
    assert load_recipe(recipe.text, lookup=find).chat_template == template
