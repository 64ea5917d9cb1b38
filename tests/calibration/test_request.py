import pytest

from rlmerge.calibration.request import check_recipe, data_of
from rlmerge.errors import RequestError
from rlmerge.recipe import load_recipe

NAMES, REFERENCES = ["math", "code"], ["runs/math", "runs/code"]


def test_data_goes_to_experts_by_name_by_reference_and_by_order():
    assert data_of({"code": "c", "math": "m"}, NAMES, REFERENCES) == ["m", "c"]
    assert data_of({"runs/code": "c", "math": "m"}, NAMES, REFERENCES) == ["m", "c"]
    assert data_of(["m", "c"], NAMES, REFERENCES) == ["m", "c"]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"math": "m"}, "expert 'code' has no prompts"),
        ({}, "expert 'math' has no prompts"),
        ({"mat": "m", "code": "c"}, "(?s)no expert is called 'mat'.*Did you mean 'math'"),
        ({"math": "m", "runs/math": "m", "code": "c"}, "expert 'math' has prompts twice"),
        (["m"], "1 sets of prompts for 2 experts"),
    ],
)
def test_prompts_that_fit_no_expert_are_refused(prompts, message):
    with pytest.raises(RequestError, match=message):
        data_of(prompts, NAMES, REFERENCES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge_method: linear\nbase_model: b\nmodels: [{model: e}]", "method 'linear' has no base"),
        ("merge_method: task_arithmetic\nbase_model: b\ntokenizer_source: union\nmodels: [{model: e}]", "vocabulary"),
        (
            "merge_method: task_arithmetic\nbase_model: b\nslices:\n"
            "- sources: [{model: b, layer_range: [0, 1]}, {model: e, layer_range: [0, 1]}]\n"
            "- sources: [{model: b, layer_range: [1, 2]}, {model: e, layer_range: [1, 2]}]",
            "has slices or modules",
        ),
    ],
)
def test_recipes_without_coefficients_are_refused(tmp_path, text, message):
    with pytest.raises(RequestError, match=message):
        check_recipe(load_recipe(text + "\n"), tmp_path / "out.yaml", False)


def test_what_is_there_is_not_replaced_unasked(tmp_path):
    recipe = load_recipe("merge_method: task_arithmetic\nbase_model: b\nmodels: [{model: e}]\n")
    (tmp_path / "out.yaml").write_text("kept")
    with pytest.raises(RequestError, match=r"(?s)exists.*--force"):
        check_recipe(recipe, tmp_path / "out.yaml", False)
    check_recipe(recipe, tmp_path / "out.yaml", True)
    with pytest.raises(RequestError, match="is a directory"):
        check_recipe(recipe, tmp_path, True)
