import pytest

TIES = "merge_method: ties\nbase_model: base\n"
PASS = "merge_method: passthrough\n"


def ranges(recipe):
    return [[source.layer_range for source in part.sources] for _, part in recipe.slices]


def test_the_models_form_is_one_module_of_one_slice(load):
    recipe = load(TIES + "models: [{model: a}, b]\n")
    (module,) = recipe.modules
    assert (module.name, module.is_whole, module.slices[0].length) == (None, True, None)
    assert [(str(s.model), s.layer_range, s.line) for s in module.slices[0].sources] == [("a", None, 3), ("b", None, 3)]
    assert str(module.slices[0].base) == "base"


def test_slices_in_order(load):
    text = PASS + "slices:\n"
    text += "  - sources: [{model: a, layer_range: [0, 4]}]\n"
    text += "  - sources:\n    - model: b\n      layer_range: [2, 6]\n      parameters: {scale: 0.5}\n"
    recipe = load(text)
    assert ranges(recipe) == [[(0, 4)], [(2, 6)]]
    assert [part.line for _, part in recipe.slices] == [3, 4]
    assert [part.length for _, part in recipe.slices] == [4, 4]
    assert recipe.values_at(
        recipe.modules[0], recipe.modules[0].slices[1], output_name="x", source_names=["x"], position=0
    )["scale"].tolist() == [0.5]


@pytest.mark.parametrize("written", ["[0, 4]", "['0', '4']", "[0.0, 4.0]", "[0, '4']"])
def test_layer_numbers_may_be_quoted_or_have_a_point(load, written):
    recipe = load(PASS + f"slices: [{{sources: [{{model: a, layer_range: {written}}}]}}]\n")
    assert ranges(recipe) == [[(0, 4)]]


def test_an_empty_slice_is_one(load):
    text = "slices: [{sources: [{model: a, layer_range: [0, 4]}]}, {sources: [{model: b, layer_range: [4, 4]}]}]\n"
    assert [part.length for _, part in load(PASS + text).slices] == [4, 0]


def test_one_model_in_two_layers_of_one_slice(warned):
    same = "{model: a, layer_range: [0, 2]}"
    text = "merge_method: linear\nslices: [{sources: [%s, %s]}]\n"
    assert warned(text % (same, "{model: a, layer_range: [2, 4]}")) == []
    assert warned(text % (same, same)) == ["model 'a' is listed twice and counts twice"]


def test_modules_of_either_form(load):
    recipe = load(
        "merge_method: ties\n"
        "base_model: base\n"
        "modules:\n"
        "  text_decoder:\n"
        "    slices:\n"
        "    - sources: [{model: base, layer_range: [0, 2]}, {model: a, layer_range: [0, 2]}]\n"
        "    parameters: {lambda: 2}\n"
        "  vision_tower: {models: [a, b]}\n"
    )
    assert [module.name for module in recipe.modules] == ["text_decoder", "vision_tower"]
    assert [module.line for module in recipe.modules] == [4, 8]
    text, vision = recipe.modules
    assert text.slices[0].base_range == (0, 2)
    assert vision.is_whole
    values = recipe.values_at(text, text.slices[0], output_name="w", source_names=["w"], position=0)
    assert values["scale"] == 2
    assert recipe.static(vision) == {"normalize": True}
    assert not recipe.is_whole


def test_residual_weight_is_ignored_with_a_warning(warned):
    found = warned(PASS + "slices: [{sources: [{model: a, layer_range: [0, 2]}], residual_weight: 0.5}]\n")
    assert found == ["`residual_weight` has no effect: ignored, as in mergekit"]


SLICE = "slices:\n  - sources: %s\n"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", 1, "the recipe lists no models"),
        ("models:\n", 1, "the recipe lists no models"),
        ("models: []\n", 2, "`models` lists no model"),
        ("models: a\n", 2, "must be a list"),
        ("models: {a: {weight: 1}}\n", 2, "must be a list"),
        ("models: [[a]]\n", 2, "must be a mapping"),
        ("models: [{parameters: {scale: 1}}]\n", 2, "needs a `model`"),
        ("models: [{model: a, layer_range: [0, 2]}]\n", 2, "unknown key 'layer_range'"),
        ("models: [{model: a, scale: 2}]\n", 2, "unknown key 'scale'"),
        ("models: [{model: a, merge_method: linear}]\n", 2, "unknown key 'merge_method'"),
        ("models: [a]\nslices: [b]\n", 3, "`models` or `slices`, not both"),
        ("models: [a]\nmodules: {x: {models: [a]}}\n", 3, "`models` or `modules`, not both"),
        ("models: [" + "a," * 2000 + "]\n", 2, "more than 1000 models"),
        ("modules: [a]\n", 2, "`modules` must be a mapping"),
        ("modules: {}\n", 2, "`modules` must be a mapping"),
        ("modules: {x: }\n", 2, "module 'x' must be a mapping"),
        ("modules: {x: {}}\n", 2, "module 'x' lists no models"),
        ("modules: {x: {models: [a], slices: [a]}}\n", 2, "`models` or `slices`, not both"),
        ("modules: {x: {models: [a], scale: 2}}\n", 2, "unknown key 'scale' in module 'x'"),
        ("slices: []\n", 2, "must be a list"),
        ("slices: {sources: []}\n", 2, "must be a list"),
        ("slices: [{parameters: {scale: 1}}]\n", 2, "needs `sources`"),
        ("slices: [a]\n", 2, "a slice must be a mapping"),
        ("slices: [{sources: []}]\n", 2, "`sources` lists no model"),
        ("slices: [{sources: [{model: a, layer_range: [0, 2]}], scale: 2}]\n", 2, "unknown key 'scale' in a slice"),
        ("slices: [{sources: [{model: a, layer_range: [0, 2]}]}, {sources: [a]}]\n", 2, "needs its `layer_range`"),
        (SLICE % "[{model: a, layer_range: [0]}]", 3, "two layer numbers"),
        (SLICE % "[{model: a, layer_range: [0, 2, 4]}]", 3, "two layer numbers"),
        (SLICE % "[{model: a, layer_range: [0, x]}]", 3, "two layer numbers"),
        (SLICE % "[{model: a, layer_range: [0, 1.5]}]", 3, "two layer numbers"),
        (SLICE % "[{model: a, layer_range: [true, 2]}]", 3, "two layer numbers"),
        (SLICE % "[{model: a, layer_range: 4}]", 3, "two layer numbers"),
        (SLICE % "[{model: a, layer_range: }]", 3, "two layer numbers"),
        (SLICE % "[{model: a, layer_range: [-2, 4]}]", 3, "[-2, 4] starts or ends below"),
        (SLICE % "[{model: a, layer_range: [3, 1]}]", 3, "[3, 1] ends before it starts"),
        (SLICE % "[{model: a, layer_range: [0, 100001]}]", 3, "no model has 100001 layers"),
        (SLICE % ("[{model: a, layer_range: [0, 1" + "0" * 1000 + "]}]"), 3, "no model has"),
        (SLICE % "[{model: a, layer_range: [0, 4]}, {model: b, layer_range: [0, 5]}]", 3, "equally many layers"),
        (SLICE % "[{model: a, layer_range: [0, 4]}, {model: b}]", 3, "source 'b' of a slice needs its `layer_range`"),
    ],
)
def test_what_cannot_be_run_is_one_error_with_a_place(problems, text, where, what):
    ((place, found, _),) = problems(PASS + text)
    assert what in found
    assert place == f"recipe:{where}"
    assert len(found) < 500


def test_a_wrong_name_of_a_model_is_not_also_a_missing_model(problems):
    ((_, what, _),) = problems("merge_method: nuslerp\nmodels: [a, b@c@d]\n")
    assert "is not a revision" in what
    ((_, what, _),) = problems("merge_method: ties\nbase_model: b+c+d\nmodels: [a]\n")
    assert "is not one model and one adapter" in what


def test_every_wrong_range_is_reported(problems):
    slices = [{"sources": [{"model": "a", "layer_range": bounds}]} for bounds in ([1, 0], [0, 1], [-1, 0])]
    assert len(problems({"merge_method": "passthrough", "slices": slices})) == 2


def test_an_unknown_method_still_has_its_form_checked(problems):
    found = problems("merge_method: pass\nslices: [{sources: [{model: a, layer_range: [2, 0]}]}]\n")
    assert [what for _, what, _ in found] == [
        "unknown method 'pass'", "`layer_range` [2, 0] ends before it starts"
    ]  # fmt: skip


OWN_METHODS = """
merge_method: ties
base_model: base
modules:
  text:
    models: [a, b]
  vision:
    merge_method: slerp
    models: [a]
    parameters: {t: 0.25}
  again:
    merge_method: ties
    models: [a]
parameters: {density: 0.3}
"""


def test_modules_with_methods_of_their_own(load):
    """The recipe's parameters are those of its own method, which a module may name as well."""
    recipe = load(OWN_METHODS)
    text, vision, again = recipe.modules
    assert [recipe.method_of(module).name for module in recipe.modules] == ["ties", "slerp", "ties"]
    assert [method.name for method in recipe.methods] == ["ties", "slerp"]
    names = {"output_name": "w", "source_names": ["w"], "position": 0.0}
    assert recipe.values_at(vision, vision.slices[0], **names) == {"t": 0.25}
    assert recipe.values_at(again, again.slices[0], **names)["density"] == [0.3]
    assert recipe.static(text) and recipe.static(vision) == {}
    assert load(recipe.text) == recipe
    assert load(OWN_METHODS.replace("t: 0.25", "t: 0.5")) != recipe


def test_a_method_of_a_module_is_checked_like_the_recipes(problems):
    found = problems(OWN_METHODS.replace("slerp", "slrep"))
    assert [(line, what) for line, what, _ in found] == [("recipe:8", "unknown method 'slrep'")]
    found = problems(OWN_METHODS.replace("t: 0.25", "density: 0.25"))
    assert any("needs parameter 't'" in what for _, what, _ in found)
    found = problems(OWN_METHODS.replace("models: [a]\n    parameters", "models: [a, b]\n    parameters"))
    assert any("'slerp' takes exactly 1 model(s) besides the base, not 2" in what for _, what, _ in found)
