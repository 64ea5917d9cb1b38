"""What merges of large models take: bytes over the link, time, memory of a worker; planned from real headers.

    python bench/scale.py --bandwidth 1.25e9 --workers 8

For each model a base and three experts are made with the shapes, types and shards of the published one, but as sparse
files: everything but the weights is real, and takes no disk. ``rlmerge.plan`` then opens them as it opens models in a
store, and says what a merge would do. Times are those of the link alone; only the CPU seconds of the plan are measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from _measure import SCRATCH, report, table

import rlmerge
from rlmerge.checkpoint import InputFile
from rlmerge.merging.shares import Share, shards_of

SIZES = {"BF16": 2, "F8_E4M3": 1, "F32": 4}
Tensors = Iterator[tuple[str, str, tuple[int, ...]]]


@dataclass(frozen=True)
class Model:
    """A published model: its configuration, and tensors as (name, type, shape)."""

    name: str
    config: dict[str, object]
    tensors: Sequence[tuple[str, str, tuple[int, ...]]]


def llama_70b() -> Model:
    """Llama 3 70B: dense, bfloat16."""
    hidden, inner, layers, keys = 8192, 28672, 80, 1024

    def tensors() -> Tensors:
        yield "model.embed_tokens.weight", "BF16", (128256, hidden)
        for layer in range(layers):
            at = f"model.layers.{layer}."
            for part, shape in {
                "self_attn.q_proj": (hidden, hidden),
                "self_attn.k_proj": (keys, hidden),
                "self_attn.v_proj": (keys, hidden),
                "self_attn.o_proj": (hidden, hidden),
                "mlp.gate_proj": (inner, hidden),
                "mlp.up_proj": (inner, hidden),
                "mlp.down_proj": (hidden, inner),
                "input_layernorm": (hidden,),
                "post_attention_layernorm": (hidden,),
            }.items():
                yield f"{at}{part}.weight", "BF16", shape
        yield "model.norm.weight", "BF16", (hidden,)
        yield "lm_head.weight", "BF16", (128256, hidden)

    config = {"model_type": "llama", "num_hidden_layers": layers, "tie_word_embeddings": False}
    return Model("Llama 3 70B", config, list(tensors()))


def qwen3_235b() -> Model:
    """Qwen3 235B-A22B: 128 experts a layer, bfloat16."""
    hidden, inner, layers, experts = 4096, 1536, 94, 128

    def tensors() -> Tensors:
        yield "model.embed_tokens.weight", "BF16", (151936, hidden)
        for layer in range(layers):
            at = f"model.layers.{layer}."
            for part, shape in {
                "self_attn.q_proj": (8192, hidden),
                "self_attn.k_proj": (512, hidden),
                "self_attn.v_proj": (512, hidden),
                "self_attn.o_proj": (hidden, 8192),
                "self_attn.q_norm": (128,),
                "self_attn.k_norm": (128,),
                "mlp.gate": (experts, hidden),
                "input_layernorm": (hidden,),
                "post_attention_layernorm": (hidden,),
            }.items():
                yield f"{at}{part}.weight", "BF16", shape
            for expert in range(experts):
                yield f"{at}mlp.experts.{expert}.gate_proj.weight", "BF16", (inner, hidden)
                yield f"{at}mlp.experts.{expert}.up_proj.weight", "BF16", (inner, hidden)
                yield f"{at}mlp.experts.{expert}.down_proj.weight", "BF16", (hidden, inner)
        yield "model.norm.weight", "BF16", (hidden,)
        yield "lm_head.weight", "BF16", (151936, hidden)

    config = {"model_type": "qwen3_moe", "num_hidden_layers": layers, "tie_word_embeddings": False}
    return Model("Qwen3 235B-A22B", config, list(tensors()))


def deepseek_v3() -> Model:
    """DeepSeek-V3: 671B without the layer that predicts further tokens; FP8 in blocks of 128 × 128."""
    hidden, layers, dense, experts = 7168, 61, 3, 256

    def scaled(name: str, rows: int, columns: int) -> Tensors:
        yield f"{name}.weight", "F8_E4M3", (rows, columns)
        yield f"{name}.weight_scale_inv", "F32", (-(-rows // 128), -(-columns // 128))

    def mlp(at: str, inner: int) -> Tensors:
        yield from scaled(f"{at}gate_proj", inner, hidden)
        yield from scaled(f"{at}up_proj", inner, hidden)
        yield from scaled(f"{at}down_proj", hidden, inner)

    def tensors() -> Tensors:
        yield "model.embed_tokens.weight", "BF16", (129280, hidden)
        for layer in range(layers):
            at = f"model.layers.{layer}."
            yield from scaled(f"{at}self_attn.q_a_proj", 1536, hidden)
            yield from scaled(f"{at}self_attn.q_b_proj", 24576, 1536)
            yield from scaled(f"{at}self_attn.kv_a_proj_with_mqa", 576, hidden)
            yield from scaled(f"{at}self_attn.kv_b_proj", 32768, 512)
            yield from scaled(f"{at}self_attn.o_proj", hidden, 16384)
            for part, size in {"q_a_layernorm": 1536, "kv_a_layernorm": 512}.items():
                yield f"{at}self_attn.{part}.weight", "BF16", (size,)
            for part in ("input_layernorm", "post_attention_layernorm"):
                yield f"{at}{part}.weight", "BF16", (hidden,)
            if layer < dense:
                yield from mlp(f"{at}mlp.", 18432)
                continue
            yield f"{at}mlp.gate.weight", "BF16", (experts, hidden)
            yield f"{at}mlp.gate.e_score_correction_bias", "F32", (experts,)
            yield from mlp(f"{at}mlp.shared_experts.", 2048)
            for expert in range(experts):
                yield from mlp(f"{at}mlp.experts.{expert}.", 2048)
        yield "model.norm.weight", "BF16", (hidden,)
        yield "lm_head.weight", "BF16", (129280, hidden)

    quantised = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    config = {"model_type": "deepseek_v3", "num_hidden_layers": layers, "quantization_config": quantised}
    return Model("DeepSeek-V3 671B, FP8", config, list(tensors()))


def write_sparse(model: Model, folder: Path, mark: int, shard: int = 5 * 10**9) -> None:
    """A directory of the model whose weights are holes; ``mark`` begins each shard's data, and one more the head."""
    folder.mkdir(parents=True)
    groups: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
    held = 0
    for tensor in model.tensors:
        nbytes = SIZES[tensor[1]] * prod(tensor[2])
        if groups[-1] and held + nbytes > shard:
            groups.append([])
            held = 0
        groups[-1].append(tensor)
        held += nbytes
    placed: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        header, at = {}, 0
        for tensor, dtype, shape in group:
            end = at + SIZES[dtype] * prod(shape)
            header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
            placed[tensor], at = name, end
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text + bytes([mark]))
            if "lm_head.weight" in header:
                file.seek(8 + len(text) + header["lm_head.weight"]["data_offsets"][0])
                file.write(bytes([mark + 1]))
            file.truncate(8 + len(text) + at)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    (folder / "config.json").write_text(json.dumps(model.config))


def duration(seconds: float) -> str:
    """Hours and minutes."""
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def lines(model: Model, methods: Sequence[str], bandwidth: float, workers: int, memory: str) -> Iterator[list[str]]:
    """For each method: bytes over the link, hours of one worker and of all, memory of each."""
    work = SCRATCH / "scale"
    shutil.rmtree(work, ignore_errors=True)
    try:
        for mark, name in enumerate(("base", "a", "b", "c"), 1):
            write_sparse(model, work / name, mark)
        for method in methods:
            asked = {
                "merge_method": method,
                "base_model": str(work / "base"),
                "models": [{"model": str(work / name)} for name in "abc"],
                "dtype": "bfloat16",
            }
            start = time.process_time()
            plan = rlmerge.plan(asked, memory=memory)
            took = time.process_time() - start
            costs = [
                sum(
                    s.nbytes
                    for shard in shards_of(plan, Share(workers, k))
                    for j in plan.jobs_of(shard)
                    for s in j.inputs
                )
                for k in range(1, workers + 1)
            ]
            share = max(costs) / sum(costs)
            yield [
                f"{model.name}, {method}",
                f"{plan.bytes_remote / 1e9:,.0f}",
                f"{plan.bytes_written / 1e9:,.0f}",
                duration(max(plan.bytes_remote, plan.bytes_written) / bandwidth),
                duration(max(plan.bytes_remote * share, plan.bytes_written / workers) / bandwidth),
                f"{plan.peak_memory / 2**20:,.0f}",
                f"{took:.1f}",
            ]
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", type=float, default=1.25e9, help="bytes a second of one worker's link")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "ties"])
    parser.add_argument("--models", nargs="+", default=["llama", "qwen3", "deepseek"])
    parser.add_argument("--record", action="store_true", help="append the results to bench/RESULTS.md")
    asked = parser.parse_args()
    known = {"llama": llama_70b, "qwen3": qwen3_235b, "deepseek": deepseek_v3}
    # Planned as if every file lay in a store: what is read takes memory, and comes over the link.
    InputFile.is_remote = property(lambda self: True)  # type: ignore[assignment]
    found: list[list[str]] = []
    for name in asked.models:
        found += lines(known[name](), asked.methods, asked.bandwidth, asked.workers, asked.memory)
    header = ["base and 3 experts", "GB down", "GB up", "1 worker", f"{asked.workers} workers",
              "MiB a worker", "CPU s to plan"]  # fmt: skip
    link = f"A link of {asked.bandwidth / 1e9:g} GB/s in each direction for each worker"
    intro = f"{link}; --memory {asked.memory}. Up is what `-o s3://…` sends.\n\n"
    report("Plans of large merges", intro + table(header, found), asked.record)


if __name__ == "__main__":
    main()
