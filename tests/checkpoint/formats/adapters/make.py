"""Tiny models and PEFT adapters of them, with the logits that the live adapters give.

``python make.py`` writes them beside this file; made with torch 2.13, transformers 5.24, peft 0.21.2 and safetensors
0.8 on a CPU. The factors are random and large: what an adapter does is far above the noise of float32.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MixtralConfig,
    OlmoeConfig,
    Qwen2Config,
)

HERE = Path(__file__).parent
TOKENS = torch.arange(12).reshape(2, 6)

SIZES = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
}
MOE = SIZES | {"num_experts_per_tok": 2}
BASES = {
    "llama": LlamaConfig(intermediate_size=24, tie_word_embeddings=True, **SIZES),
    "qwen2": Qwen2Config(intermediate_size=24, tie_word_embeddings=False, **SIZES),
    "gpt2": GPT2Config(vocab_size=20, n_positions=8, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3),
    "mixtral": MixtralConfig(intermediate_size=24, num_local_experts=3, **MOE),
    "olmoe": OlmoeConfig(intermediate_size=8, num_experts=3, **MOE),
    "gpt-oss": GptOssConfig(intermediate_size=16, head_dim=8, num_local_experts=3, **MOE),
}

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QV = ["q_proj", "v_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
ADAPTERS = {
    "llama": {
        "plain": {"target_modules": ALL},
        "rslora": {"target_modules": ALL, "r": 3, "use_rslora": True},
        "dora": {"target_modules": ALL, "use_dora": True},
        "patterns": {
            "target_modules": ALL,
            "rank_pattern": {"down_proj": 4, r"layers\.0\.self_attn\.q_proj": 1},
            "alpha_pattern": {"down_proj": 6, "v_proj": 9},
        },
        "embed": {"target_modules": ["embed_tokens", "q_proj"]},
        "head": {"target_modules": ["lm_head", "q_proj"]},
        "embed-head-tied": {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
        "embed-head-dora": {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
        "save-embed": {"target_modules": QV, "modules_to_save": ["embed_tokens"]},
        "save-both": {"target_modules": QV, "modules_to_save": ["embed_tokens", "lm_head"]},
        "save-norms": {"target_modules": QV, "modules_to_save": ["input_layernorm", "model.norm"]},
        "rows": {"target_modules": QV, "trainable_token_indices": [7, 1, 3]},
        "rows-head": {"target_modules": QV, "trainable_token_indices": {"lm_head": [1, 3]}},
        "rows-apart": {"target_modules": QV, "trainable_token_indices": {"embed_tokens": [1, 3], "lm_head": [2]}},
        "rows-and-head": {"target_modules": ["lm_head"], "trainable_token_indices": [1, 3]},
    },
    "qwen2": {
        "bias-all": {"target_modules": QV, "bias": "all"},
        "lora-bias": {"target_modules": QV, "lora_bias": True, "bias": "lora_only"},
    },
    "gpt2": {
        "conv1d-dora": {"target_modules": ["c_attn", "c_proj", "wte"], "use_dora": True},
        "conv1d-bias": {"target_modules": ["c_attn"], "bias": "all", "fan_in_fan_out": True},
    },
    "mixtral": {
        "fused": {"target_modules": ["q_proj"], "target_parameters": EXPERTS, "use_rslora": True},
        "modules": {"target_modules": ["q_proj", "w1", "w2", "w3", "gate"]},
    },
    "olmoe": {
        "square": {
            "target_modules": [],
            "target_parameters": EXPERTS,
            "rank_pattern": {"experts.down_proj": 3},
            "alpha_pattern": {".*gate_up_proj": 5},
        },
    },
    "gpt-oss": {
        "transposed": {"target_modules": [], "target_parameters": EXPERTS},
        "square-only": {"target_modules": [], "target_parameters": EXPERTS[1:]},
    },
}


def make_base(name: str) -> Path:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(BASES[name], dtype=torch.bfloat16)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith("bias"):
                value.normal_(0, 0.3)
    model.save_pretrained(folder / "base")
    (folder / "base" / "generation_config.json").unlink(missing_ok=True)
    return folder


def make_adapter(folder: Path, name: str, settings: dict) -> torch.Tensor:
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    config = LoraConfig(task_type="CAUSAL_LM", **{"r": 2, "lora_alpha": 4} | settings)
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.requires_grad:
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(0.3 * noise if "lora_" in key and "magnitude" not in key else value + 0.1 * noise)
    for one in model.peft_config.values():
        one.base_model_name_or_path = "base"
    model.save_pretrained(folder / name)
    (folder / name / "README.md").unlink()
    again = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    with torch.no_grad():
        return PeftModel.from_pretrained(again, folder / name).eval()(input_ids=TOKENS).logits


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    logits = {}
    for base, adapters in ADAPTERS.items():
        folder = make_base(base)
        for name, settings in adapters.items():
            logits[f"{base}/{name}"] = make_adapter(folder, name, settings)
    save_file(logits, HERE / "logits.safetensors")


if __name__ == "__main__":
    main()
