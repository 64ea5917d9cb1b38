"""The configuration and files of a written adapter."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from rlmerge.checkpoint import verify
from rlmerge.checkpoint.formats.adapter_config import read_adapter_config
from rlmerge.checkpoint.formats.adapter_output import NewAdapter, NewTensor, write_adapter
from rlmerge.errors import RequestError
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32

BASE = [f"model.layers.{layer}.{name}" for layer in range(12) for name in ("q", "k")] + ["lm_head"]


def new(name, *pieces, dtype=FLOAT32, **settings):
    arrays = [np.array(piece, np.float64) for piece in pieces]
    return NewTensor(name, (sum(map(len, arrays)),), dtype, lambda: iter(arrays), **settings)


def test_tensors_are_written_in_pieces_and_rounded(tmp_path):
    adapter = NewAdapter("org/base", tensors=[new("a", [1.0, 2.0], [3.0]), new("b", [1.00390625], dtype=BFLOAT16)])
    assert write_adapter(tmp_path / "out", adapter, BASE, "digest") == {"a": {}, "b": {}}
    raw = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert np.frombuffer(raw[-14:-2], "<f4").tolist() == [1, 2, 3]
    assert raw[-2:] == b"\x80\x3f", "1 + 2⁻⁸ is a tie, and 1 is the even one"
    assert verify(tmp_path / "out").ok
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "MANIFEST.json",
    }


def test_names_have_pefts_prefix(tmp_path):
    write_adapter(tmp_path / "out", NewAdapter(None, tensors=[new("q.lora_A.weight", [1.0])]), BASE, "digest")
    assert list(load_file(tmp_path / "out" / "adapter_model.safetensors")) == ["base_model.model.q.lora_A.weight"]


def test_the_most_frequent_rank_is_the_rule_and_others_are_patterns(tmp_path):
    ranks = {"model.layers.1.q": 4, "model.layers.2.q": 4, "model.layers.11.q": 8, "model.layers.1.k": 8, "lm_head": 8}
    adapter = NewAdapter("org/base", "CAUSAL_LM", ranks=ranks, tensors=[new("x", [1.0])])
    write_adapter(tmp_path / "out", adapter, BASE, "digest")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 8)
    assert config["rank_pattern"] == {r"model\.layers\.1\.q": 4, r"model\.layers\.2\.q": 4}
    read = read_adapter_config(tmp_path / "out")
    assert {name: read.scale(name, rank) for name, rank in ranks.items()} == dict.fromkeys(ranks, 1.0)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([name for name in BASE if name.endswith(".q")], ["q"]),
        (["model.layers.1.q"], ["layers.1.q"]),
        (["lm_head"], ["lm_head"]),
        (["head_of_a_tied_model"], ["head_of_a_tied_model"]),
    ],
)
def test_modules_are_named_as_shortly_as_is_safe(targets, expected):
    config = NewAdapter(None, ranks=dict.fromkeys(targets, 2)).config(BASE)
    assert config["target_modules"] == expected


def test_a_wrapper_is_kept_where_another_module_ends_alike():
    base = ["model.layers.0.q", "vision.layers.0.q", "vision.layers.1.q"]
    assert NewAdapter(None, ranks={"model.layers.0.q": 2}).config(base)["target_modules"] == ["model.layers.0.q"]


def test_whole_modules_rows_and_parameters_are_listed():
    adapter = NewAdapter(
        "base",
        ranks={"model.layers.0.mlp.experts.down_proj": 3, "model.layers.0.q": 3},
        parameters=["model.layers.0.mlp.experts.down_proj"],
        whole=["model.norm"],
        tokens={"model.embed_tokens": (1, 5)},
        has_bias=True,
        fan_in_fan_out=True,
    )
    config = adapter.config(["model.layers.0.q", "model.layers.1.q"])
    assert config["target_modules"] == ["layers.0.q"]
    assert config["target_parameters"] == ["model.layers.0.mlp.experts.down_proj"]
    assert (config["modules_to_save"], config["trainable_token_indices"]) == (
        ["model.norm"],
        {"model.embed_tokens": [1, 5]},
    )
    assert (config["bias"], config["fan_in_fan_out"], config["task_type"]) == ("all", True, "CAUSAL_LM")


def test_stats_are_returned_and_survive_an_interruption(tmp_path):
    def stop():
        raise KeyboardInterrupt

    first = new("a", [1.0], stats=lambda: {"lost": 0.5})
    broken = NewAdapter(None, tensors=[first, NewTensor("b", (1,), FLOAT32, stop)])
    with pytest.raises(KeyboardInterrupt):
        write_adapter(tmp_path / "out", broken, BASE, "digest")
    whole = NewAdapter(None, tensors=[new("a", [1.0], stats=stop), new("b", [2.0], stats=lambda: {"lost": 0.25})])
    found = write_adapter(tmp_path / "out", whole, BASE, "digest", resume=True)
    assert found == {"a": {"lost": 0.5}, "b": {"lost": 0.25}}


def test_an_existing_directory_is_kept_without_force(tmp_path):
    adapter = NewAdapter(None, tensors=[new("a", [1.0])])
    write_adapter(tmp_path / "out", adapter, BASE, "digest")
    with pytest.raises(RequestError, match="exists"):
        write_adapter(tmp_path / "out", adapter, BASE, "digest")
    write_adapter(tmp_path / "out", adapter, BASE, "digest", force=True)
