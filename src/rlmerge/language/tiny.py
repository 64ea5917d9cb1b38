"""A small Llama-architecture model in NumPy: enough to score a checkpoint of some million weights without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint.model import Checkpoint, open_checkpoint
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import decode

MAX_PARAMETERS = 200_000_000
"""Larger models are refused: all weights are held as float32, and NumPy would take hours where torch takes seconds."""

_PLAIN = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "rope_scaling": None}
"""Settings of which only one value is implemented; a config that leaves them out means that value."""


@frozen(slots=True)
class TinyConfig:
    """The sizes of a Llama decoder; ``groups`` key-value heads serve ``heads`` query heads."""

    hidden: int
    layers: int
    heads: int
    groups: int
    head: int
    mlp: int
    vocabulary: int
    epsilon: float
    theta: float
    tied: bool

    @classmethod
    def parse(cls, config: Mapping[str, Any], where: str) -> TinyConfig:
        """Read a ``config.json``; RequestError when it describes anything but a plain Llama decoder."""
        given = config.get("rope_parameters")
        rope: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        found = {key: config.get(key, plain) for key, plain in _PLAIN.items()}
        found["rope_type"] = rope.get("rope_type", "default")
        wrong = next((k for k, v in found.items() if v != _PLAIN.get(k, "default")), None)
        if config.get("model_type") != "llama" or wrong:
            what = f"{wrong} {found[wrong]!r}" if wrong else f"model_type {config.get('model_type')!r}"
            hint = "It runs plain Llama decoders only; score other models with transformers or vLLM."
            raise RequestError(f"the NumPy scorer does not support {what}", where=where, hint=hint)
        try:
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            parsed = cls(
                hidden=hidden,
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                groups=int(config.get("num_key_value_heads") or heads),
                head=int(config.get("head_dim") or hidden // heads),
                mlp=int(config["intermediate_size"]),
                vocabulary=int(config["vocab_size"]),
                epsilon=float(config.get("rms_norm_eps", 1e-6)),
                theta=float(rope.get("rope_theta") or config.get("rope_theta", 10000.0)),
                tied=bool(config.get("tie_word_embeddings", False)),
            )
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            hint = "Copy config.json from the model this one was trained from."
            what = f"is not a complete Llama configuration ({error!r})"
            raise CheckpointError(what, where=where, hint=hint) from error
        sizes = (hidden, parsed.layers, heads, parsed.groups, parsed.head, parsed.mlp, parsed.vocabulary)
        if min(sizes) < 1 or heads % parsed.groups or parsed.head % 2:
            hint = "Copy config.json from the model this one was trained from."
            raise CheckpointError(f"its sizes do not fit together: {parsed}", where=where, hint=hint)
        return parsed

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight of one layer, without the layer's prefix."""
        wide, narrow = self.heads * self.head, self.groups * self.head
        return {
            "input_layernorm.weight": (self.hidden,),
            "self_attn.q_proj.weight": (wide, self.hidden),
            "self_attn.k_proj.weight": (narrow, self.hidden),
            "self_attn.v_proj.weight": (narrow, self.hidden),
            "self_attn.o_proj.weight": (self.hidden, wide),
            "post_attention_layernorm.weight": (self.hidden,),
            "mlp.gate_proj.weight": (self.mlp, self.hidden),
            "mlp.up_proj.weight": (self.mlp, self.hidden),
            "mlp.down_proj.weight": (self.hidden, self.mlp),
        }

    def outer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight outside the layers."""
        table = (self.vocabulary, self.hidden)
        shapes = {"model.embed_tokens.weight": table, "model.norm.weight": (self.hidden,)}
        return shapes if self.tied else {**shapes, "lm_head.weight": table}

    @property
    def parameters(self) -> int:
        """How many weights the model has."""
        return sum(map(prod, self.outer_shapes().values())) + self.layers * sum(map(prod, self.layer_shapes().values()))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight, as Hugging Face names them."""
        layers = {
            f"model.layers.{index}.{name}": shape
            for index in range(self.layers)
            for name, shape in self.layer_shapes().items()
        }
        return {**self.outer_shapes(), **layers}


@frozen(slots=True)
class TinyLlama:
    """A decoder with its weights in float32, under their Hugging Face names."""

    config: TinyConfig
    weights: Mapping[str, np.ndarray]

    def logits(
        self,
        tokens: np.ndarray,
        start: int = 0,
        positions: np.ndarray | None = None,
        visible: np.ndarray | None = None,
    ) -> np.ndarray:
        """Next-token logits [B, T - start, vocabulary] from index ``start`` on, for ``tokens`` [B, T].

        ``positions`` [B, T] and ``visible`` [B, T, T] (query, key) lay a tree of continuations into one row; without
        them each row is a sequence in which every token sees those before it.
        """
        config = self.config
        x = self.weights["model.embed_tokens.weight"][tokens]
        length = tokens.shape[1]
        rotation = _rotation(config, np.arange(length)[None] if positions is None else positions)
        mask = np.tri(length, dtype=bool)[None] if visible is None else visible
        for index in range(config.layers):
            x = x + self._attention(index, x, rotation, mask[:, None, None])
            x = x + self._mlp(index, x)
        head = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
        return self._project(head, self._norm("model.norm.weight", x[:, start:]))

    def greedy(self, tokens: np.ndarray, steps: int) -> np.ndarray:
        """The ``steps`` tokens [B, steps] that follow ``tokens`` [B, T] when the most likely one is always taken."""
        for _ in range(steps):
            best = self.logits(tokens, tokens.shape[1] - 1).argmax(axis=-1)
            tokens = np.concatenate([tokens, best], axis=1)
        return tokens[:, tokens.shape[1] - steps :]

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self.config.epsilon))
        return self.weights[name] * (x / scale)

    def _project(self, name: str, x: np.ndarray) -> np.ndarray:
        # As one matrix product: over a stack of sequences NumPy would do a small one for each, at a third of the speed.
        weight = self.weights[name]
        return (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], len(weight))

    def _attention(
        self, index: int, x: np.ndarray, rotation: tuple[np.ndarray, np.ndarray], visible: np.ndarray
    ) -> np.ndarray:
        config, prefix = self.config, f"model.layers.{index}."
        batch, length = x.shape[:2]
        x = self._norm(prefix + "input_layernorm.weight", x)

        def heads(name: str, per_group: int) -> np.ndarray:  # [B, groups, per_group, T, head]
            y = self._project(f"{prefix}self_attn.{name}_proj.weight", x)
            return y.reshape(batch, length, config.groups, per_group, config.head).transpose(0, 2, 3, 1, 4)

        q = _rotate(heads("q", config.heads // config.groups), rotation)
        k, v = _rotate(heads("k", 1), rotation), heads("v", 1)
        scores = q @ k.swapaxes(-1, -2) * np.float32(config.head**-0.5)
        scores = np.where(visible, scores, np.float32(-np.inf))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
        mixed = mixed.transpose(0, 3, 1, 2, 4).reshape(batch, length, config.heads * config.head)
        return self._project(prefix + "self_attn.o_proj.weight", mixed)

    def _mlp(self, index: int, x: np.ndarray) -> np.ndarray:
        prefix = f"model.layers.{index}."
        x = self._norm(prefix + "post_attention_layernorm.weight", x)
        gate = self._project(prefix + "mlp.gate_proj.weight", x)
        up = self._project(prefix + "mlp.up_proj.weight", x)
        return self._project(prefix + "mlp.down_proj.weight", gate / (1 + np.exp(-gate)) * up)


def load(model: str | os.PathLike[str] | Checkpoint) -> TinyLlama:
    """Load a small Llama checkpoint; RequestError when it is another architecture or too large for NumPy."""
    checkpoint = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    where = str(Path(checkpoint.path) / "config.json")
    config = TinyConfig.parse(checkpoint.config or {}, where)
    if config.parameters > MAX_PARAMETERS:
        what = f"the NumPy scorer stops at {MAX_PARAMETERS:,} parameters and this model has {config.parameters:,}"
        raise RequestError(what, where=where, hint="Score it with transformers or vLLM.")
    weights: dict[str, np.ndarray] = {}
    for name, shape in config.shapes().items():
        info = checkpoint.tensors.get(name)
        if info is None or info.shape != shape or not info.dtype.is_float:
            found = f"{info.dtype.name} {list(info.shape)}" if info else "nothing"
            hint = "The weights and config.json belong to different models."
            raise CheckpointError(f"should be a float tensor {list(shape)}, found {found}", where=name, hint=hint)
        weights[name] = decode(info.read(), info.dtype).astype(np.float32, copy=False).reshape(shape)
    return TinyLlama(config, weights)


def _rotation(config: TinyConfig, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine [B, 1, 1, T, head / 2] of the rotary angle of each of ``positions`` [B, T] and frequency."""
    frequency = config.theta ** -(np.arange(0, config.head, 2) / config.head)
    angle = positions[:, None, None, :, None] * frequency
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _rotate(x: np.ndarray, rotation: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Rotate the pairs (i, i + head / 2) of the last axis, the pairing Hugging Face checkpoints are stored for."""
    cos, sin = rotation
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)
