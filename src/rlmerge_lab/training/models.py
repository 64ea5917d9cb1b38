"""The laboratory's models on disk: a small Llama, its character tokenizer, and exact accuracy while training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.evaluate.tasks import END, Item, score
from rlmerge.evaluate.tiny import TinyConfig, TinyLlama
from rlmerge.extras import require
from rlmerge_lab.training.profiles import Profile
from rlmerge_lab.training.tasks import FILLER, LETTERS

PAD = "~"
CHARACTERS = FILLER + END + PAD + "=+-,:0123456789()[]{}" + LETTERS + "RKSMB"
"""The vocabulary, in the order of token ids."""
ANSWER = 9
"""Tokens a model may take for its answer and the end: one more than the longest valid one."""
MANIFEST = "lab.json"
"""Says how a model was trained; written last, so that a directory that holds it is complete."""


def vocabulary() -> dict[str, int]:
    """Token id of each character."""
    return {character: index for index, character in enumerate(CHARACTERS)}


def new_model(profile: Profile, seed: int) -> Any:
    """An untrained model of the profile's size in float32."""
    transformers = require("transformers")
    require("torch").manual_seed(seed)
    ids = vocabulary()
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(CHARACTERS),
            hidden_size=profile.hidden,
            intermediate_size=profile.mlp,
            num_hidden_layers=profile.layers,
            num_attention_heads=profile.heads,
            num_key_value_heads=profile.heads,
            max_position_embeddings=64,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            bos_token_id=ids[FILLER],
            eos_token_id=ids[END],
            pad_token_id=ids[PAD],
        )
    )


def load_model(path: Path, dtype: str = "float32") -> Any:
    """A stored model with its weights in ``dtype``."""
    dtype_ = getattr(require("torch"), dtype)
    return require("transformers").LlamaForCausalLM.from_pretrained(path, dtype=dtype_)


def tokenizer() -> Any:
    """One token a character; prompts are padded on the left."""
    tokenizers = require("tokenizers")
    characters = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary(), merges=[], unk_token=FILLER))
    characters.decoder = tokenizers.decoders.Fuse()
    return require("transformers").PreTrainedTokenizerFast(
        tokenizer_object=characters, eos_token=END, pad_token=PAD, unk_token=FILLER, padding_side="left"
    )


def save_model(model: Any, words: Any, out: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``model`` in bfloat16 with its tokenizer ``words`` to ``out``, which appears complete or not at all."""
    with partial_directory(out, manifest) as partial:
        model.to(require("torch").bfloat16).save_pretrained(partial)
        words.save_pretrained(partial)


@contextmanager
def partial_directory(out: Path, manifest: Mapping[str, Any]) -> Generator[Path]:
    """A directory to fill, which becomes ``out`` with its ``manifest`` once the block ends well."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)


def accuracy(model: Any, items: Sequence[Item]) -> float:
    """Mean probability of a valid answer, exact, of the model as it would be stored: in bfloat16."""
    bfloat16 = require("torch").bfloat16
    config = TinyConfig.parse(model.config.to_dict(), "the model in training")
    weights = {name: value.detach().to(bfloat16).float().cpu().numpy() for name, value in model.named_parameters()}
    return float(np.mean(score(TinyLlama(config, weights), items, vocabulary()).probability))


def items_of(questions: Sequence[Any]) -> list[Item]:
    """The questions as the scorer reads them."""
    return [Item(question.task, question.prompt, question.answers) for question in questions]
