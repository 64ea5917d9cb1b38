"""adapter_config.json: PEFT's rules for scales and rows, and what is refused with its reason."""

import json
import math

import pytest

from rlmerge.checkpoint.formats.adapter_config import read_adapter_config
from rlmerge.errors import CheckpointError
from support.adapters import MADE


@pytest.fixture
def config(tmp_path):
    def read(**settings):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | settings))
        return read_adapter_config(tmp_path)

    return read


def test_the_scale_is_alpha_over_the_rank_or_its_root(config):
    assert config(lora_alpha=16).scale("model.q_proj", 8) == 2
    assert config(lora_alpha=16, use_rslora=True).scale("model.q_proj", 8) == 16 / math.sqrt(8)
    assert config().scale("any", 4) == 2, "PEFT's default alpha is 8"


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("q_proj", "model.layers.0.self_attn.q_proj", True),
        ("q_proj", "q_proj", True),
        ("q_proj", "model.eq_proj", False),
        ("q_proj", "model.q_proj.inner", False),
        (r"layers\.0\..*", "model.layers.0.mlp.up_proj", True),
        (r"layers\.0\..*", "model.layers.10.mlp.up_proj", False),
        ("^model.norm", "model.norm", True),
        ("up_proj|down_proj", "model.down_proj", True),
    ],
)
def test_patterns_match_the_end_of_a_name_from_a_dot_on(config, pattern, name, matches):
    assert config(lora_alpha=1, alpha_pattern={pattern: 5}).scale(name, 1) == (5 if matches else 1)


def test_the_first_pattern_that_matches_counts(config):
    found = config(lora_alpha=1, alpha_pattern={"down_proj": 2, ".*proj": 3, "up_proj": 4})
    assert [found.scale(f"mlp.{name}", 1) for name in ("down_proj", "up_proj", "norm")] == [2, 3, 1]


def test_rows_are_listed_for_a_module_or_for_the_embedding(config):
    assert config(trainable_token_indices=[5, 2]).rows("model.wte") == (5, 2)
    found = config(trainable_token_indices={"embed_tokens": [1], "lm_head": [2]})
    assert (found.rows("model.embed_tokens"), found.rows("lm_head")) == ((1,), (2,))
    with pytest.raises(CheckpointError, match="lists no rows of other"):
        found.rows("other")


def test_target_parameters_match_the_end_of_a_name(config):
    found = config(target_parameters=["experts.gate_up_proj", "gate.weight"])
    assert found.is_parameter("model.layers.0.mlp.experts.gate_up_proj")
    assert found.is_parameter("model.layers.0.mlp.gate.weight")
    assert not found.is_parameter("model.layers.0.myexperts.gate_up_proj")


@pytest.mark.parametrize("path", sorted(MADE.glob("*/*/adapter_config.json")), ids=lambda path: path.parent.name)
def test_what_peft_writes_is_read(path):
    assert read_adapter_config(path.parent).base == "base"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "is a IA3 adapter"),
        ({"peft_type": None}, "names no peft_type"),
        ({"init_lora_weights": "pissa"}, "initialised by pissa, which changed the base"),
        ({"init_lora_weights": "pissa_niter_16"}, "which changed the base"),
        ({"init_lora_weights": "olora"}, "which changed the base"),
        ({"init_lora_weights": "corda"}, "which changed the base"),
        ({"init_lora_weights": "loftq"}, "which changed the base"),
        ({"init_lora_weights": "lora_ga"}, "which changed the base"),
        ({"init_lora_weights": "brand new"}, "initialised by 'brand new', which this reader does not know"),
        ({"init_lora_weights": 3}, "initialised by 3"),
        ({"use_qalora": True}, "uses use_qalora"),
        ({"alora_invocation_tokens": [1]}, "uses alora_invocation_tokens"),
        ({"layer_replication": [[0, 4]]}, "uses layer_replication"),
        ({"some_new_switch": "on"}, "uses some_new_switch, which this reader does not know"),
        ({"lora_alpha": 0}, "lora_alpha is 0, so that the adapter would change nothing"),
        ({"lora_alpha": "16"}, "lora_alpha must be a number"),
        ({"lora_alpha": True}, "lora_alpha must be a number"),
        ({"alpha_pattern": {"q": None}}, "alpha_pattern of 'q' must be a number"),
        ({"alpha_pattern": ["q"]}, "alpha_pattern must map"),
        ({"alpha_pattern": {"(": 1}}, "no valid pattern"),
        ({"alpha_pattern": {"(a+)+b": 1}}, "too complex"),
        ({"alpha_pattern": {".*a.*b.*c.*d": 1}}, "too complex"),
        ({"alpha_pattern": {"a" * 501: 1}}, "too complex"),
        ({"use_dora": "yes"}, "use_dora must be true or false"),
        ({"target_parameters": "experts"}, "target_parameters must be a list"),
        ({"trainable_token_indices": [1, 1]}, "lists a row twice"),
        ({"trainable_token_indices": [-1]}, "must be a list of row numbers"),
        ({"trainable_token_indices": {"a": [True]}}, "must be a list of row numbers"),
        ({"trainable_token_indices": 3}, "must be a list of row numbers"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path must be text"),
    ],
)
def test_what_cannot_be_applied_is_refused(config, settings, message):
    with pytest.raises(CheckpointError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"init_lora_weights": "gaussian", "bias": "all", "lora_dropout": 0.1, "modules_to_save": ["lm_head"]},
        {"init_lora_weights": False, "some_new_switch": False, "another": None, "third": []},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2}, "runtime_config": {"x": 1}},
        {"base_model_name_or_path": "", "trainable_token_indices": None, "target_parameters": []},
    ],
)
def test_what_changes_no_weight_is_no_reason(config, settings):
    assert config(**settings).base is None


def test_a_hostile_pattern_ends_soon(config):
    """Three repeats are the most that is let through: cubic in a name of at most 250 characters, not exponential."""
    found = config(alpha_pattern={"a*a*a*b": 2})
    assert found.scale("a" * 250, 1) == 8


@pytest.mark.parametrize("text", ["[]", "{", '{"peft_type": "LORA", "peft_type": "LORA"}'])
def test_malformed_files_are_refused(tmp_path, text):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(CheckpointError):
        read_adapter_config(tmp_path)
