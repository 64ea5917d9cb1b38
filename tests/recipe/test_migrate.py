import numpy as np
import pytest
import yaml

from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe import load_recipe, load_recipes
from rlmerge.recipe.migrate import explicit, migrate

from .conftest import find


@pytest.fixture
def explain(tmp_path):
    """The migration of a text, and its lines as {number: (verdict, reasons)}."""

    def call(text, **options):
        path = tmp_path / "recipe.yml"
        path.write_text(text)
        found = migrate(path, **options)
        return found, {line.number: (line.verdict, line.why) for line in found.lines}

    return call


def test_every_line_that_says_something_is_judged(explain):
    found, lines = explain(
        "# how it began\n"
        "merge_method: slerp\n"
        "\n"
        "base_model: base\n"
        "models:\n"
        "  - model: a\n"
        "    parameters:\n"
        "      weight: 0.5\n"
        "parameters: {t: 0.3}\n"
        "dtype: float32\n"
    )
    assert list(lines) == [2, 4, 5, 6, 7, 8, 9, 10]
    assert lines[8] == ("no effect", ("'weight' has no effect on slerp: ignored, as in mergekit",))
    assert {verdict for number, (verdict, _) in lines.items() if number != 8} == {"same"}
    assert found.lines[0].text == "merge_method: slerp"
    assert found.remarks == ()


def test_what_differs_says_why(explain):
    _, lines = explain(
        "merge_method: dare_ties\n"
        "base_model: base\n"
        "models: [a]\n"
        "parameters:\n"
        "  rescale: true\n"
        "dtype: bfloat16\n"
        "tokenizer_source: union\n"
        "chat_template: chatml\n"
    )
    for number, word in ((1, "seed"), (3, "no weight"), (5, "l1"), (6, "float32"), (7, "order"), (8, "our own text")):
        verdict, why = lines[number]
        assert verdict == "differs"
        assert word in " ".join(why), (number, why)


def test_a_value_left_open_is_named_at_the_method(explain):
    _, lines = explain("merge_method: sce\nbase_model: base\nmodels: [a, b]\ndtype: float32\n")
    assert "floor is 0; `floor: 1e-06` or `compat: mergekit` gives mergekit's" in lines[1][1]


def test_compat_takes_them_back_and_keeps_saying_so(explain):
    text = "merge_method: sce\nbase_model: base\nmodels: [a, b]\ndtype: float32\ndensty: 1\n"
    found, lines = explain(text, compat=True)
    assert lines[1] == ("same", ())
    assert lines[5][0] == "no effect"
    assert "floor: 1.0e-06" in found.text and "compat: mergekit" in found.text


def test_what_means_the_same_may_still_need_a_word(explain):
    _, lines = explain("merge_method: linear\nbase_model: base\nmodels: [a]\nparameters: {weight: 1}\n")
    verdict, (why,) = lines[2]
    assert verdict == "same"
    assert "averages the base in, as mergekit does" in why


def test_several_recipes(explain):
    found, lines = explain(
        "merge_method: linear\nmodels: [{model: x, parameters: {weight: 1}}]\n---\n"
        "name: x\nmerge_method: sce\nbase_model: b\nmodels: [a]\n"
    )
    assert lines[3] == ("same", ())
    assert lines[5][0] == "differs"
    assert [recipe.name for recipe in load_recipes(found.text)] == ["x", None]


def test_line_ends_of_every_kind_are_counted_as_yaml_counts_them(explain):
    _, lines = explain('merge_method: ties\rbase_model: b\r\nmodels: [a]\nx: "a\u2028 b"\nint8_mask: 1\n')
    assert lines[6][0] == "no effect"


def test_errors_and_locks_are_refused(explain):
    with pytest.raises(RecipeError, match="no parameter 'densty'"):
        explain("merge_method: ties\nbase_model: b\nmodels: [a]\nparameters: {densty: 1}\n")
    with pytest.raises(RecipeError, match="recipe is empty"):
        explain("\n")
    with pytest.raises(RequestError, match="a lock says everything already"):
        explain("rlmerge_lock: 1\n")


FORMS = [
    "models: [{model: a, parameters: {weight: 0.2}}, b]\n",
    "models: [{model: a, parameters: {weight: {filter: mlp, value: 0.2}}}, b]\n"
    "parameters: {weight: {filter: x, value: 3}}\n",
    "slices: [{sources: [{model: base, layer_range: [0, 2]}, {model: a, layer_range: [0, 2]}],"
    " parameters: {weight: 2}}]\n",
    "modules: {x: {models: [a], parameters: {density: 0.5, lambda: [{filter: q, value: 2}]}}, y: {models: [b, a]}}\n",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compat", ["", "compat: mergekit\n"])
def test_the_explicit_recipe_has_the_same_values_and_needs_no_default(form, compat):
    recipe = load_recipe("merge_method: dare_linear\nbase_model: base\n" + form + compat, lookup=find)
    spelled = load_recipe(explicit(recipe).text, lookup=find)
    for (module, part), (other_module, other) in zip(recipe.slices, spelled.slices, strict=True):
        for name in ("layers.0.mlp.q", "layers.0.x", "norm"):
            ask = {"output_name": name, "source_names": [name] * len(part.sources), "position": 0.5}
            ours, theirs = recipe.values_at(module, part, **ask), spelled.values_at(other_module, other, **ask)
            assert ours.keys() == theirs.keys()
            assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    missing = set(recipe.method.names) - set(spelled.parameters)
    assert all(f"{name}:" in spelled.text for name in missing)
    assert explicit(spelled) == spelled


def test_every_value_of_a_module_with_a_method_of_its_own(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "merge_method: ties\nbase_model: b\nmodules:\n  x: {models: [a]}\n  y: {merge_method: dare_ties, models: [a]}\n"
    )
    written = yaml.safe_load(migrate(file).text)
    assert written["parameters"]["density"] == 1.0
    assert written["modules"]["y"]["merge_method"] == "dare_ties"
    assert written["modules"]["y"]["parameters"]["density"] == 1.0 and "parameters" not in written["modules"]["x"]
