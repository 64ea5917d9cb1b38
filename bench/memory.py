"""Merge a checkpoint holding a 128256 × 8192 bfloat16 embedding, two experts, under a memory budget.

    python bench/memory.py --memory 512MB

Reads 6.3 GB and prints the peak of anonymous memory beside the budget; the tensor alone is 2.1 GB in each model.
"""

from __future__ import annotations

import argparse
import json
import shutil

from _measure import RLMERGE, common_arguments, measure, report, table, workspace
from generate import Spec, generate, quantity

INTERPRETER = 200e6
"""What Python, NumPy and the compiler may hold beside the budget, in bytes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="512MB")
    parser.add_argument("--rows", type=quantity, default=128256, help="rows of the embedding (default 128256)")
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "ties", "ram"], metavar="NAME")
    common_arguments(parser)
    arguments = parser.parse_args()
    shapes = {"model.embed_tokens.weight": (arguments.rows, 8192), "model.norm.weight": (8192,)}
    config = {"model_type": "llama", "hidden_size": 8192, "vocab_size": arguments.rows, "tie_word_embeddings": True}
    rows: list[list[str]] = []
    with workspace("memory", arguments.keep) as work:
        models = [str(path) for path in generate(work / "models", shapes, config, Spec(experts=2))]
        for method in arguments.methods:
            request = [RLMERGE, "merge", "--method", method, "--base", *models, "-o", str(work / "out")]
            run = measure([*request, "--memory", arguments.memory, "--no-cache", "--quiet", "--format", "json"])
            result = json.loads(run.output)
            moved = f"{result['bytes_read'] / 1e9:.2f} / {result['bytes_written'] / 1e9:.2f}"
            rows.append(
                [method, moved, f"{run.peak / 1e6:.0f}", f"{result['peak_memory'] / 1e6:.0f}", f"{run.wall:.1f}"]
            )
            shutil.rmtree(work / "out")
    header = ["method", "GB read / written", "peak MB, sampled", "peak MB, as reported", "wall s"]
    body = (
        f"Budget {arguments.memory}, to which the interpreter may add {INTERPRETER / 1e6:.0f} MB; K = 2, "
        f"embedding {arguments.rows} × 8192 in bfloat16.\n\n{table(header, rows)}"
    )
    report("Memory under a budget", body, arguments.record)


if __name__ == "__main__":
    main()
