"""Tensor shapes of real Llama and Qwen models, from their configurations: exact, and nothing to download."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["attention", "mlp", "norm", "embedding", "head"]
KINDS: tuple[Kind, ...] = ("attention", "mlp", "norm", "embedding", "head")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One weight; ``layer`` is None outside the transformer blocks. Biases count to the kind of their matrix."""

    name: str
    kind: Kind
    layer: int | None
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        size = 1
        for side in self.shape:
            size *= side
        return size


@dataclass(frozen=True, slots=True)
class Architecture:
    """A dense or mixture-of-experts decoder of the Llama family; ``experts`` = 0 is dense."""

    name: str
    hidden: int
    layers: int
    inner: int
    heads: int
    key_heads: int
    vocabulary: int
    head_size: int = 128
    tied: bool = False
    attention_bias: bool = False
    experts: int = 0
    qk_norm: bool = False

    def tensors(self) -> Iterator[Tensor]:
        """Every stored weight, in layer order."""
        yield Tensor("model.embed_tokens.weight", "embedding", None, (self.vocabulary, self.hidden))
        for layer in range(self.layers):
            yield from self._layer(layer)
        yield Tensor("model.norm.weight", "norm", None, (self.hidden,))
        if not self.tied:
            yield Tensor("lm_head.weight", "head", None, (self.vocabulary, self.hidden))

    @property
    def parameters(self) -> int:
        return sum(tensor.numel for tensor in self.tensors())

    @property
    def largest(self) -> Tensor:
        """The tensor with most entries."""
        return max(self.tensors(), key=lambda tensor: tensor.numel)

    def _layer(self, layer: int) -> Iterator[Tensor]:
        prefix, h = f"model.layers.{layer}.", self.hidden
        q, kv = self.heads * self.head_size, self.key_heads * self.head_size
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            yield Tensor(f"{prefix}self_attn.{name}_proj.weight", "attention", layer, (rows, h))
            if self.attention_bias:
                yield Tensor(f"{prefix}self_attn.{name}_proj.bias", "attention", layer, (rows,))
        yield Tensor(f"{prefix}self_attn.o_proj.weight", "attention", layer, (h, q))
        if self.qk_norm:
            for name in ("q", "k"):
                yield Tensor(f"{prefix}self_attn.{name}_norm.weight", "norm", layer, (self.head_size,))
        yield from self._mlp(f"{prefix}mlp.", layer)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield Tensor(f"{prefix}{name}.weight", "norm", layer, (h,))

    def _mlp(self, prefix: str, layer: int) -> Iterator[Tensor]:
        blocks = [f"{prefix}experts.{e}." for e in range(self.experts)] or [prefix]
        if self.experts:
            yield Tensor(f"{prefix}gate.weight", "mlp", layer, (self.experts, self.hidden))
        for block in blocks:
            yield Tensor(f"{block}gate_proj.weight", "mlp", layer, (self.inner, self.hidden))
            yield Tensor(f"{block}up_proj.weight", "mlp", layer, (self.inner, self.hidden))
            yield Tensor(f"{block}down_proj.weight", "mlp", layer, (self.hidden, self.inner))


LLAMA_70B = Architecture("Llama-3.1-70B", 8192, 80, 28672, 64, 8, 128256)

ARCHITECTURES = (
    Architecture("Qwen2.5-3B", 2048, 36, 11008, 16, 2, 151936, tied=True, attention_bias=True),
    Architecture("Llama-3.2-3B", 3072, 28, 8192, 24, 8, 128256, tied=True),
    Architecture("Llama-2-7B", 4096, 32, 11008, 32, 32, 32000),
    Architecture("Qwen2.5-7B", 3584, 28, 18944, 28, 4, 152064, attention_bias=True),
    Architecture("Llama-3.1-8B", 4096, 32, 14336, 32, 8, 128256),
    Architecture("Llama-2-13B", 5120, 40, 13824, 40, 40, 32000),
    Architecture("Qwen3-30B-A3B", 2048, 48, 768, 32, 4, 151936, experts=128, qk_norm=True),
    LLAMA_70B,
    Architecture("Qwen2.5-72B", 8192, 80, 29568, 64, 8, 152064, attention_bias=True),
    Architecture("Llama-3.1-405B", 16384, 126, 53248, 128, 8, 128256),
)
