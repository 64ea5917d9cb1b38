"""Write synthetic checkpoints: a base and K experts of a chosen size, type, share of changed entries and overlap.

    python bench/generate.py OUT --parameters 500M --experts 3 --changed 0.3 --overlap 0.2

OUT/base and OUT/expert-0 … are Hugging Face Llama directories. They are written as a stream, a million entries at a
time, so any size costs the same memory; the same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from _write import STORAGE, ModelWriter, Shapes

BLOCK = 2**20

WIDTHS = (
    # from, hidden, mlp, heads, key-value heads, vocabulary
    (0, 256, 688, 4, 2, 8_000),
    (20_000_000, 512, 1408, 8, 4, 32_000),
    (100_000_000, 768, 2048, 12, 4, 32_000),
    (300_000_000, 1280, 3584, 20, 4, 128_256),
    (1_000_000_000, 2048, 8192, 32, 8, 128_256),
    (3_000_000_000, 3072, 8192, 24, 8, 128_256),
    (6_000_000_000, 4096, 14_336, 32, 8, 128_256),
)
"""Layer widths by total size; the last three are those of Llama 3.2 1B and 3B and of Llama 3.1 8B."""


@dataclass(frozen=True)
class Spec:
    """What to write. ``changed`` is the expected share of entries in which an expert differs from the base.

    ``overlap`` is the share of an expert's changed entries that every expert changes, the others being its own alone;
    None draws the experts independently. ``kind`` "rl" moves an entry by 1 to 4 steps of its type (of bfloat16 when it
    is float32); "sft" adds normal noise of 5 % of the weights' scale, some of which 16-bit types round away.
    """

    experts: int = 3
    dtype: str = "bfloat16"
    changed: float = 0.3
    overlap: float | None = None
    kind: str = "rl"
    seed: int = 0
    shard: int = 5 * 10**9

    def __post_init__(self) -> None:
        if not 0 <= self.changed <= 1 or (self.overlap is not None and not 0 <= self.overlap <= 1):
            raise ValueError("changed and overlap are shares from 0 to 1")
        if self.overlap is not None and self._own * self.experts + self.changed * self.overlap > 1 + 1e-9:
            least = (self.experts * self.changed - 1) / (self.changed * (self.experts - 1))
            raise ValueError(f"{self.experts} experts changing {self.changed} cannot overlap less than {least:.3f}")

    @property
    def _own(self) -> float:
        """Share of all entries that one given expert alone changes."""
        return self.changed * (1 - (self.overlap or 0))

    def masks(self, random: np.random.Generator, count: int) -> Iterator[np.ndarray]:
        """For each expert in turn, which of ``count`` entries it changes, [count] of bool."""
        if self.overlap is None:
            for _ in range(self.experts):
                yield random.random(count, np.float32) < self.changed
            return
        place = random.random(count)
        common = self.changed * self.overlap
        for expert in range(self.experts):
            first = common + expert * self._own
            yield (place < common) | ((place >= first) & (place < first + self._own))


def llama(parameters: int) -> tuple[Shapes, Mapping[str, object]]:
    """Tensor shapes and ``config.json`` of a Llama model of about that many parameters."""
    _, hidden, mlp, heads, groups, vocabulary = [row for row in WIDTHS if row[0] <= parameters][-1]
    tied, narrow = hidden < 4096, hidden // heads * groups
    layer = {
        "input_layernorm": (hidden,),
        "mlp.down_proj": (hidden, mlp),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "post_attention_layernorm": (hidden,),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.v_proj": (narrow, hidden),
    }
    tables = vocabulary * hidden * (1 if tied else 2)
    layers = max(1, round((parameters - tables) / sum(map(prod, layer.values()))))
    shapes: dict[str, tuple[int, ...]] = {} if tied else {"lm_head.weight": (vocabulary, hidden)}
    shapes["model.embed_tokens.weight"] = (vocabulary, hidden)
    for index in range(layers):
        shapes |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 8192,
        "hidden_act": "silu",
    }
    return shapes, config


def moe(parameters: int, each: int) -> tuple[Shapes, Mapping[str, object]]:
    """The same of a mixture of experts like Qwen3's, whose experts' matrices have about ``each`` entries."""
    hidden, vocabulary, most = 1024, 32_000, 64
    narrow = max(1, round(each / hidden))
    wanted = max(1, round((parameters - vocabulary * hidden) / (3 * narrow * hidden)))
    layers = -(-wanted // most)
    experts = -(-wanted // layers)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for index in range(layers):
        layer = f"model.layers.{index}"
        shapes |= {f"{layer}.{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (hidden, hidden) for name in "kqvo"}
        shapes[f"{layer}.mlp.gate.weight"] = (experts, hidden)
        for expert in range(experts):
            for name, shape in {"down": (hidden, narrow), "gate": (narrow, hidden), "up": (narrow, hidden)}.items():
                shapes[f"{layer}.mlp.experts.{expert}.{name}_proj.weight"] = shape
    shapes["model.norm.weight"] = (hidden,)
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": hidden,
        "moe_intermediate_size": narrow,
        "num_experts": experts,
        "num_experts_per_tok": min(8, experts),
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 64,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
    }
    return shapes, config


def names_of(spec: Spec) -> list[str]:
    """The directories of a base and its experts."""
    return ["base", *(f"expert-{index}" for index in range(spec.experts))]


def generate(out: Path, shapes: Shapes, config: Mapping[str, object], spec: Spec) -> list[Path]:
    """Write the base and the experts under ``out``; returns their directories, the base first."""
    names = names_of(spec)
    writers = [ModelWriter(out / name, shapes, config, spec.dtype, spec.shard) for name in names]
    for index, (name, shape) in enumerate(shapes.items()):
        for start in range(0, prod(shape), BLOCK):
            random = np.random.default_rng([spec.seed, index, start // BLOCK])
            count = min(BLOCK, prod(shape) - start)
            for writer, values in zip(writers, _block(random, count, len(shape) == 1, spec), strict=True):
                writer.append(name, values)
    for writer in writers:
        writer.close()
    return [out / name for name in names]


def _block(random: np.random.Generator, count: int, is_norm: bool, spec: Spec) -> Iterator[np.ndarray]:
    """One block of the base, then of each expert, in storage type."""
    values = random.standard_normal(count, np.float32) * np.float32(0.02) + np.float32(is_norm)
    base = _store(values, spec.dtype)
    yield base
    for mask in spec.masks(random, count):
        where = np.flatnonzero(mask)
        expert = base.copy()
        if spec.kind == "rl":
            expert[where] = _stepped(base[where], random.integers(0, 8, len(where), np.uint8))
        else:
            noise = random.standard_normal(len(where), np.float32) * np.float32(0.001)
            expert[where] = _store(values[where] + noise, spec.dtype)
        yield expert


def _store(values: np.ndarray, dtype: str) -> np.ndarray:
    """Float32 values in storage type; bfloat16 is rounded to nearest even and kept as its bits."""
    if dtype != "bfloat16":
        return values.astype(STORAGE[dtype])
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def _stepped(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Values moved by 1 to 4 steps of their type, away from or towards zero; ``draws`` are uniform in 0 … 7."""
    is_wide = values.dtype.itemsize == 4
    bits = values.view(np.uint32 if is_wide else np.uint16).astype(np.int64)
    step = (1 + (draws & 3).astype(np.int64)) << (16 if is_wide else 0)
    sign_bit = 1 << (31 if is_wide else 15)
    # Towards zero only where that cannot cross it: below the smallest magnitudes comes the other sign's infinity.
    moved = np.where((draws >= 4) & ((bits & (sign_bit - 1)) > step), bits - step, bits + step)
    return moved.astype(np.uint32 if is_wide else np.uint16).view(values.dtype)


def quantity(text: str) -> int:
    """A number with an optional K, M, G or B for billions: ``500M``, ``1.5B``, ``5G``."""
    factor = {"K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}.get(text[-1:].upper(), 1)
    return round(float(text[:-1] if factor > 1 else text) * factor)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that describe the models; ``spec_of`` reads them back."""
    parser.add_argument("--parameters", type=quantity, default="500M", help="of one model (default 500M)")
    parser.add_argument("--experts", type=int, default=Spec.experts)
    parser.add_argument("--dtype", choices=STORAGE, default=Spec.dtype)
    parser.add_argument("--changed", type=float, default=Spec.changed, help="share of entries an expert changes")
    parser.add_argument("--overlap", type=float, help="share of those that all experts change (default: independent)")
    parser.add_argument("--kind", choices=("rl", "sft"), default=Spec.kind)
    parser.add_argument("--seed", type=int, default=Spec.seed)
    parser.add_argument("--shard", type=quantity, default=Spec.shard, help="bytes of a shard (default 5G)")


def spec_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Spec:
    """The Spec of parsed ``add_arguments`` options; a usage error when they contradict each other."""
    try:
        return Spec(**{name: getattr(arguments, name) for name in Spec.__dataclass_fields__})
    except ValueError as error:
        parser.error(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    add_arguments(parser)
    arguments = parser.parse_args()
    spec = spec_of(parser, arguments)
    shapes, config = llama(arguments.parameters)
    for path in generate(arguments.out, shapes, config, spec):
        print(path)
    print(f"{sum(map(prod, shapes.values())):,} parameters each, {len(shapes)} tensors, {spec}")


if __name__ == "__main__":
    main()
