"""Random dense models of two layers in transformers, with a character tokenizer, for mixtures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.tokenizers import write_tokenizer

WORDS = ["<unk>", "a", "b", "c", "d", "e"]


def make_dense(out: Path, kind: str = "llama", *, seed: int = 0, dtype: str = "float32", **settings: Any) -> Path:
    """Write a random model of type ``kind``; equal seeds and settings give equal weights."""
    import torch
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": 64,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[kind]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**(sizes | settings))
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms and biases as they begin would hide a tensor in the wrong place.
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.to(getattr(torch, dtype)).save_pretrained(out)
    return write_tokenizer(out, WORDS)


def logits(folder: Path) -> Any:
    """Float32 [6, vocabulary] of a few tokens, with the class that the configuration names."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32", local_files_only=True)
    with torch.inference_mode():
        return model(input_ids=torch.tensor([[1, 4, 2, 5, 3, 1]])).logits[0]
