"""Quantised weights as they are found in model directories: what they decode to, and what is refused."""

import numpy as np
import pytest
import torch

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError
from support import quantised

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
NORM = {"norm.weight": torch.ones(8).bfloat16()}


def read(folder, name="l.weight"):
    """A tensor of the model, with its shape."""
    source = open_checkpoint(folder).tensors[name]
    return source.read().reshape(source.shape)


def compressed(format, **weights):
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": format, "config_groups": groups}


def assert_float32_of(found, meant):
    """``found`` is ``meant`` (float64) rounded once: a product of a code and a scale has one rounding."""
    np.testing.assert_array_equal(found, meant.astype(np.float32))


def test_one_block_by_hand(tmp_path):
    """E4M3 codes 0x38, 0xC0, 0x7E, 0x01 are 1, -2, 448 and 2^-9."""
    codes = torch.tensor([[0x38, 0xC0], [0x7E, 0x01]], dtype=torch.uint8).view(torch.float8_e4m3fn)
    folder = quantised.write(
        tmp_path / "m", {"l.weight": codes, "l.weight_scale_inv": torch.tensor([[0.5]]), **NORM}, FP8
    )
    model = open_checkpoint(folder)
    assert read(folder).tolist() == [[0.5, -1], [224, 2**-10]]
    assert model.format == "FP8 weights"
    assert set(model.tensors) == {"l.weight", "norm.weight"}
    assert (model.tensors["l.weight"].dtype.name, model.tensors["l.weight"].nominal.name) == ("float32", "bfloat16")
    assert model.config == {"model_type": "llama"}
    assert model.warnings == ()


@pytest.mark.parametrize("shape", [(128, 128), (130, 257), (7, 300), (256, 1)])
@pytest.mark.parametrize("config", [FP8, None])
def test_fp8_blocks(tmp_path, shape, config):
    codes, scales = quantised.fp8(1, shape)
    folder = quantised.write(tmp_path / "m", {"l.weight": codes, "l.weight_scale_inv": scales}, config)
    meant = codes.double().numpy() * quantised.spread(scales.numpy(), (128, 128), shape)
    assert_float32_of(read(folder), meant)


@pytest.mark.parametrize("scale", [torch.tensor(0.25), torch.tensor([0.25]), torch.tensor([[0.25]])])
@pytest.mark.parametrize("ending", ["weight_scale", "weight_scale_inv"])
@pytest.mark.parametrize(
    "config", [{"quant_method": "fp8", "weight_block_size": None}, None, {"quant_method": "modelopt"}]
)
def test_fp8_with_one_scale(tmp_path, scale, ending, config):
    codes, _ = quantised.fp8(2, (200, 150))
    folder = quantised.write(tmp_path / "m", {"l.weight": codes, f"l.{ending}": scale}, config)
    assert_float32_of(read(folder), codes.double().numpy() / 4)


@pytest.mark.parametrize(
    ("config", "block"),
    [
        ({"quant_method": "fbgemm_fp8"}, (1, 70)),
        (compressed("float-quantized", num_bits=8, type="float", strategy="channel"), (1, 70)),
        (compressed("float-quantized", num_bits=8, type="float", strategy="block", block_structure=[16, 32]), (16, 32)),
        (compressed("float-quantized", num_bits=8, type="float", strategy="group", group_size=35), (1, 35)),
    ],
)
@pytest.mark.parametrize("scale_type", [torch.float32, torch.bfloat16])
def test_fp8_of_other_schemes(tmp_path, config, block, scale_type):
    codes, scales = quantised.fp8(3, (50, 70), block)
    scales = scales.to(scale_type)
    folder = quantised.write(tmp_path / "m", {"l.weight": codes, "l.weight_scale": scales}, config)
    assert_float32_of(read(folder), codes.double().numpy() * quantised.spread(scales.double().numpy(), block, (50, 70)))


@pytest.mark.parametrize("exponents", [torch.uint8, torch.float8_e8m0fnu])
def test_fp8_with_exponents_for_scales(tmp_path, exponents):
    codes, _ = quantised.fp8(4, (6, 64))
    scales = torch.arange(120, 132, dtype=torch.uint8).reshape(6, 2)
    config = {"quant_method": "mxfp8"} if exponents is torch.uint8 else None
    folder = quantised.write(tmp_path / "m", {"l.weight": codes, "l.weight_scale_inv": scales.view(exponents)}, config)
    meant = codes.double().numpy() * quantised.spread(2.0 ** (scales.numpy().astype(int) - 127), (1, 32), (6, 64))
    assert_float32_of(read(folder), meant)


def test_a_stack_of_experts(tmp_path):
    pairs = [quantised.fp8(seed, (130, 200)) for seed in range(3)]
    codes, scales = torch.stack([c.view(torch.uint8) for c, _ in pairs]), torch.stack([s for _, s in pairs])
    tensors = {"e.gate_up_proj": codes.view(torch.float8_e4m3fn), "e.gate_up_proj_scale_inv": scales}
    meant = [c.double().numpy() * quantised.spread(s.numpy(), (128, 128), (130, 200)) for c, s in pairs]
    assert_float32_of(read(quantised.write(tmp_path / "m", tensors, FP8), "e.gate_up_proj"), np.stack(meant))


@pytest.mark.parametrize("zero", [None, -5])
def test_int8(tmp_path, zero):
    codes = torch.arange(-128, 128, dtype=torch.int16).reshape(4, 64).to(torch.int8)
    scales = torch.tensor([[0.5], [1.0], [3.0], [0.1]])
    tensors = {"l.weight": codes, "l.weight_scale": scales}
    if zero is not None:
        tensors["l.weight_zero_point"] = torch.full((4, 1), zero, dtype=torch.int8)
    folder = quantised.write(tmp_path / "m", tensors, compressed("int-quantized", num_bits=8, strategy="channel"))
    assert_float32_of(read(folder), (codes.double().numpy() - (zero or 0)) * scales.double().numpy())
    assert set(open_checkpoint(folder).tensors) == {"l.weight"}


@pytest.mark.parametrize("columns", [64, 36])
def test_packed_int4(tmp_path, columns):
    parts, meant = quantised.int4(5, 6, columns, columns // 2)
    tensors = {f"l.weight_{end}": part for end, part in parts.items()}
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": columns // 2}
    folder = quantised.write(tmp_path / "m", {**tensors, **NORM}, compressed("pack-quantized", **weights))
    assert_float32_of(read(folder), meant)
    assert set(open_checkpoint(folder).tensors) == {"l.weight", "norm.weight"}


def test_packed_int4_with_zero_points_and_an_order_of_columns(tmp_path):
    """Zero points are packed down the columns of the grid, eight rows to a word; the order names a group a column."""
    parts, _ = quantised.int4(6, 10, 64, 32)
    rng = np.random.default_rng(7)
    zeros, order = rng.integers(-8, 8, (10, 2)), rng.integers(0, 2, 64)
    raised = np.zeros((16, 2), np.int64)
    raised[:10] = zeros + 8
    words = np.asarray(sum(raised[i::8] << (4 * i) for i in range(8))).astype(np.uint32).view(np.int32)
    tensors = {f"l.weight_{end}": part for end, part in parts.items()}
    tensors |= {
        "l.weight_zero_point": torch.from_numpy(words),
        "l.weight_g_idx": torch.from_numpy(order.astype(np.int32)),
    }
    codes = parts["packed"].numpy().view(np.uint32)
    numbers = np.stack([codes[:, j // 8] >> np.uint32(4 * (j % 8)) & 15 for j in range(64)], 1).astype(int) - 8
    meant = (numbers - zeros[:, order]) * parts["scale"].double().numpy()[:, order]
    assert_float32_of(read(quantised.write(tmp_path / "m", tensors)), meant)


def test_mxfp4_experts_have_inputs_first(tmp_path):
    """gpt-oss stores [experts, outputs, inputs]; unpacked, its parameter is [experts, inputs, outputs]."""
    blocks, scales, meant = quantised.mxfp4(8, 3, 10, 64)
    tensors = {"e.down_proj_blocks": blocks, "e.down_proj_scales": scales, "e.down_proj_bias": torch.ones(3, 64)}
    folder = quantised.write(tmp_path / "m", tensors, {"quant_method": "mxfp4"})
    assert_float32_of(read(folder, "e.down_proj"), meant.transpose(0, 2, 1))
    assert set(open_checkpoint(folder).tensors) == {"e.down_proj", "e.down_proj_bias"}


def test_mxfp4_of_a_linear_layer(tmp_path):
    blocks, scales, meant = quantised.mxfp4(9, 7, 96)
    assert_float32_of(read(quantised.write(tmp_path / "m", {"l_blocks": blocks, "l_scales": scales})), meant)


def test_mxfp4_of_compressed_tensors(tmp_path):
    blocks, scales, meant = quantised.mxfp4(10, 7, 96)
    tensors = {"l.weight_packed": blocks.reshape(7, 48), "l.weight_scale": scales}
    assert_float32_of(read(quantised.write(tmp_path / "m", tensors)), meant)


def test_several_schemes_in_one_model(tmp_path):
    codes, scales = quantised.fp8(11, (40, 64))
    parts, _ = quantised.int4(12, 8, 64, 32)
    tensors = {"a.weight": codes, "a.weight_scale": scales[:1, :1]} | {f"b.weight_{end}": x for end, x in parts.items()}
    model = open_checkpoint(quantised.write(tmp_path / "m", tensors))
    assert model.format == "FP8 and int4 weights"
    assert {name: x.shape for name, x in model.tensors.items()} == {"a.weight": (40, 64), "b.weight": (8, 64)}


def test_scales_of_activations_are_left_out_with_a_warning(tmp_path):
    codes, scales = quantised.fp8(13, (40, 64))
    beside = {"a.q.input_scale": torch.tensor(1.0), "a.k_scale": torch.tensor(2.0), "logit_scale": torch.tensor(3.0)}
    tensors = {"a.q.weight": codes, "a.q.weight_scale_inv": scales, **beside}
    model = open_checkpoint(quantised.write(tmp_path / "m", tensors, FP8))
    assert set(model.tensors) == {"a.q.weight", "logit_scale"}
    assert len(model.warnings) == 1
    assert "2 scales of activations, such as 'a.k_scale'" in model.warnings[0]


@pytest.mark.parametrize("method", ["fp8", "gptq", "bitsandbytes", None])
def test_the_config_of_plain_weights_is_left_out_with_a_warning(tmp_path, method):
    model = open_checkpoint(quantised.write(tmp_path / "m", NORM, {"quant_method": method, "bits": 4}, vocab_size=3))
    assert model.config == {"model_type": "llama", "vocab_size": 3}
    assert model.format == "safetensors"
    assert len(model.warnings) == 1
    assert "has a quantization_config" in model.warnings[0]
    assert "the weights are plain; it is left out" in model.warnings[0]


def test_the_config_of_a_language_model_in_a_larger_one(tmp_path):
    codes, scales = quantised.fp8(14, (4, 4))
    tensors = {"l.weight": codes, "l.weight_scale_inv": scales}
    text = {"dtype": "float8_e4m3fn", "quantization_config": FP8, "vocab_size": 3}
    model = open_checkpoint(quantised.write(tmp_path / "m", tensors, None, text_config=text))
    assert model.config == {"model_type": "llama", "text_config": {"dtype": "bfloat16", "vocab_size": 3}}


def test_a_plain_model_is_untouched(tmp_path):
    folder = quantised.write(tmp_path / "m", {**NORM, "position_ids": torch.arange(8)})
    model = open_checkpoint(folder)
    assert (model.format, set(model.tensors)) == ("safetensors", {"norm.weight", "position_ids"})


def u8(*shape):
    return torch.zeros(*shape, dtype=torch.uint8)


def i32(*shape):
    return torch.zeros(*shape, dtype=torch.int32)


FOREIGN = {
    "GPTQ or AWQ weights": (
        {"q.qweight": i32(8, 64), "q.qzeros": i32(1, 8), "q.scales": torch.ones(1, 64)},
        None,
        "GPTQModel",
    ),
    "GPTQ weights": ({"q.qweight": i32(8, 64)}, {"quant_method": "gptq"}, "GPTQModel"),
    "AWQ weights": ({"q.qweight": i32(8, 64)}, {"quant_method": "awq"}, "convert_checkpoint of compressed-tensors"),
    "4-bit bitsandbytes weights": ({"q.weight": u8(64, 1), "q.weight.absmax": u8(4)}, None, "model.dequantize()"),
    "bitsandbytes weights": ({"q.weight": u8(64, 1)}, {"load_in_4bit": True}, "model.dequantize()"),
    "8-bit bitsandbytes weights": (
        {"q.weight": u8(8, 8).to(torch.int8), "q.SCB": torch.ones(8)},
        None,
        "model.dequantize()",
    ),
    "NVFP4 weights": ({"q.weight": u8(8, 8), "q.weight_scale_2": torch.ones(1)}, None, "convert_checkpoint"),
    "NVFP4 weights ": (
        {"q.weight_packed": u8(8, 8), "q.weight_global_scale": torch.ones(1)},
        None,
        "convert_checkpoint",
    ),
    "hqq weights": ({"q.W_q": u8(8, 8)}, {"quant_method": "hqq"}, "HQQ"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_refused_with_their_converter(tmp_path, kind):
    tensors, config, converter = FOREIGN[kind]
    with pytest.raises(CheckpointError, match=f"holds {kind.strip()}.*not decoded here") as error:
        open_checkpoint(quantised.write(tmp_path / "m", {**tensors, **NORM}, config))
    assert converter in str(error.value.hint)


def scaled(codes=(200, 300), scale=(2, 3), **more):
    tensors = {"l.weight": torch.zeros(*codes).to(torch.float8_e4m3fn), **more}
    return tensors if scale is None else {**tensors, "l.weight_scale_inv": torch.ones(*scale)}


def packed(**changed):
    parts, _ = quantised.int4(0, 8, 64, 32)
    return {f"l.weight_{end}": part for end, part in (parts | changed).items() if part is not None}


BLOCKS = {"l_blocks": u8(4, 2, 16), "l_scales": u8(4, 2)}
BROKEN = [
    (scaled(scale=None), FP8, "has no scales: l.weight_scale_inv is missing"),
    (scaled(scale=None), None, "has no scales: l.weight_scale_inv is missing"),
    (scaled(scale=(1, 1)), FP8, r"is float32 \[1, 1\], but scales of \[200, 300\] here have the shape \[2, 3\]"),
    (scaled(scale=(3, 2)), FP8, "but scales of"),
    (scaled(scale=(2, 3)), {"quant_method": "fp8", "weight_block_size": None}, r"have the shape \[1, 1\]"),
    ({"l.weight": u8(4, 4).to(torch.int8)}, None, "has no scales: l.weight_scale is missing"),
    ({"l.weight": u8(4, 4).to(torch.int8), "l.weight_scale": torch.ones(3)}, None, "but scales of"),
    ({"l.weight": u8(4, 4).to(torch.int8), "l.weight_scale": i32(4, 1)}, None, "cannot be scales"),
    ({"l.weight": u8(4, 4).to(torch.int8), "l.scale": torch.ones(4)}, FP8, "int8 codes, which 'fp8' does not explain"),
    ({"l_blocks": u8(4, 2, 16)}, None, "has no scales: l_scales is missing"),
    ({**BLOCKS, "l_scales": u8(4, 1)}, None, r"scales here are uint8 \[4, 2\]"),
    ({**BLOCKS, "l_blocks": u8(4, 2, 8)}, None, "MXFP4 blocks are uint8"),
    ({**BLOCKS, "l.weight": torch.ones(4, 64)}, None, "is there beside 'l.weight'"),
    (packed(scale=None), None, "has no scales: l.weight_scale is missing"),
    (packed(shape=None), None, "needs l.weight_shape, two integers"),
    (packed(shape=torch.tensor([8, -1])), None, r"states the shape \[8, -1\]"),
    (packed(shape=torch.tensor([8, 80])), None, r"cannot hold 4 or 8 bits for each of \[8, 80\]"),
    (packed(scale=torch.ones(8, 3)), None, "rows of equal groups"),
    (packed(), compressed("pack-quantized", num_bits=4, strategy="group", group_size=64), "gives groups of 32"),
    (packed(g_idx=i32(63)), None, r"int32 \[64\]"),
    (packed(g_idx=i32(64) + 2), None, "names a group outside 0 … 1"),
    (packed(zero_point=i32(8, 2)), None, r"zero points here are int32 \[1, 2\]"),
    ({"l.weight": torch.ones(4, 4), "l.weight_scale": torch.ones(4, 1)}, FP8, "'l.weight' is plain float32"),
    ({"l.weight_scale_inv": torch.ones(4, 1)}, FP8, "without the weight that it belongs to"),
    ({"l.W": u8(4, 4)}, FP8, "integer codes that its quantization_config"),
    (NORM, {"quant_method": "fp9"}, "unknown quantisation method 'fp9'\n  Did you mean 'fp8'?"),
    (scaled(), {"quant_method": "nonsense"}, "unknown quantisation method 'nonsense'"),
    (NORM, [1], "must be an object"),
    (packed(), {**compressed("pack-quantized"), "transform_config": {"a": 1}}, "the weights were rotated"),
]


@pytest.mark.parametrize(("tensors", "config", "message"), BROKEN)
def test_what_cannot_be_decoded_is_one_error(tmp_path, tensors, config, message):
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(quantised.write(tmp_path / "m", tensors, config))
    assert str(tmp_path) in str(error.value.where)
    assert error.value.hint
