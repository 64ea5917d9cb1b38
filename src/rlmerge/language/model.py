"""Causal language models in transformers: loading one, and pairing its parameters with a checkpoint's tensors."""

from __future__ import annotations

import gc
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.paths import file_size
from rlmerge.errors import CheckpointError, RequestError, RunError
from rlmerge.extras import require
from rlmerge.frozen import frozen

if TYPE_CHECKING:
    from torch.nn import Parameter

    from rlmerge.checkpoint.model import Checkpoint

_SAFE = {"local_files_only": True, "trust_remote_code": False}
_READ = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Endings of the files beside the weights that transformers may read."""

_MAX_FILE = 2**30
_MEMORY_HINT = "Use a smaller batch, fewer new tokens, a smaller dtype, or a device with more memory."
_BUFFERS = re.compile(r"(inv_freq|masked_bias|attn\.bias|position_ids)$")
"""Constants that old checkpoints store and no model reads."""


@frozen(slots=True)
class Causal:
    """A model in evaluation mode on its device, parameters frozen; its tokenizer, and all ids that end an output."""

    path: Path
    model: Any
    tokenizer: Any
    device: Any
    ends: tuple[int, ...]


def load_causal(path: Path, device: Any, dtype: str | None = None) -> Causal:
    """The causal LM in ``path`` on the torch ``device``.

    Weights become ``dtype``; without one float32 on a CPU, few of which compute in less, and as stored elsewhere.
    CheckpointError when transformers cannot load it, RunError when memory runs out.
    """
    transformers = require("transformers")
    options = {**_SAFE, "use_safetensors": True, "dtype": dtype or ("float32" if device.type == "cpu" else "auto")}
    with _no_progress_bars(transformers), failures(path):
        tokenizer = load_tokenizer(path)
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(path, **options)
        except Exception as error:  # transformers and the libraries below it raise many unrelated types
            if is_out_of_memory(error):
                raise
            raise _unloadable(path, error) from error
        model.eval().requires_grad_(False).to(device)
    configured = model.generation_config.eos_token_id
    listed: list[Any] = configured if isinstance(configured, list) else [configured]
    ends = dict.fromkeys(token for token in (*listed, tokenizer.eos_token_id) if token is not None)
    return Causal(path, model, tokenizer, device, tuple(ends))


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in ``path``; CheckpointError when transformers cannot load it."""
    transformers = require("transformers")
    _check_files(path)
    try:
        return transformers.AutoTokenizer.from_pretrained(path, **_SAFE)
    except Exception as error:  # tokenizer files are read by several libraries, each with its own errors
        raise _unloadable(path, error) from error


def _check_files(path: Path) -> None:
    """CheckpointError for files that libraries would wait for, or read without end: pipes, devices, giants."""
    for name in entries(path):
        if name.endswith(_READ):
            read_size = file_size(path / name)
            if read_size > _MAX_FILE:
                what = f"is {read_size} bytes long; at most {_MAX_FILE} are read"
                raise CheckpointError(what, where=str(path / name))


def find_device(name: str) -> Any:
    """The torch device ``name``, or a GPU if there is one for ``auto``; RequestError when it cannot be used."""
    torch = require("torch")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise RequestError(f"cannot use device '{name}': {first}", hint="Use --device auto, cpu or cuda.") from None
    return device


def match_parameters(model: Any, checkpoint: Checkpoint) -> tuple[dict[str, Parameter], tuple[str, ...]]:
    """Parameters by stored tensor name, in the model's order, and the stored tensors that are no parameters.

    The two names of a stored tied weight map to one parameter. A checkpoint of the bare backbone lacks the model's
    prefix (``wte.weight`` for ``transformer.wte.weight``). CheckpointError when a tensor has no parameter of its shape
    or a parameter was not stored.
    """
    prefix = f"{model.base_model_prefix}."
    matched: dict[str, Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        stored = name if name in checkpoint.tensors else name.removeprefix(prefix)
        if stored in checkpoint.tensors:
            matched[stored] = parameter
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    rest = [name for name in checkpoint.tensors if name not in matched]
    strange = [name for name in rest if name not in buffers and not _BUFFERS.search(name)]
    strange += [name for name, p in matched.items() if tuple(p.shape) != checkpoint.tensors[name].shape]
    if strange:
        _refuse(checkpoint, f"tensor '{strange[0]}' ({len(strange)} in all) has no parameter of its name and shape")
    kept = {id(parameter) for parameter in matched.values()}
    lost = [name for name, parameter in model.named_parameters() if id(parameter) not in kept]
    if lost:
        _refuse(checkpoint, f"parameter '{lost[0]}' ({len(lost)} in all) is not in the checkpoint")
    return matched, tuple(rest)


def release_memory() -> None:
    """Give memory of models that are no longer referenced back to the GPU."""
    gc.collect()  # modules refer to one another in circles
    torch = require("torch")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def failures(path: Path, memory_hint: str = _MEMORY_HINT) -> Generator[None]:
    """Memory errors and what models raise while they run, as RunError that names the model."""
    try:
        yield
    except (MemoryError, RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise RunError("not enough memory", where=str(path), hint=memory_hint) from error
        first = str(error).split("\n", 1)[0]
        hint = "If the prompts are long: they may exceed the model's positions."
        raise RunError(f"the model failed: {first}", where=str(path), hint=hint) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch.OutOfMemoryError on a GPU, MemoryError or a plain RuntimeError on a CPU."""
    text = str(error).lower()
    is_ours = isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate" in text)
    return isinstance(error, MemoryError) or is_ours


@contextmanager
def _no_progress_bars(transformers: Any) -> Generator[None]:
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


def _refuse(checkpoint: Checkpoint, what: str) -> None:
    hint = "Models that transformers rearranges while loading (fused experts, quantized weights) are not supported."
    raise CheckpointError(what, where=checkpoint.reference, hint=hint)
