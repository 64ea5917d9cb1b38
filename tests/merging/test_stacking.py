"""Stacked layers and their configuration: what belongs together, and what of a model is not a layer's."""

import pytest

from rlmerge.errors import RecipeError, RequestError
from support.merges import config_of, merge, plan, write

S, F = "sliding_attention", "full_attention"
TYPES = {"num_hidden_layers": 4, "layer_types": [S, S, S, F]}


def model(start, count=4, width=1, **more):
    layers = {f"model.layers.{i}.w": [[start + i] * width] for i in range(count)}
    ends = {
        "model.embed_tokens.weight": [[1] * width],
        "model.norm.weight": [1] * width,
        "lm_head.weight": [[2] * width],
    }
    return {**ends, **layers, **more}


def part(*sources, more=""):
    listed = ", ".join(f"{{model: $/{name}, layer_range: [{start}, {stop}]}}" for name, start, stop in sources)
    return f"{{sources: [{listed}]{more}}}"


def stack(*parts, method="passthrough", more=""):
    return f"{{merge_method: {method}, slices: [{', '.join(parts)}]{more}}}"


def layers(merged):
    return [
        merged[f"model.layers.{i}.w"][0][0] for i in range(sum(name.startswith("model.layers.") for name in merged))
    ]


# Configuration


def test_lists_by_layer_follow_the_first_sources_layers(tmp_path):
    config = TYPES | {"no_rope_layers": [1, 1, 1, 0], "mlp_only_layers": [0, 3]}
    write(tmp_path, config=config, a=model(10), b=model(20))
    merge(tmp_path, stack(part(("a", 0, 2)), part(("b", 2, 4)), part(("a", 3, 4))))
    written = config_of(tmp_path / "out")
    assert written["num_hidden_layers"] == 5
    assert written["layer_types"] == [S, S, S, F, F]
    assert written["no_rope_layers"] == [1, 1, 1, 0, 0]
    assert written["mlp_only_layers"] == [0, 3, 4]


def test_sections_of_the_configuration(tmp_path):
    config = {"text_config": TYPES, "vision_config": {"depth": 1}, "vocab_size": 1}
    write(tmp_path, config=config, a=model(10))
    merge(tmp_path, stack(part(("a", 2, 4)), part(("a", 2, 4))))
    written = config_of(tmp_path / "out")
    assert written["text_config"] == {"num_hidden_layers": 4, "layer_types": [S, F, S, F]}
    assert written["vision_config"] == {"depth": 1}


def test_the_base_gives_the_configuration(tmp_path):
    write(tmp_path, config=TYPES | {"rope_theta": 1}, a=model(10))
    write(tmp_path, config=TYPES | {"rope_theta": 2}, b=model(20))
    recipe = stack(part(("a", 0, 2)), part(("b", 2, 4)), more=", base_model: $/b")
    merge(tmp_path, recipe)
    assert config_of(tmp_path / "out")["rope_theta"] == 2


@pytest.mark.parametrize("config", [{}, {"num_hidden_layers": 2}])
def test_a_configuration_that_cannot_be_adapted(tmp_path, config):
    """It names no number of layers, or less than the recipe takes."""
    write(tmp_path, config=config, a=model(10))
    with pytest.raises(RequestError, match=r"names no number of layers|goes beyond the 2 layers"):
        plan(tmp_path, stack(part(("a", 0, 3)), part(("a", 1, 2))))


# What fits


def test_layers_of_other_widths(tmp_path):
    write(tmp_path, config={"num_hidden_layers": 4}, a=model(10), wide=model(20, width=2))
    with pytest.raises(
        RecipeError, match=r"wide: '.*' has shape \[1, 2\], but \[1, 1\] in .*/a\n  Layers can be stacked"
    ):
        plan(tmp_path, stack(part(("a", 0, 2)), part(("wide", 0, 2))))
    with pytest.raises(RecipeError, match=r"\[1, 2\]"):
        plan(tmp_path, stack(part(("a", 0, 2), ("wide", 0, 2)), method="linear"))


@pytest.mark.parametrize(("start", "fits"), [(0, True), (1, True), (2, False)])
def test_layers_of_other_kinds_are_not_merged(tmp_path, start, fits):
    """Layers 0 … 2 slide and layer 3 does not."""
    write(tmp_path, config=TYPES, a=model(10), b=model(20))
    recipe = stack(part(("a", 0, 2), ("b", start, start + 2)), method="linear")
    if fits:
        assert layers(merge(tmp_path, recipe)[0]) == [(10 + 20 + start + 2 * i) / 2 for i in range(2)]
        return
    with pytest.raises(RecipeError, match=r"layers 1 and 3 would be merged, but .* different kinds"):
        plan(tmp_path, recipe)


def test_the_base_of_a_slice_is_of_its_layers_kind(tmp_path):
    write(tmp_path, config=TYPES, a=model(10), b=model(20))
    recipe = stack(part(("a", 3, 4), ("b", 0, 1)), method="task_arithmetic", more=", base_model: $/a")
    with pytest.raises(RecipeError, match=r"layers 0 and 3 would be merged"):
        plan(tmp_path, recipe)


@pytest.mark.parametrize("method", ["passthrough", "linear"])
def test_a_model_of_several_towers_needs_modules(tmp_path, method):
    write(tmp_path, config={"num_hidden_layers": 4}, a=model(10, **{"visual.blocks.0.w": [[1]]}))
    with pytest.raises(
        RecipeError, match=r"slices need one tower.*2: 'model.layers', 'visual.blocks'\n  Use `modules`"
    ):
        plan(tmp_path, stack(part(("a", 0, 2)), part(("a", 1, 2)), method=method))


# What trainers drop


BUFFER, EXTRA = "model.layers.1.self_attn.rotary_emb.inv_freq", "model.layers.1.q_norm.weight"


@pytest.mark.parametrize("holder", ["base", "expert"])
def test_derived_buffers_never_stop_a_merge(tmp_path, holder):
    models = {"base": model(0), "expert": model(10)}
    models[holder][BUFFER] = [7, 8]
    write(tmp_path, config={"num_hidden_layers": 4}, **models)
    recipe = stack(part(("base", 0, 2), ("expert", 0, 2)), method="task_arithmetic", more=", base_model: $/base")
    merged, result = merge(tmp_path, recipe)
    assert layers({n: v for n, v in merged.items() if n.endswith(".w")}) == [10, 11]
    assert merged[BUFFER] == [7, 8]
    assert not any("inv_freq" in warning for warning in result.warnings)


def test_what_no_expert_has_is_the_bases(tmp_path):
    write(tmp_path, config={"num_hidden_layers": 4}, base=model(0, **{EXTRA: [3]}), expert=model(10))
    recipe = stack(part(("base", 1, 2), ("expert", 1, 2)), method="task_arithmetic", more=", base_model: $/base")
    merged, result = merge(tmp_path, recipe)
    assert merged["model.layers.0.q_norm.weight"] == [3]
    said = f"no expert has 1 tensor ('model.layers.0.q_norm.weight') of {tmp_path}/base; copied from there"
    assert said in result.warnings


def test_what_the_base_lacks_is_left_out(tmp_path):
    write(tmp_path, config={"num_hidden_layers": 4}, base=model(0), expert=model(10, **{EXTRA: [3]}))
    recipe = stack(part(("base", 1, 2), ("expert", 1, 2)), method="task_arithmetic", more=", base_model: $/base")
    merged, result = merge(tmp_path, recipe)
    assert not any("q_norm" in name for name in merged)
    assert any("'model.layers.0.q_norm.weight'" in w and w.endswith("lacks; left out") for w in result.warnings)


@pytest.mark.parametrize("first", ["a", "b"])
def test_without_a_base_what_one_lacks_is_an_error_in_either_order(tmp_path, first):
    write(tmp_path, config={"num_hidden_layers": 4}, a=model(0), b=model(10, **{EXTRA: [3]}))
    second = "ab".replace(first, "")
    with pytest.raises(RecipeError, match=r"/a: lacks 'model.layers.1.q_norm.weight'"):
        plan(tmp_path, stack(part((first, 1, 2), (second, 1, 2)), method="linear"))


LEFT_OUT = "left out: {}, as multi-token prediction fits the layers as they were; only speculative decoding needs it"


def test_a_layer_for_multi_token_prediction_is_left_out_with_a_warning(tmp_path):
    write(tmp_path, config={"num_hidden_layers": 4}, a=model(0, count=5))
    merged, result = merge(tmp_path, stack(part(("a", 0, 4)), part(("a", 2, 4))))
    assert layers(merged) == [0, 1, 2, 3, 2, 3]
    assert LEFT_OUT.format("1 tensor ('model.layers.4.w')") in result.warnings
    with pytest.raises(RecipeError, match=r"goes beyond the 4 layers"):
        plan(tmp_path, stack(part(("a", 0, 5)), part(("a", 2, 4))))


MTP = {"mtp.fc.weight": [[7]], "mtp.layers.0.w": [[8]], "mtp.norm.weight": [9]}
COUNTED = {"num_hidden_layers": 4, "mtp_num_hidden_layers": 1}


def test_a_tower_for_multi_token_prediction_goes_with_the_layers_it_was_trained_on(tmp_path):
    write(tmp_path, config=COUNTED, a=model(0, **MTP))
    merged, result = merge(tmp_path, stack(part(("a", 0, 4)), part(("a", 2, 4))))
    assert layers(merged) == [0, 1, 2, 3, 2, 3]
    assert not any(name.startswith("mtp.") for name in merged)
    assert LEFT_OUT.format("3 tensors ('mtp.fc.weight', 'mtp.layers.0.w', 'mtp.norm.weight')") in result.warnings
    config = config_of(tmp_path / "out")
    assert (config["num_hidden_layers"], config["mtp_num_hidden_layers"]) == (6, 0)


def test_where_all_layers_stay_it_comes_of_the_last_slice(tmp_path):
    more = {name: [[80]] if name == "mtp.fc.weight" else values for name, values in MTP.items()}
    write(tmp_path, config=COUNTED, a=model(0, **MTP), b=model(10, **more))
    merged, result = merge(tmp_path, stack(part(("a", 0, 2)), part(("b", 2, 4))))
    assert layers(merged) == [0, 1, 12, 13]
    assert merged["mtp.fc.weight"] == [[80]] and merged["mtp.layers.0.w"] == [[8]]
    assert config_of(tmp_path / "out")["mtp_num_hidden_layers"] == 1
    assert not any("left out" in warning for warning in result.warnings)


def test_a_model_without_it_lends_none(tmp_path):
    """As experts that transformers saved: it drops what it does not load."""
    write(tmp_path, config=COUNTED, a=model(0, **MTP), b=model(10))
    merged, result = merge(tmp_path, stack(part(("a", 0, 2)), part(("b", 2, 4))))
    assert "mtp.fc.weight" not in merged
    assert any("not every model of the last slice has 3 tensors" in warning for warning in result.warnings)
    assert config_of(tmp_path / "out")["mtp_num_hidden_layers"] == 0


def test_beside_a_module_of_slices_it_is_not_copied(tmp_path):
    write(tmp_path, config=COUNTED, a=model(0, **MTP))
    recipe = "{merge_method: passthrough, base_model: $/a, modules: {model: {slices: [%s, %s]}}}"
    merged, _ = merge(tmp_path, recipe % (part(("a", 0, 4)), part(("a", 2, 4))))
    assert len(layers(merged)) == 6 and not any(name.startswith("mtp.") for name in merged)
    merged, _ = merge(tmp_path, recipe % (part(("a", 0, 2)), part(("a", 2, 4))), out="again")
    assert merged["mtp.fc.weight"] == [[7]]
