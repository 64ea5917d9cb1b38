"""Modules: which tensors each name stands for, and that every module is a merge of its own."""

import pytest

import rlmerge
from rlmerge.errors import RecipeError
from rlmerge.merging.modules import module_prefix
from rlmerge.merging.towers import tower_of
from support.merges import config_of, merge, numbers, plan, write

TEXT = [f"model.language_model.layers.{i}.w" for i in range(3)]
VISION = [f"model.visual.blocks.{i}.w" for i in range(2)]
PROJECTOR = "model.multi_modal_projector.linear.weight"
REST = ["model.language_model.embed_tokens.weight", "model.language_model.norm.weight", "lm_head.weight"]
NAMES = [REST[0], *TEXT, *REST[1:], *VISION, PROJECTOR]
CONFIG = {"text_config": {"num_hidden_layers": 3}, "vision_config": {"depth": 2}}


def filled(value, names=NAMES):
    return {name: [[value]] for name in names}


@pytest.fixture
def folder(tmp_path):
    """Vision-language models that are 0, 8 and 80 all over."""
    write(tmp_path, config=CONFIG, zero=filled(0), a=filled(8), b=filled(80))
    return tmp_path


def flat(merged):
    return {name: value[0][0] for name, value in merged.items()}


def modules(text, method="task_arithmetic", more=", base_model: $/zero"):
    return f"{{merge_method: {method}{more}, modules: {{{text}}}}}"


# Names

LAYOUTS = {
    "plain": ["model.embed_tokens.weight", "model.layers.0.w", "model.norm.weight", "lm_head.weight"],
    "vlm": NAMES,
    "hub-vlm": ["model.layers.0.w", "model.norm.weight", "visual.blocks.0.w", "visual.merger.mlp.0.weight"],
    "llava": ["language_model.model.layers.0.w", "language_model.lm_head.weight", "multi_modal_projector.w",
              "vision_tower.vision_model.encoder.layers.0.w"],
    "llama4": ["language_model.model.layers.0.w", "vision_model.model.layers.0.w", "multi_modal_projector.w"],
    "t5": ["shared.weight", "encoder.block.0.w", "encoder.norm.weight", "decoder.block.0.w", "lm_head.weight"],
    "whisper": ["model.encoder.conv1.weight", "model.encoder.layers.0.w", "model.decoder.layers.0.w"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "name", "prefix"),
    [
        ("plain", "default", ""),
        ("vlm", "default", ""),
        ("vlm", "text_decoder", "model.language_model"),
        ("vlm", "vision_tower", "model.visual"),
        ("vlm", "multi_modal_projector", "model.multi_modal_projector"),
        ("vlm", "model.visual.blocks", "model.visual.blocks"),
        ("vlm", "model.visual", "model.visual"),
        ("vlm", "visual", "model.visual"),
        ("hub-vlm", "vision_tower", "visual"),
        ("llava", "text_decoder", "language_model"),
        ("llava", "vision_tower", "vision_tower"),
        ("llava", "multi_modal_projector", "multi_modal_projector"),
        ("llava", "vision_tower.vision_model.encoder.layers", "vision_tower.vision_model.encoder.layers"),
        ("llama4", "text_decoder", "language_model"),
        ("llama4", "vision_model", "vision_model"),
        ("t5", "encoder", "encoder"),
        ("t5", "decoder", "decoder"),
        ("t5", "shared", "shared"),
        ("whisper", "encoder", "model.encoder"),
        ("whisper", "decoder", "model.decoder"),
        ("plain", "vision_tower", None),
        ("plain", "nonsense", None),
        ("t5", "vision_model", None),
    ],
)
def test_prefixes_and_mergekits_names(layout, name, prefix):
    names = LAYOUTS[layout]
    towers = list(dict.fromkeys(found[0] for each in names if (found := tower_of(each))))
    assert module_prefix(name, names, towers) == prefix


@pytest.mark.parametrize("layout", ["hub-vlm", "plain"])
def test_a_text_decoder_beside_a_vision_tower_is_not_the_vision_tower(layout):
    """``model`` or the rest: in either case the text's layers and nothing of ``visual``."""
    names = LAYOUTS[layout]
    towers = list(dict.fromkeys(found[0] for each in names if (found := tower_of(each))))
    assert module_prefix("text_decoder", names, towers) in ("", "model")


# Merges


def test_each_module_has_its_models_and_parameters(folder):
    text = """
        vision_tower: {models: [$/zero, {model: $/a, parameters: {weight: 0.5}}]},
        multi_modal_projector: {models: [$/b], parameters: {weight: 0.25}},
        text_decoder: {models: [$/a, $/b]},
        default: {models: [$/b]}"""
    merged, result = merge(folder, modules(text, more=", base_model: $/zero, parameters: {weight: 1}"))
    values = flat(merged)
    assert [values[name] for name in VISION] == [4, 4]
    assert values[PROJECTOR] == 20
    assert [values[name] for name in (*TEXT, *REST[:2])] == [88] * 5
    assert values["lm_head.weight"] == 80
    assert not any("no module" in warning for warning in result.warnings)


def test_every_module_counts_its_own_layers(folder):
    text = "vision_tower: {models: [$/a]}, default: {models: [$/a]}"
    more = ", base_model: $/zero, parameters: {weight: [0, 1]}"
    values = flat(merge(folder, modules(text, more=more))[0])
    assert [values[name] for name in TEXT] == [0, 4, 8]
    assert [values[name] for name in VISION] == [0, 8]


def test_tensors_of_no_module_are_copied_from_the_base_with_a_warning(folder):
    merged, result = merge(folder, modules("text_decoder: {models: [$/a]}"))
    values = flat(merged)
    assert {name for name, value in values.items() if value == 0} == {"lm_head.weight", *VISION, PROJECTOR}
    assert {values[name] for name in TEXT} == {8}
    (said,) = [warning for warning in result.warnings if "no module" in warning]
    assert "4 tensors" in said
    assert said.endswith(f"copied from {folder}/zero")


def test_without_a_base_they_are_an_error(folder):
    with pytest.raises(
        RecipeError, match=r"no module speaks of 4 tensors .* no base to copy them from\n  Name a base_model"
    ):
        plan(folder, modules("text_decoder: {models: [$/a, $/b]}", "linear", ""))


def test_slices_in_a_module(folder):
    """Three text layers become five; vision stays as the base has it."""
    text = """text_decoder: {slices: [
        {sources: [{model: $/a, layer_range: [0, 3]}]}, {sources: [{model: $/b, layer_range: [1, 3]}]}]},
        vision_tower: {slices: [{sources: [{model: $/b, layer_range: [0, 2]}]}]}"""
    merged, _ = merge(folder, modules(text, "passthrough"))
    values = flat(merged)
    assert [values[f"model.language_model.layers.{i}.w"] for i in range(5)] == [8, 8, 8, 80, 80]
    assert (values[REST[0]], values[REST[1]]) == (8, 80)
    assert [values[name] for name in VISION] == [80, 80]
    written = config_of(folder / "out")
    assert (written["text_config"]["num_hidden_layers"], written["vision_config"]["depth"]) == (5, 2)


def test_an_encoder_and_a_decoder(tmp_path):
    names = ["shared.weight", *(f"{side}.block.{i}.w" for side in ("encoder", "decoder") for i in range(2))]
    config = {"num_layers": 2, "num_decoder_layers": 2}
    write(tmp_path, config=config, zero=filled(0, names), a=filled(8, names), b=filled(80, names))
    text = """encoder: {models: [$/a]}, decoder: {models: [{model: $/b, parameters: {weight: [0, 1]}}]},
        shared: {models: [$/a, $/b]}"""
    values = flat(merge(tmp_path, modules(text))[0])
    assert [values[name] for name in names] == [88, 8, 8, 0, 80]


@pytest.mark.parametrize("layout", ["same", "plain"])
def test_a_text_expert_goes_into_the_text_tower(folder, layout):
    """Its tensors may have the text tower's names or those of the text-only architecture."""
    names = {name: name.replace("model.language_model.", "model.") for name in (*TEXT, *REST)}
    expert = [*names] if layout == "same" else [*names.values()]
    write(folder, config={"num_hidden_layers": 3}, text=filled(8, expert))
    text = "text_decoder: {models: [$/text]}, vision_tower: {models: [$/b]}, multi_modal_projector: {models: [$/a]}"
    values = flat(merge(folder, modules(text))[0])
    assert [values[name] for name in (*TEXT, *REST[:2], "lm_head.weight")] == [8] * 5 + [0]
    assert [values[name] for name in (*VISION, PROJECTOR)] == [80, 80, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "visual: {models: [$/a]}, vision_tower: {models: [$/b]}",
            "'visual' and 'vision_tower' both mean 'model.visual'",
        ),
        ("vision_tower: {models: [$/a]}, audio: {models: [$/b]}", r"no module 'audio'\n  Modules: .*model\.visual"),
    ],
)
def test_two_names_of_one_module_and_one_problem_for_one_cause(folder, text, message):
    with pytest.raises(RecipeError, match=message) as caught:
        plan(folder, modules(text, "linear", ""))
    assert len(caught.value.problems) == 1


def test_what_neither_a_module_nor_the_base_has_is_left_out(folder):
    write(folder, config=CONFIG, more=filled(8, [*NAMES, "mtp.norm.weight"]))
    merged, result = merge(folder, modules("vision_tower: {models: [$/more]}"))
    assert set(merged) == set(NAMES)
    assert f"the experts hold 1 tensor ('mtp.norm.weight') that {folder}/zero lacks; left out" in result.warnings


def test_an_inner_module_is_taken_out_of_an_outer_one_in_any_order(folder):
    inner, outer = "model.visual.blocks: {models: [$/b]}", "model: {models: [$/a]}"
    for number, text in enumerate((f"{inner}, {outer}", f"{outer}, {inner}")):
        values = flat(merge(folder, modules(text), out=f"out{number}")[0])
        assert ([values[name] for name in VISION], values[TEXT[0]]) == ([80, 80], 8)


def test_a_module_with_a_method_of_its_own(folder):
    text = """
        vision_tower: {merge_method: linear, models: [$/a, $/b], parameters: {weight: 1}},
        multi_modal_projector: {merge_method: passthrough, models: [$/b]},
        default: {models: [$/a, $/b]}"""
    merged, result = merge(folder, modules(text, more=", base_model: $/zero, parameters: {lambda: 0.5}"))
    values = flat(merged)
    # (8 + 80) / 3, for an average takes in a base that is not listed; 80 as it is; (8 + 80) / 2.
    assert [values[name] for name in VISION] == pytest.approx([88 / 3] * 2)
    assert values[PROJECTOR] == 80
    assert [values[name] for name in (*TEXT, *REST)] == [44] * 6
    assert result.method == "linear, passthrough, task_arithmetic"
    card = (folder / "out" / "README.md").read_text()
    assert "- linear\n- passthrough\n- task_arithmetic\n" in card
    again = rlmerge.merge(folder / "out" / "rlmerge.lock.yaml", folder / "again", cache=False)
    assert numbers(folder / "again") == merged and again.method == result.method


def test_statistics_of_a_module_are_those_of_its_method(tmp_path):
    """TIES keeps one of four entries in each layer of the text, but all of vision's."""
    base = {name: [[0.0] * 4] for name in NAMES}
    write(tmp_path, config=CONFIG, base=base, a={name: [[1.0, 2.0, 3.0, 4.0]] for name in NAMES})
    text = "vision_tower: {merge_method: task_arithmetic, models: [$/a]}, default: {models: [$/a]}"
    more = ", base_model: $/base, parameters: {density: 0.25}"
    merged, _ = merge(tmp_path, modules(text, "ties", more))
    assert [merged[name] for name in VISION] == [[[1.0, 2.0, 3.0, 4.0]]] * 2
    assert [merged[name] for name in TEXT] == [[[0.0, 0.0, 0.0, 4.0]]] * 3
