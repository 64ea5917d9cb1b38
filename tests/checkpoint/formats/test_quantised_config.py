"""What config.json says of quantised weights."""

from pathlib import Path

import pytest

from rlmerge.checkpoint.formats.quantised_config import Quantisation, foreign, plain_config, read_quantisation
from rlmerge.errors import CheckpointError

ROOT = Path("model")


def blocks(**entry):
    return Quantisation(entry.pop("method"), entry).blocks("w_scale")


def test_blocks_by_method():
    assert blocks(method="fp8", weight_block_size=[64, 32]) == ((64, 32),)
    assert blocks(method="fp8", weight_block_size=None) == ((0, 0),)
    assert blocks(method="fp8") == ((128, 128), (0, 0))
    assert blocks(method="mxfp8") == ((1, 32),)
    assert blocks(method="fbgemm_fp8") == ((1, 0), (0, 1))
    assert blocks(method="modelopt") == ((0, 0), (1, 0))


def test_blocks_of_compressed_tensors_are_those_of_all_groups():
    weights = [
        {"strategy": "channel"},
        {"strategy": "tensor"},
        {"strategy": "group", "group_size": 64, "num_bits": 4},
        {"strategy": "block", "block_structure": [16, 8]},
        {"strategy": "channel"},
        {"strategy": "odd"},
    ]
    groups = {str(i): {"weights": x} for i, x in enumerate(weights)} | {"none": {"weights": None}, "odd": 3}
    found = Quantisation("compressed-tensors", {"config_groups": groups})
    assert found.blocks("w_scale") == ((1, 0), (0, 0), (1, 64), (16, 8))
    assert found.bits == (4,)
    assert Quantisation("compressed-tensors", {}).bits == (4, 8)


def test_where_the_entry_lies():
    entry = {"quant_method": "FP8"}
    for config in ({"quantization_config": entry}, {"text_config": {"quantization_config": entry}}):
        found = read_quantisation(config, ROOT)
        assert found is not None and found.method == "fp8"
    assert read_quantisation({"compression_config": {"quant_method": "compressed-tensors"}}, ROOT)
    assert read_quantisation({"quantization_config": None}, ROOT) is None
    assert read_quantisation({}, ROOT) is None
    assert read_quantisation(None, ROOT) is None


def test_how_methods_are_spelt():
    for entry, method in (
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"_load_in_8bit": True}, "bitsandbytes"),
        ({"load_in_4bit": False}, None),
        ({"quant_method": "intel/auto-round"}, "auto-round"),
    ):
        found = read_quantisation({"quantization_config": entry}, ROOT)
        assert found is not None and found.method == method


def test_unknown_methods_and_entries():
    with pytest.raises(
        CheckpointError, match=r"model/config.json: quantization_config: unknown quantisation method 'gptk'"
    ):
        read_quantisation({"quantization_config": {"quant_method": "gptk"}}, ROOT)
    with pytest.raises(CheckpointError, match="must be an object"):
        read_quantisation({"quantization_config": "fp8"}, ROOT)


def test_the_config_of_plain_weights():
    config = {
        "a": 1,
        "torch_dtype": "float8_e4m3fn",
        "quantization_config": {},
        "text_config": {"compression_config": 1},
    }
    assert plain_config(config) == {"a": 1, "torch_dtype": "bfloat16", "text_config": {}}
    assert config["text_config"] == {"compression_config": 1}
    assert plain_config(None) is None


def test_a_converter_is_named():
    error = foreign("gguf", ROOT)
    assert str(error) == (
        "model: holds GGUF weights, which are not decoded here\n"
        "  Turn them into bfloat16 first with transformers (from_pretrained with gguf_file=…, then save_pretrained), "
        "or merge the models they were made from."
    )
