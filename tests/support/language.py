"""A tiny language model with a character tokenizer and a chat template, made on the spot."""

from __future__ import annotations

from pathlib import Path

END = "|"
TEMPLATE = (
    "{% for m in messages %}{{ 'U' if m.role == 'user' else 'A' }}{{ m.content }}|{% endfor %}"
    "{% if add_generation_prompt %}A{% endif %}"
)


def make_language_model(out: Path, *, chat: bool = True) -> Path:
    """Write a random Llama over printable characters to ``out``."""
    import tokenizers
    import torch
    import transformers

    characters = ["~", *(chr(code) for code in range(32, 126)), "\n"]
    ids = {character: index for index, character in enumerate(characters)}
    words = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=ids, merges=[], unk_token="~"))
    words.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END, unk_token="~")
    if chat:
        tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(characters),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=ids["~"],
        eos_token_id=ids[END],
        pad_token_id=ids["~"],
    )
    transformers.LlamaForCausalLM(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
