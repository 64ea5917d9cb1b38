"""Next-token distributions of a model along given outputs, a bounded piece at a time."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlmerge.errors import RequestError
from rlmerge.extras import require
from rlmerge.frozen import frozen
from rlmerge.language.characters import encode, read_vocabulary
from rlmerge.language.generation import refuse_nan
from rlmerge.language.model import Causal, failures, load_causal
from rlmerge.language.tiny import TinyLlama, load
from rlmerge.language.tokens import encode_text

CELLS = 2**24
"""Probabilities held at once, as positions times vocabulary: 128 MiB in float64."""


@frozen(slots=True)
class Output:
    """Token ids of a prompt and of what was written after it, the end included if it was reached."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


class Predictor(Protocol):
    """A loaded model that tells what it would say next."""

    xp: Any
    """NumPy or torch, in whose arrays it answers."""

    def encode(self, prompt: str, *, chat: bool) -> tuple[int, ...]:
        """Token ids of a prompt, as the generator of its kind reads it."""
        ...

    def log_probabilities(self, outputs: Sequence[Output]) -> Iterator[Any]:
        """float64 log probabilities [positions, vocabulary] of the token at every position of ``outputs``, in pieces.

        Models of one vocabulary size cut the same outputs into the same pieces. RunError when logits are NaN.
        """
        ...


def entropy(model: Predictor, outputs: Sequence[Output]) -> float:
    """Mean over all positions of the entropy of the next token, −Σ p log p, in nats."""
    xp, total, count = model.xp, 0.0, 0
    for logs in model.log_probabilities(outputs):
        p = xp.exp(logs)
        total -= float((p * xp.where(p > 0, logs, xp.zeros_like(logs))).sum())
        count += len(logs)
    return total / count


def divergence(model: Predictor, other: Predictor, outputs: Sequence[Output]) -> float:
    """Mean over all positions of KL(model ‖ other) of the next token, Σ p log (p / q), in nats.

    On outputs that ``model`` drew at temperature 1, the mean length of an output times this figure estimates the KL of
    the two models' whole outputs up to the length limit (the chain rule). RequestError if their vocabularies differ in
    size.
    """
    xp, total, count = model.xp, 0.0, 0
    for logs, others in zip(model.log_probabilities(outputs), other.log_probabilities(outputs), strict=True):
        if logs.shape != others.shape:
            what = f"one model predicts {logs.shape[1]} tokens and the other {others.shape[1]}, so there is no KL"
            raise RequestError(what, hint="Compare models with one vocabulary.")
        p = xp.exp(logs)
        with np.errstate(invalid="ignore"):  # −∞ − −∞ where neither allows a token, which counts 0
            gain = xp.where(p > 0, logs - others, xp.zeros_like(logs))
        total += float((p * gain).sum())
        count += len(logs)
    return total / count


class TinyPredictor:
    """A character-level Llama in NumPy."""

    xp: Any = np

    def __init__(self, path: Path) -> None:
        self._path = path
        self._network: TinyLlama = load(path)
        self._vocabulary = read_vocabulary(path, self._network.config.vocabulary)

    def encode(self, prompt: str, *, chat: bool) -> tuple[int, ...]:
        if chat:
            raise RequestError(
                "character-level models have no chat template", where=str(self._path), hint="Leave --chat out."
            )
        return tuple(encode(prompt, self._vocabulary))

    def log_probabilities(self, outputs: Sequence[Output]) -> Iterator[np.ndarray]:
        shapes: dict[tuple[int, int], list[Output]] = {}
        for output in outputs:
            shapes.setdefault((len(output.prompt), len(output.tokens)), []).append(output)
        for (start, length), alike in shapes.items():
            batch = max(1, CELLS // (length * self._network.config.vocabulary))
            for first in range(0, len(alike), batch):
                tokens = np.array([output.prompt + output.tokens[:-1] for output in alike[first : first + batch]])
                logits = self._network.logits(tokens, start - 1).astype(np.float64)
                refuse_nan(bool(np.isnan(logits).any()), self._path)
                logits = logits.reshape(-1, logits.shape[-1])
                logits -= logits.max(axis=-1, keepdims=True)
                yield logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


class CausalPredictor:
    """A model in transformers, fed one output at a time and a long one in pieces, so that no full logits arise."""

    def __init__(self, causal: Causal) -> None:
        self.xp: Any = require("torch")
        self._causal = causal

    @classmethod
    def load(cls, path: Path, device: Any) -> CausalPredictor:
        """The model in ``path`` on the torch ``device``."""
        return cls(load_causal(path, device))

    def encode(self, prompt: str, *, chat: bool) -> tuple[int, ...]:
        return encode_text(self._causal.tokenizer, prompt, str(self._causal.path), chat=chat)

    def log_probabilities(self, outputs: Sequence[Output]) -> Iterator[Any]:
        torch, causal = self.xp, self._causal
        exact = torch.float32 if causal.device.type == "mps" else torch.float64
        # What transformers calls past keys and values; the second name is the older one.
        name = "cache" if "cache" in inspect.signature(causal.model.forward).parameters else "past_key_values"
        for output in outputs:
            ids, first = output.prompt + output.tokens[:-1], len(output.prompt) - 1
            piece = max(1, CELLS // causal.model.config.get_text_config().vocab_size)
            past = None
            for start in range(0, len(ids), piece):
                tokens = torch.tensor([ids[start : start + piece]], device=causal.device)
                with failures(causal.path), torch.no_grad():
                    made = causal.model(input_ids=tokens, use_cache=len(ids) > piece, **{name: past})
                past = getattr(made, name, None)
                logits = made.logits[0, max(0, first - start) :]
                if not len(logits):
                    continue
                refuse_nan(bool(torch.isnan(logits).any()), causal.path)
                yield torch.log_softmax(logits.to(exact), dim=-1)
