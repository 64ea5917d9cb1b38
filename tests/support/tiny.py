"""Small real models for the tests: transformers architectures with random weights, saved as Hub directories are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VOCABULARY = ("<pad>", "<s>", "</s>", *"0123456789+-=? abcdefghijklm")


def llama(*, tied: bool = False, dtype: str = "float32", layers: int = 2, bias: bool = False) -> Any:
    """A Llama of two layers, width 16 and the vocabulary above, with weights of seed 0."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        attention_bias=bias,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return seeded(LlamaForCausalLM, config, getattr(torch, dtype))


def seeded(kind: Any, config: Any, dtype: Any) -> Any:
    """A model of seed 0, with norms and biases away from the ones and zeros they start at."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model.to(dtype).eval()


def tokenizer(*, chat: bool = False) -> Any:
    """Characters as tokens; ``chat`` adds a template in the style of ChatML."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("</?s>|."), "isolated")
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    if chat:
        fast.chat_template = (
            "{% for m in messages %}{{ '<s>' + m['role'][0] + ' ' + m['content'] + '</s>  ' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<s>a ' }}{% endif %}"
        )
    return fast


def save(directory: Path, model: Any, *, chat: bool = False) -> Path:
    """The model and a tokenizer as a Hub directory."""
    model.save_pretrained(directory)
    tokenizer(chat=chat).save_pretrained(directory)
    return directory


def family(directory: Path) -> Path:
    """``base``, two experts ``plus`` and ``letters`` of it, ``plus.jsonl`` with responses and ``letters.txt``."""
    import torch

    save(directory / "base", llama())
    for seed, name in enumerate(("plus", "letters")):
        model = llama()
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        save(directory / name, model)
    rows = [{"prompt": f"{n % 10}+{n // 2}=", "response": str(n % 10 + n // 2)} for n in range(10)]
    (directory / "plus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "letters.txt").write_text("".join(f"{'abcdefghijklm'[n:]}\n" for n in range(10)))
    return directory
