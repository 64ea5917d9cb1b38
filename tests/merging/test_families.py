"""Models of many architectures: saved by transformers, trained a little, merged, and loaded again without a loss.

A tiny configuration of each of the causal, vision-language and mixture-of-experts families in wide use.
"""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import rlmerge  # noqa: E402
from rlmerge.language.load_check import check_load  # noqa: E402

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64, "head_dim": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 96, "n_inner": 48,
       "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
MOE = TEXT | {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
              "moe_intermediate_size": 16}  # fmt: skip
HEADLESS = {key: value for key, value in TEXT.items() if key != "head_dim"}
DEEPSEEK = {key: value for key, value in MOE.items() if key != "head_dim"} | {
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_shared_experts": 1, "num_key_value_heads": 4,
}  # fmt: skip
PLAIN = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo", "olmo2", "olmo3",
    "cohere", "cohere2", "granite", "stablelm", "starcoder2", "smollm3", "glm", "glm4", "exaone4", "ernie4_5",
    "seed_oss", "hunyuan_v1_dense", "nemotron", "gpt_neox",
)  # fmt: skip
FAMILIES = {
    **dict.fromkeys(PLAIN, TEXT),
    "opt": TEXT | {"word_embed_proj_dim": 32, "ffn_dim": 48},
    "gpt2": GPT,
    "gptj": GPT | {"rotary_dim": 8},
    "falcon": HEADLESS,
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 96, "max_seq_len": 64},
    **dict.fromkeys(("mixtral", "qwen3_moe", "olmoe", "granitemoe", "phimoe", "gpt_oss"), MOE),
    "qwen2_moe": MOE | {"shared_expert_intermediate_size": 16},
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe", "dots1"), DEEPSEEK),
}
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28,
    "patch_size": 14, "depth": 2, "embed_dim": 32, "num_heads": 4, "out_hidden_size": 32,
}  # fmt: skip
TWO_TOWERS = {
    "gemma3": ("gemma3_text", "siglip_vision_model", {"mm_tokens_per_image": 4}),
    "llava": ("llama", "clip_vision_model", {}),
    "mistral3": ("mistral", "pixtral", {}),
    "qwen2_vl": ("qwen2_vl_text", None, {}),
    "qwen2_5_vl": ("qwen2_5_vl_text", None, {}),
    "qwen3_vl": ("qwen3_vl_text", None, {}),
}
"""Vision-language families: the types of their text and vision parts, and further settings."""


def build(kind):
    """A tiny model of a family; skipped where this transformers does not know it."""
    try:
        config = transformers.AutoConfig.for_model(kind, **FAMILIES[kind])
    except (ValueError, KeyError):
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).eval()


def save(model, folder, seed):
    """The model, trained a little: every weight that is no norm moves by about 5 %."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(
                torch.randn_like(weight, dtype=torch.float32)
                .mul_(0.05 * float(weight.float().std().nan_to_num()) if weight.numel() > 1 else 0)
                .to(weight.dtype)
            )
    model.save_pretrained(folder)
    return folder


def logits(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    with torch.no_grad():
        return model(torch.arange(3, 15)[None]).logits.float()


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_merge_loads_whole_and_one_expert_at_weight_1_is_that_expert(tmp_path, kind):
    model = build(kind)
    base = tmp_path / "base"
    model.save_pretrained(base)
    experts = [save(build(kind), tmp_path / f"e{k}", k + 1) for k in range(2)]
    recipe = {"merge_method": "task_arithmetic", "base_model": str(base), "models": [{"model": str(experts[0])}]}
    out = rlmerge.merge(recipe, tmp_path / "one", cache=False).out
    found = check_load(out)
    assert found.ok, found
    assert torch.equal(logits(out), logits(experts[0]))
    recipe["models"].append({"model": str(experts[1])})
    both = rlmerge.merge(
        recipe | {"merge_method": "ties", "parameters": {"density": 0.5}}, tmp_path / "two", cache=False
    )
    assert check_load(both.out).ok
    assert np.isfinite(logits(both.out).numpy()).all()
    assert json.loads((out / "config.json").read_text())["model_type"] == kind


@pytest.mark.parametrize("kind", TWO_TOWERS)
def test_a_vision_language_model_merges_whole(tmp_path, kind):
    text, vision, more = TWO_TOWERS[kind]
    rope = {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"}}
    parts = {
        "text_config": TEXT | ({"model_type": text} if text else {}) | (rope if "qwen" in kind else {}),
        "vision_config": VISION | ({"model_type": vision} if vision else {}),
    }

    def made(seed):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(kind, **parts, **more)
        model = transformers.AutoModelForImageTextToText.from_config(config).to(torch.bfloat16)
        return save(model, tmp_path / f"m{seed}", seed)

    base, expert = made(0), made(1)
    recipe = {"merge_method": "task_arithmetic", "base_model": str(base), "models": [{"model": str(expert)}]}
    out = rlmerge.merge(recipe, tmp_path / "out", cache=False).out
    found = check_load(out)
    assert found.ok, found
    read = transformers.AutoModelForImageTextToText.from_pretrained
    mine, theirs = read(out, dtype="auto").state_dict(), read(expert, dtype="auto").state_dict()
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []
