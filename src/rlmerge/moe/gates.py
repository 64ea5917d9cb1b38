"""The rows of routers: one direction of hidden states for every expert and layer, from prompts or at random."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlmerge.checkpoint import Checkpoint
from rlmerge.checkpoint.paths import inside
from rlmerge.checkpoint.tokenizer import FAST
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.extras import require
from rlmerge.kernels.random import stream_key
from rlmerge.transplant.fit import gather

from .check import EMBEDDING
from .config import Expert, Gate

States = Callable[[Sequence[str]], np.ndarray]
"""Float [prompts, layers, hidden]: what a prompt is in every layer, the mean over its tokens."""

_SAME = 1e-6
"""Length of a difference of means, as a share of the longer of the two, below which it is rounding."""


def random_rows(gate: Gate, layers: int, experts: int, hidden: int, seed: int) -> np.ndarray:
    """Float32 [layers, experts, hidden] of ``random``, standard normal, or ``uniform_random``, uniform within
    ±1/sqrt(hidden) as a linear layer begins.
    """
    low, high = stream_key(seed, "router", gate)
    numbers = np.random.Generator(np.random.Philox(low | high << 32))
    shape = layers, experts, hidden
    if gate == "random":
        return numbers.standard_normal(shape, np.float32)
    bound = 1.0 / math.sqrt(hidden)
    return ((2.0 * numbers.random(shape) - 1.0) * bound).astype(np.float32)


def prompt_rows(experts: Sequence[Expert], states: States) -> np.ndarray:
    """Float32 [layers, experts, hidden]: the mean of an expert's positive prompts minus that of its negative ones, each
    row of length 1.

    RequestError, naming the expert, where the two are the same and leave no direction.
    """
    prompts = list(dict.fromkeys(text for expert in experts for text in (*expert.positive, *expert.negative)))
    place = {text: index for index, text in enumerate(prompts)}
    found = states(prompts).astype(np.float64)
    rows = [_direction(expert, found, place) for expert in experts]
    return np.stack(rows, axis=1).astype(np.float32)


def _direction(expert: Expert, found: np.ndarray, place: dict[str, int]) -> np.ndarray:
    """Float64 [layers, hidden], each row of length 1."""
    positive = _mean(found, expert.positive, place)
    negative = _mean(found, expert.negative, place) if expert.negative else np.zeros_like(positive)
    rows = positive - negative
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    longest = np.maximum(np.linalg.norm(positive, axis=1), np.linalg.norm(negative, axis=1))[:, None]
    if not np.isfinite(lengths).all():
        raise RequestError("the states of its prompts are not finite", where=expert.where, hint="Check the base model.")
    if (lengths <= _SAME * longest).any():
        what = "positive and negative prompts of the expert have the same mean, which leaves no direction"
        raise RequestError(what, where=expert.where, hint="Give prompts that differ.")
    return rows / lengths


def _mean(found: np.ndarray, prompts: Sequence[str], place: dict[str, int]) -> np.ndarray:
    return found[[place[text] for text in prompts]].mean(axis=0)


def embedding_states(base: Checkpoint, layers: int) -> States:
    """What ``cheap_embed`` knows of prompts: rows of the input embedding, the same in every layer; without torch.

    RequestError without the package ``tokenizers``, CheckpointError for a base that has no tokenizer.json.
    """
    path = inside(base.side_root, FAST) if (base.side_root / FAST).is_file() else None
    if path is None:
        hint = "Add its tokenizer.json, or use `gate_mode: random`."
        raise CheckpointError(f"has no {FAST} to read the prompts with", where=base.reference, hint=hint)
    tokenizer = _load(str(path))
    table = base.tensors[EMBEDDING]

    def states(prompts: Sequence[str]) -> np.ndarray:
        found = np.empty((len(prompts), layers, table.columns))
        for index, text in enumerate(prompts):
            ids = np.array(tokenizer.encode(text).ids, np.int64)
            if not len(ids):
                raise RequestError(f"the prompt {text!r} has no tokens", hint="Give prompts with some text.")
            if ids.max() >= table.shape[0]:
                what = f"its tokenizer gives the id {ids.max()}, but the embedding has {table.shape[0]} rows"
                raise CheckpointError(what, where=base.reference, hint="Model and tokenizer do not belong together.")
            found[index] = gather(table, ids).mean(axis=0, dtype=np.float64)
        return found

    return states


def _load(path: str) -> Any:
    tokenizers = require("tokenizers")
    try:
        return tokenizers.Tokenizer.from_file(path)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library is written in Rust, whose panics derive from BaseException
        hint = "The file is damaged or is something else; download or save the tokenizer again."
        raise CheckpointError(f"the tokenizer cannot be read ({error})", where=path, hint=hint) from None
