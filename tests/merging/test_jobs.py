"""Slices: which layer of which model every output layer is made of, and with which values."""

import pytest

import rlmerge
from rlmerge.errors import RecipeError
from support.family import tree
from support.merges import config_of, localised, merge, plan, write

EMBED, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
COUNT = {"num_hidden_layers": 4}


def model(start, count=4, **more):
    """Layer i holds start + i; the embedding start + 50, the norm start + 60, the head start + 70."""
    layers = {f"model.layers.{i}.w": [[start + i]] for i in range(count)}
    return {EMBED: [[start + 50]], **layers, NORM: [start + 60], HEAD: [[start + 70]], **more}


@pytest.fixture
def folder(tmp_path):
    """``a`` of layers 100 … 103, ``b`` of 200 … 203 and ``zero``, which is 0 all over."""
    write(
        tmp_path, config=COUNT, a=model(100), b=model(200), zero={name: 0 * v for name, v in arrays(model(0)).items()}
    )
    return tmp_path


def arrays(tensors):
    import numpy as np

    return {name: np.asarray(values, float) for name, values in tensors.items()}


def layers(merged):
    count = sum(name.startswith("model.layers.") for name in merged)
    return [merged[f"model.layers.{i}.w"][0][0] for i in range(count)]


def ends(merged):
    return merged[EMBED][0][0], merged[NORM][0], merged[HEAD][0][0]


def sliced(*parts, method="passthrough", more=""):
    """A recipe; each part is ``model start stop`` or several of them after one another, and ``key: value`` texts."""
    return f"{{merge_method: {method}, slices: [{', '.join(parts)}]{more}}}"


def of(*sources, more=""):
    listed = ", ".join(f"{{model: $/{m}, layer_range: [{start}, {stop}]{extra}}}" for m, start, stop, extra in sources)
    return f"{{sources: [{listed}]{more}}}"


def one(name, start, stop, extra=""):
    return of((name, start, stop, extra))


def test_layers_are_stacked_and_renumbered(folder):
    """Embeddings come of the first slice, norm and head of the last."""
    merged, _ = merge(folder, sliced(one("a", 0, 3), one("b", 1, 4)))
    assert layers(merged) == [100, 101, 102, 201, 202, 203]
    assert ends(merged) == (150, 260, 270)
    assert config_of(folder / "out")["num_hidden_layers"] == 6


def test_one_model_repeated_and_reordered(folder):
    merged, _ = merge(folder, sliced(one("a", 2, 4), one("a", 0, 2), one("a", 2, 3), one("a", 2, 3)))
    assert layers(merged) == [102, 103, 100, 101, 102, 102]
    assert ends(merged) == (150, 160, 170)


def test_a_partial_range_of_one_slice(folder):
    merged, _ = merge(folder, sliced(one("a", 1, 3)))
    assert layers(merged) == [101, 102]
    assert config_of(folder / "out")["num_hidden_layers"] == 2


def test_an_empty_slice_lends_its_norm_and_head(folder):
    merged, _ = merge(folder, sliced(one("a", 0, 2), one("b", 0, 0)))
    assert layers(merged) == [100, 101]
    assert ends(merged) == (150, 260, 270)


def test_layer_i_reads_each_source_from_its_own_start(folder):
    """Output layer 0: the mean of a's layer 0 and b's layer 2."""
    pair = of(("a", 0, 2, ""), ("b", 2, 4, ""))
    merged, _ = merge(folder, sliced(pair, method="linear"))
    assert layers(merged) == [(100 + 202) / 2, (101 + 203) / 2]
    assert ends(merged) == (200, 210, 220)


def test_different_ranges_of_one_model_are_merged(folder):
    pair = of(("a", 0, 2, ", parameters: {weight: 0.25}"), ("a", 2, 4, ", parameters: {weight: 0.75}"))
    assert layers(merge(folder, sliced(pair, method="linear"))[0]) == [101.5, 102.5]


def test_the_last_slice_merges_the_norms_of_all_its_sources(folder):
    """mergekit would use the first slice's number of sources."""
    parts = one("a", 0, 1), of(("a", 1, 2, ""), ("b", 1, 2, ""))
    merged, _ = merge(folder, sliced(*parts, method="linear"))
    assert ends(merged) == (150, (160 + 260) / 2, (170 + 270) / 2)


def test_parameters_of_source_slice_and_recipe(folder):
    """The nearest holds: 3 of the source, 2 of the slice, 1 of the recipe."""
    parts = (
        one("zero", 0, 1),
        of(("a", 0, 1, ", parameters: {scale: 3}"), more=", parameters: {scale: 2}"),
        of(("a", 0, 1, ""), more=", parameters: {scale: 2}"),
        one("a", 0, 1),
    )
    merged, _ = merge(folder, sliced(*parts, more=", parameters: {scale: 0.5}"))
    assert layers(merged) == [0, 300, 200, 50]


def test_gradients_restart_in_every_slice(folder):
    """Factors 0 … 1 over three layers, then over two; one layer takes the last value, what is outside the first."""
    gradient = ", parameters: {scale: [0, 1]}"
    parts = one("a", 0, 3, gradient), one("a", 0, 2, gradient), one("a", 0, 1, gradient)
    merged, _ = merge(folder, sliced(*parts))
    assert layers(merged) == [0, 50.5, 102, 0, 101, 100]
    assert ends(merged) == (0, 0, 0)


def test_a_filter_per_source_sees_its_own_layer_and_a_shared_one_the_outputs(folder):
    """``layers.2`` of the source becomes output layer 0."""
    rules = "[{filter: layers.2, value: 1}, {value: 0}]"
    parts = one("zero", 0, 2), one("a", 2, 4, f", parameters: {{scale: {rules}}}")
    assert layers(merge(folder, sliced(*parts))[0]) == [0, 0, 102, 0]
    pair = of(("zero", 0, 2, ""), ("a", 2, 4, ""), more=f", base_model: $/zero, parameters: {{t: {rules}}}")
    merged, _ = merge(folder, sliced(one_slerp(0, 2), pair, method="slerp"), out="slerp")
    assert layers(merged)[2:] == [102, 0]


def one_slerp(start, stop):
    return of(("zero", start, stop, ""), ("a", start, stop, ""), more=", base_model: $/zero, parameters: {t: 0}")


def test_bases_of_slices(folder):
    """a − zero and b − zero from zero; then b − a from a."""
    parts = (
        of(("zero", 0, 1, ""), ("a", 0, 1, ""), more=", base_model: $/zero"),
        of(("a", 1, 2, ""), ("b", 1, 2, ", parameters: {weight: 0.5}"), more=", base_model: $/a"),
    )
    merged, _ = merge(folder, sliced(*parts, method="task_arithmetic"))
    assert layers(merged) == [100, 101 + 0.5 * 100]
    assert ends(merged) == (150, 210, 220)


def test_a_base_may_give_other_layers_than_the_expert(folder):
    parts = of(("zero", 0, 1, ""), ("a", 3, 4, ""))
    merged, _ = merge(folder, sliced(parts, method="task_arithmetic", more=", base_model: $/zero"))
    assert layers(merged) == [103]


def test_the_same_bytes_for_any_workers_and_budget(folder):
    parts = of(("a", 0, 3, ""), ("b", 1, 4, "")), of(("a", 1, 4, ""), ("b", 0, 3, ""))
    text = localised(folder, sliced(*parts, method="linear", more=", parameters: {weight: [0.2, 0.7]}"))
    for number, options in enumerate(({"workers": 1}, {"workers": 3, "memory": 40 * 2**20})):
        rlmerge.merge(text, folder / f"out{number}", cache=False, **options)
    first, second = (tree(folder / f"out{number}") for number in range(2))
    assert first["model.safetensors"] == second["model.safetensors"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([one("a", 0, 5)], r"layer_range \[0, 5\] goes beyond the 4 layers of .*/a\n  Give a range within \[0, 4\]"),
        ([one("a", 0, 1), one("b", 3, 6)], r"goes beyond the 4 layers of .*/b"),
        ([one("a", 3, 2)], "layer_range"),
        ([one("a", -1, 2)], "layers are counted from 0"),
        ([of(("a", 0, 2, ""), ("b", 0, 3, ""))], "layers"),
    ],
    ids=["beyond", "later", "reversed", "negative", "unequal"],
)
def test_ranges_that_do_not_fit_are_errors_of_the_plan(folder, parts, message):
    with pytest.raises(RecipeError, match=message):
        plan(folder, sliced(*parts, method="passthrough" if len(parts) > 1 or "$/b" not in parts[0] else "linear"))
