"""What prompts are inside a model: the mean hidden state that enters each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rlmerge.errors import RunError
from rlmerge.extras import require
from rlmerge.language.model import failures, find_device, load_causal, release_memory
from rlmerge.language.tokens import encode_text


def mean_states(
    path: Path, prompts: Sequence[str], *, device: str = "auto", advance: Callable[[int], None] | None = None
) -> np.ndarray:
    """Float64 [prompts, layers, hidden]: the state that enters each layer, its mean over the tokens of a prompt.

    Prompts run one by one, so that none is padded. RequestError without the extra ``torch``, CheckpointError for a
    model that transformers cannot load, RunError when it fails.
    """
    torch = require("torch")
    causal = load_causal(path, find_device(device))
    found: list[np.ndarray] = []
    for index, prompt in enumerate(prompts):
        ids = encode_text(causal.tokenizer, prompt, f"prompt {index + 1}", chat=False)
        with failures(path), torch.inference_mode():
            given = torch.tensor([ids], device=causal.device)
            layers = causal.model(input_ids=given, output_hidden_states=True, use_cache=False).hidden_states
        if layers is None:
            raise RunError("the model gives no hidden states", where=str(path))
        # The last one has left the last layer.
        found.append(torch.stack([layer[0].double().mean(dim=0) for layer in layers[:-1]]).cpu().numpy())
        if advance is not None:
            advance(1)
    del causal
    release_memory()
    return np.stack(found)
