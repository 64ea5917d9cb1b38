"""Where a merge is not mergekit's: each finding on the line that causes it, and none where there is no difference."""

import pytest

from rlmerge.recipe.differences import differences
from rlmerge.recipe.load import build_documents, registered
from rlmerge.recipe.yaml_text import documents


def found(text):
    roots = documents(text, "r")
    recipes = build_documents(roots, "r", registered)
    return [(finding.line, finding.why) for finding in differences(recipes[-1], roots[-1])]


SAME = "merge_method: linear\nbase_model: base\nmodels: [{model: base, parameters: {weight: 1}}]\ndtype: float32\n"


def test_a_plain_average_in_float32_is_the_same():
    assert found(SAME) == []


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        (SAME.replace("dtype: float32", "dtype: bfloat16"), 4, "mergekit rounds first"),
        (SAME.replace("base_model: base\n", ""), 1, "config and tokenizer are those of the first model"),
        (SAME.replace("parameters: {weight: 1}", "x-n: 1"), 3, "'base' has no weight"),
        (SAME + "tokenizer_source: base\n", 5, "cuts spare rows off"),
        (SAME + "tokenizer: {source: union}\n", 5, "differ from run to run"),
        (SAME + "chat_template: auto\n", 5, "equally frequent"),
        (SAME + "chat_template: llama3\n", 5, "our own text"),
        (SAME.replace("model: base,", "model: base+lora,"), 3, "applied exactly"),
        ("merge_method: sar_merging\nbase_model: b\nmodels: [a]\n", 1, "mergekit has no method 'sar_merging'"),
        ("merge_method: ties\nbase_model: b\nmodels: [a]\nparameters: {weight: 1}\n", 1, "computes in the type"),
        ("merge_method: ties\nbase_model: b\nmodels: [a]\nparameters: {weight: 1}\n", 1, "magnitudes at the threshold"),
        ("merge_method: nearswap\nbase_model: b\nmodels: [a]\nparameters: {t: 1}\n", 1, "differences below 1e-6"),
        ("merge_method: della\nbase_model: b\nmodels: [a]\nparameters: {weight: 1}\n", 1, "rank_nonzero is true"),
        (
            "merge_method: linear\nparameters: {weight: 1}\nslices:\n- sources: [{model: a, layer_range: [0, 2]}]\n"
            "- sources: [{model: a, layer_range: [2, 4]}, {model: b, layer_range: [2, 4]}]\n",
            5,
            "merged of all 2 models; mergekit uses only 1",
        ),
        (
            "merge_method: linear\nparameters: {weight: 1}\nslices:\n"
            "- sources: [{model: a, layer_range: [0, 2]}, {model: a, layer_range: [2, 4]}]\n",
            4,
            "one model takes part twice",
        ),
    ],
)
def test_each_difference_on_its_line(text, line, word):
    assert any(place == line and word in why for place, why in found(text)), found(text)


def test_compat_leaves_no_value_to_differ():
    text = "merge_method: della\nbase_model: b\nmodels: [a]\nparameters: {weight: 1}\ncompat: mergekit\n"
    assert not any("gives mergekit's" in why for _, why in found(text))
    text = text.replace("compat: mergekit\n", "").replace("weight: 1", "weight: 1, rescale: l1, rank_nonzero: false")
    assert not any("gives mergekit's" in why for _, why in found(text))


def test_a_filter_of_all_routers_is_ours():
    rules = "[{filter: router, value: 0}, {value: 1}]"
    text = f"merge_method: ties\nbase_model: b\nmodels: [a]\nparameters: {{weight: {rules}}}\n"
    assert any(line is None and "speaks of all routers" in why for line, why in found(text))
    assert not any("routers" in why for _, why in found(text + "compat: mergekit\n"))


def test_a_method_of_a_module_is_ours():
    text = "merge_method: ties\nbase_model: b\nparameters: {weight: 1}\nmodules:\n  x:\n    models: [a]\n"
    text += "  y:\n    merge_method: slerp\n    models: [a]\n    parameters: {t: 0.5}\n"
    assert (8, "module 'y' is merged by slerp; mergekit has one method for all modules") in found(text)
