"""Merge models by FusionBench, as a program in its own environment: METHOD BASE EXPERT... OUT, in float32.

Its models are loaded from their directories one after the other, as its own pool of language models does.
"""

from __future__ import annotations

import sys

import torch
from fusion_bench.method import ISO_C_Merge, TaskSingularVectorMerging, WUDIMerging
from fusion_bench.modelpool import CausalLMPool

METHODS = {
    "tsv": lambda: TaskSingularVectorMerging(alpha=1.0),
    "iso_c": lambda: ISO_C_Merge(scaling_factor=1.0),
    "wudi": lambda: WUDIMerging(iter_num=300),
}


def main() -> None:
    method, base, *experts, out = sys.argv[1:]
    models = {"_pretrained_": base, **{f"expert_{index}": path for index, path in enumerate(experts)}}
    pool = CausalLMPool(models, tokenizer=None, model_kwargs={"torch_dtype": "float32"})
    merged = METHODS[method]().run(pool)
    merged.to(torch.float32).save_pretrained(out)


if __name__ == "__main__":
    main()
