"""Where on a gradient a tensor stands, in every kind of tower."""

import pytest

from rlmerge.merging.towers import position, tower_depths, tower_of
from support.merges import merge, write

TEXT = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]
VISION = [f"visual.blocks.{i}.mlp.fc1.weight" for i in range(8)]


def positions(names, config=None, shown=None):
    depths = tower_depths(names, config)
    return [round(position(name, depths), 4) for name in shown or names]


THIRDS = [0.0, 0.3333, 0.6667, 1.0]


@pytest.mark.parametrize(
    ("tensor", "tower", "index"),
    [
        ("model.layers.12.mlp.up_proj.weight", "model.layers", 12),
        ("transformer.h.3.attn.c_attn.weight", "transformer.h", 3),
        ("h.0.ln_1.weight", "h", 0),
        ("gpt_neox.layers.5.mlp.weight", "gpt_neox.layers", 5),
        ("model.visual.blocks.7.attn.proj.weight", "model.visual.blocks", 7),
        ("vision_tower.vision_model.encoder.layers.2.w", "vision_tower.vision_model.encoder.layers", 2),
        ("encoder.block.1.layer.0.SelfAttention.q.weight", "encoder.block", 1),
        ("model.decoder.layers.4.fc1.weight", "model.decoder.layers", 4),
        ("mtp.layers.0.mlp.up_proj.weight", "mtp.layers", 0),
        # The layer is the first number; experts have numbers of their own.
        ("model.layers.2.mlp.experts.7.up_proj.weight", "model.layers", 2),
        ("model.layers.2.blocks.5.w", "model.layers", 2),
    ],
)
def test_the_tower_is_what_stands_before_the_first_layer_number(tensor, tower, index):
    assert tower_of(tensor) == (tower, index)


@pytest.mark.parametrize(
    "tensor",
    ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "visual.merger.mlp.0.weight",
     "model.layers.1234567.w", "mylayers.0.w", "model.layers"],
)  # fmt: skip
def test_outside_the_layers(tensor):
    assert tower_of(tensor) is None
    assert position(tensor, tower_depths([tensor], None)) == 0.0


def test_one_tower():
    assert positions(TEXT) == THIRDS
    assert positions(TEXT[:2]) == [0.0, 1.0]
    assert positions(TEXT[:1]) == [1.0], "the last value where there is one layer"


@pytest.mark.parametrize(
    "vision",
    [
        VISION,
        ["model." + name for name in VISION],
        [f"vision_tower.vision_model.encoder.layers.{i}.w" for i in range(8)],
        [f"model.encoder.layers.{i}.fc1.weight" for i in range(8)],
        [f"audio_tower.layers.{i}.fc1.weight" for i in range(8)],
    ],
    ids=["visual", "model.visual", "vision_tower", "encoder", "audio"],
)
@pytest.mark.parametrize("config", [None, {"num_hidden_layers": 4}, {"text_config": {"num_hidden_layers": 4}}])
def test_towers_are_counted_apart(vision, config):
    both = [*vision, *TEXT]
    assert positions(both, config, TEXT) == THIRDS
    assert positions(both, config, vision) == [round(i / 7, 4) for i in range(8)]


@pytest.mark.parametrize(
    "config",
    [{"num_hidden_layers": 4}, {"n_layer": 4}, {"text_config": {"num_hidden_layers": 4}},
     {"llm_config": {"num_hidden_layers": 4}}],
)  # fmt: skip
def test_a_layer_for_multi_token_prediction_is_no_part_of_the_text(config):
    extra = "model.layers.4.eh_proj.weight"
    assert positions([*TEXT, extra], config) == [*THIRDS, 1.0]
    assert positions([*TEXT, "mtp.layers.0.w"], config) == [*THIRDS, 1.0]
    assert positions([*TEXT, extra]) == [0.0, 0.25, 0.5, 0.75, 1.0], "without a config it cannot be told"


def test_encoder_and_decoder():
    encoder = [f"encoder.block.{i}.layer.0.SelfAttention.q.weight" for i in range(2)]
    decoder = [f"decoder.block.{i}.layer.0.SelfAttention.q.weight" for i in range(4)]
    for config in ({"num_layers": 2, "num_decoder_layers": 4}, None):
        assert positions([*encoder, *decoder], config) == [0.0, 1.0, *THIRDS]
    bart = [f"model.{side}.layers.{i}.fc1.weight" for side in ("encoder", "decoder") for i in range(3)]
    config = {"encoder_layers": 3, "decoder_layers": 3, "num_hidden_layers": 3}
    assert positions(bart, config) == [0.0, 0.5, 1.0] * 2


def test_a_decoder_only_model_below_a_module_called_decoder():
    opt = [f"model.decoder.layers.{i}.fc1.weight" for i in range(4)]
    assert positions([*opt, "model.decoder.layers.4.w"], {"num_hidden_layers": 4}) == [*THIRDS, 1.0]


def test_a_vision_towers_depth_is_its_own_sections():
    config = {"num_hidden_layers": 4, "vision_config": {"depth": 8, "num_hidden_layers": 8}}
    assert positions([*VISION, *TEXT], config, VISION) == [round(i / 7, 4) for i in range(8)]
    config["vision_config"] = {"depth": 5}
    assert positions(VISION, config) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("count", [0, -4, True, "4", 4.0, None, 10**9])
def test_a_configuration_that_says_nonsense_is_not_believed(count):
    assert positions(TEXT, {"num_hidden_layers": count}) == THIRDS


def test_a_gradient_through_text_and_vision(tmp_path):
    """Weights 0, 1/2, 1 over three text layers and 0, 1 over two vision blocks; all weights go from 0 to 8."""
    text = [f"model.layers.{i}.w" for i in range(3)]
    vision = [f"visual.blocks.{i}.w" for i in range(2)]
    names = [*text, *vision, "model.layers.3.enorm.weight", "model.norm.weight"]
    config = {"num_hidden_layers": 3}
    write(tmp_path, config=config, a={name: [0, 0] for name in names}, b={name: [8, 8] for name in names})
    recipe = """{merge_method: task_arithmetic, base_model: $/a,
        models: [{model: $/b, parameters: {weight: [0, 1]}}]}"""
    merged, _ = merge(tmp_path, recipe)
    assert [merged[name][0] for name in text] == [0, 4, 8]
    assert [merged[name][0] for name in vision] == [0, 8]
    assert merged["model.layers.3.enorm.weight"] == [8, 8]
    assert merged["model.norm.weight"] == [0, 0]
