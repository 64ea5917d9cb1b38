"""Bases in quantised schemes, experts of them in bfloat16, and what a merge of them stores."""

import json

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from rlmerge.checkpoint import open_checkpoint
from support import quantised

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
STATIC = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}}},
}
PACKED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}},
}
MX = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.norm"]}


def norm(seed):
    return quantised.weights(seed, 33).bfloat16()


def blocks(seed=1):
    """Two layers of odd sizes, so that no unit ends where a tile does, and what is not quantised between them."""
    tensors = {"model.norm.weight": norm(seed), "model.embed_tokens.weight": quantised.weights(seed, 7, 33).bfloat16()}
    for layer, shape in enumerate([(300, 700), (129, 131)]):
        codes, scales = quantised.fp8(seed + layer, shape)
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        tensors |= {name: codes, f"{name}_scale_inv": scales}
    return tensors


def static():
    """One scale for the tensor and one for its activations, which the merge does not use."""
    codes, scale = quantised.fp8(5, (40, 50), (40, 50))
    name = "model.layers.0.mlp.up_proj"
    parts = {f"{name}.weight": codes, f"{name}.weight_scale": scale.reshape(1).bfloat16()}
    return parts | {f"{name}.input_scale": torch.tensor([0.5]), "model.norm.weight": norm(5)}


def packed():
    name = "model.layers.0.mlp.up_proj.weight"
    parts = quantised.int4(6, 10, 64, 32)[0]
    return {f"{name}_{end}": part for end, part in parts.items()} | {"model.norm.weight": norm(6)}


def experts():
    codes, scales, _ = quantised.mxfp4(7, 3, 20, 64)
    name = "model.layers.0.mlp.experts.down_proj"
    return {f"{name}_blocks": codes, f"{name}_scales": scales, "model.norm.weight": norm(7)}


MODELS = {"fp8": (blocks, FP8), "static fp8": (static, STATIC), "int4": (packed, PACKED), "mxfp4": (experts, MX)}


def write(folder, kind):
    make, config = MODELS[kind]
    return quantised.write(folder, make(), config, torch_dtype="bfloat16")


def write_expert(folder, base, seed, scale=1e-2, share=0.5):
    """A bfloat16 model: the base decoded, ``share`` of its numbers moved by ``scale`` of their block's size or so."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, source in open_checkpoint(base).tensors.items():
        values = source.read()
        if source.dtype.name == "bfloat16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        noise = rng.standard_normal(len(values)) * (rng.random(len(values)) < share) * scale * np.abs(values).max()
        moved = torch.from_numpy((values + noise).astype(np.float32)).reshape(source.shape)
        tensors[name] = moved if source.dtype.name == "float32" else moved.bfloat16()
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "bfloat16"}))
    return folder


def recipe(base, *models, method="task_arithmetic", **parameters):
    entries = [{"model": str(model)} for model in models]
    return {"merge_method": method, "base_model": str(base), "models": entries, "parameters": parameters}


def raw(folder):
    """Every stored tensor by name: type, shape and bytes."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, x in load_file(file).items():
            found[name] = str(x.dtype), tuple(x.shape), x.reshape(-1).view(torch.uint8).numpy().tobytes()
    return found


def kinds(folder):
    """Type and shape of every stored tensor by name."""
    return {name: (dtype, shape) for name, (dtype, shape, _) in raw(folder).items()}


def numbers(folder):
    """Every decoded tensor by name."""
    found = {}
    for name, source in open_checkpoint(folder).tensors.items():
        values = source.read()
        if source.dtype.name == "bfloat16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        found[name] = values.astype(np.float64)
    return found
