"""Causal language models in transformers: loading one to generate or to be scored."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmerge.errors import CheckpointError, RequestError, RunError
from rlmerge.extras import require
from rlmerge.sensitivity.data import Example
from rlmerge.sensitivity.tokens import encode_prompt

_SAFE = {"local_files_only": True, "trust_remote_code": False}
_MEMORY_HINT = "Use a smaller batch, fewer new tokens, or a device with more memory."


@dataclass(frozen=True, slots=True)
class Causal:
    """A model in evaluation mode on its device, with its tokenizer and the ids that end an output.

    Unless a type is asked for, weights are float32 on a CPU, few of which compute in less, and as stored elsewhere.
    """

    path: Path
    model: Any
    tokenizer: Any
    device: Any
    ends: tuple[int, ...]

    def encode(self, prompt: str, *, chat: bool) -> tuple[int, ...]:
        """Token ids that outputs follow; see ``encode_text``."""
        return encode_text(self.tokenizer, prompt, str(self.path), chat=chat)


def load_causal(path: Path, device: Any, dtype: str | None = None) -> Causal:
    """The causal LM in ``path`` on the torch ``device``; CheckpointError when transformers cannot load it."""
    transformers = require("transformers")
    options = {**_SAFE, "use_safetensors": True, "dtype": dtype or ("float32" if device.type == "cpu" else "auto")}
    with _quietly(transformers), failures(path):
        tokenizer = load_tokenizer(path)
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(path, **options)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise _unloadable(path, error) from error
        model.eval().requires_grad_(False).to(device)
    configured = model.generation_config.eos_token_id
    listed: list[Any] = configured if isinstance(configured, list) else [configured]
    ends = dict.fromkeys(token for token in (*listed, tokenizer.eos_token_id) if token is not None)
    return Causal(path, model, tokenizer, device, tuple(ends))


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in ``path``; CheckpointError when transformers cannot load it."""
    transformers = require("transformers")
    try:
        return transformers.AutoTokenizer.from_pretrained(path, **_SAFE)
    except Exception as error:  # tokenizer files are read by several libraries, each with its own errors
        raise _unloadable(path, error) from error


def encode_text(tokenizer: Any, prompt: str, where: str, *, chat: bool) -> tuple[int, ...]:
    """Token ids of ``prompt`` as it is, or as the user's turn in the chat template, opened for the assistant's."""
    turns = ({"role": "user", "content": prompt},) if chat else prompt
    ids = encode_prompt(tokenizer, Example(where, turns))
    if not ids:
        raise RequestError(f"the prompt {prompt!r} has no tokens", where=where, hint="Give prompts with some text.")
    return ids


def release_memory() -> None:
    """Give memory of models that are no longer referenced back to the GPU."""
    gc.collect()  # modules refer to one another in circles
    torch = require("torch")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def failures(path: Path) -> Generator[None]:
    """Memory errors and what models raise while they run, as RunError that names the model."""
    try:
        yield
    except MemoryError as error:
        raise RunError("not enough memory", where=str(path), hint=_MEMORY_HINT) from error
    except (RuntimeError, IndexError) as error:
        first = str(error).split("\n", 1)[0]
        out_of_memory = "out of memory" in first.lower() or "can't allocate" in first.lower()
        hint = _MEMORY_HINT if out_of_memory else "If the prompts are long: they may exceed the model's positions."
        raise RunError(f"the model failed: {first}", where=str(path), hint=hint) from error


@contextmanager
def _quietly(transformers: Any) -> Generator[None]:
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _unloadable(path: Path, error: Exception) -> CheckpointError:
    hint = "It needs config.json, safetensors and tokenizer files of a causal LM that transformers knows."
    return CheckpointError(f"transformers cannot load it: {error}", where=str(path), hint=hint)
