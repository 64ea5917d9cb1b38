"""Loading a causal language model with transformers and pairing its parameters with the checkpoint's tensors."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlmerge.errors import CheckpointError, RequestError, RunError
from rlmerge.extras import require

if TYPE_CHECKING:
    from torch.nn import Parameter

    from rlmerge.checkpoint.model import Checkpoint

_BUFFERS = re.compile(r"(inv_freq|masked_bias|attn\.bias|position_ids)$")
"""Constants that old checkpoints store and no model reads."""

_LAYER = re.compile(r"^(?:.*?\.)?\d+(?=\.)")


@dataclass(frozen=True)
class CausalModel:
    """A model ready to be differentiated: in evaluation mode, on its device, parameters frozen.

    ``parameters`` maps the checkpoint's tensor names to parameters, in the model's order; the two names of a stored
    tied weight map to one parameter. ``uncovered`` names the stored tensors that are not parameters.
    """

    model: Any
    tokenizer: Any
    device: Any
    parameters: Mapping[str, Parameter]
    uncovered: tuple[str, ...]


def load_model(checkpoint: Checkpoint, dtype: str, device: Any) -> CausalModel:
    """The causal LM and tokenizer of ``checkpoint``; CheckpointError when transformers cannot load them."""
    torch, transformers = require("torch"), require("transformers")
    safe = {"local_files_only": True, "trust_remote_code": False}
    with _loading(checkpoint):
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.path, **safe)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint.path, dtype=getattr(torch, dtype), use_safetensors=True, **safe
        )
    model.eval().requires_grad_(False).to(device)
    parameters, uncovered = match_parameters(model, checkpoint)
    return CausalModel(model, tokenizer, device, parameters, uncovered)


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


@contextmanager
def _loading(checkpoint: Checkpoint) -> Generator[None]:
    """Errors of any kind as ours, and no progress bars but ours."""
    logging = require("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except MemoryError:
        raise RunError("not enough memory to load the model", hint="Use --dtype bfloat16.") from None
    except Exception as error:  # transformers and the libraries below it raise many unrelated types
        hint = "sensitivity needs config.json, tokenizer files and a causal LM that transformers knows."
        raise CheckpointError(f"transformers cannot load it: {error}", where=checkpoint.reference, hint=hint) from error
    finally:
        if shown:
            logging.enable_progress_bar()


def match_parameters(model: Any, checkpoint: Checkpoint) -> tuple[dict[str, Parameter], tuple[str, ...]]:
    """Parameters by stored tensor name, in the model's order, and the stored tensors that are no parameters.

    A checkpoint of the bare backbone lacks the model's prefix (``wte.weight`` for ``transformer.wte.weight``). Raises
    CheckpointError when a tensor has no parameter of its shape or a parameter was not stored.
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


def _refuse(checkpoint: Checkpoint, what: str) -> None:
    hint = "Models that transformers rearranges while loading (fused experts, quantized weights) are not supported."
    raise CheckpointError(what, where=checkpoint.reference, hint=hint)


def layer_groups(parameters: Mapping[str, Parameter], *, stream: bool) -> list[list[str]]:
    """Tensor names by pass: all at once, or packed so that no group is larger than the largest layer (or tensor).

    What lies outside the layers (embedding, final norm, head) counts as a layer of its own.
    """
    if not stream:
        return [list(parameters)]
    units: dict[str, list[str]] = {}
    for name in parameters:
        layer = _LAYER.match(name)
        units.setdefault(layer.group() if layer else name, []).append(name)
    sizes = [sum(parameters[name].numel() for name in names) for names in units.values()]
    return _pack(list(units.values()), sizes)


def _pack(units: Sequence[list[str]], sizes: Sequence[int]) -> list[list[str]]:
    groups: list[list[str]] = []
    room = 0
    for names, size in zip(units, sizes, strict=True):
        if size > room:
            groups.append([])
            room = max(sizes)
        groups[-1].extend(names)
        room -= size
    return groups


def enable_checkpointing(model: Any) -> None:
    """Turn on gradient checkpointing without the rest of training mode, so that dropout stays off."""
    if not model.supports_gradient_checkpointing:
        raise RequestError(f"{type(model).__name__} does not support gradient checkpointing")
    # Re-entrant checkpointing runs one backward per layer and would square a tied weight's gradient in parts.
    kwargs = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # its name since transformers 5
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
            for name, value in vars(module).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(module, name, 0.0)
