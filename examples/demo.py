"""Merge real RL experts in several ways, verify and score every result: ``make demo``, or ``python examples/demo.py``.

Needs nothing but rlmerge; the models and questions are in examples/checkpoints, results go to .demo.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from scoreboard import BASE, MODELS, OTHERS, TASKS, Judge, answers, scores, stored

import rlmerge

OUT = Path(__file__).resolve().parents[1] / ".demo"
COEFFICIENTS = (0.5, 0.75, 1.0, 1.25, 1.5)
WIDTH = 120

SCORES_TEXT = """\
Each rl-* expert was trained on one task. Beside a score on rev, cnt and shift stands the share of that task's \
expert's gain over the base that the model keeps: (merged − base) / (expert − base); "gain kept" is their mean with \
a 95 % interval over the questions, not over training runs. add and sort belong to no expert and show what a merge \
costs elsewhere. λ = {best:g} was chosen among {tried} on the dev questions; no other row was tuned, so the rows do \
not rank methods. "survived" counts the experts' changes that still differ from the base in the stored file; ties \
and dare_ties drop some on purpose. s and MB are the seconds a merge took and the peak of the process's anonymous \
memory.
"""
STORED_TEXT = """\
rl-* experts were trained with float32 weights and stored in bf16, rl-bf16-* with bf16 weights. Where a third of a \
change is less than half a bf16 step, rounding to nearest takes it back, and the file holds a smaller coefficient \
than the recipe asked for (both are measured where only one expert changed a weight); stochastic rounding holds it \
on average, float32 exactly. "erased by rounding" counts changes that the formula kept and storing lost.
"""


@dataclass(frozen=True)
class Row:
    """One merge: what to call it, its method and parameters, and how to store it."""

    label: str
    method: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, experts: Sequence[Path]) -> dict[str, Any]:
        """The recipe as a mapping, in mergekit's words."""
        base = {} if self.method == "linear" else {"base_model": str(BASE)}
        models = [{"model": str(path)} for path in experts]
        return {"merge_method": self.method, **base, "models": models, "parameters": dict(self.parameters)}

    def run(self, experts: Sequence[Path], name: str) -> rlmerge.MergeResult:
        """Merge into .demo/NAME and check the directory against its manifest."""
        result = rlmerge.merge(self.recipe(experts), OUT / name, **self.options)
        checked = rlmerge.verify(result.out)
        if not checked.ok:
            raise SystemExit(f"{result.out} is not what its manifest says: {checked.problems}")
        return result


def task_arithmetic(label: str, coefficient: float, **options: Any) -> Row:
    """base + λ Σ (expert − base)."""
    return Row(label, "task_arithmetic", {"lambda": coefficient}, options)


def tune(experts: Sequence[Path]) -> float:
    """The λ whose merge scores best on the dev questions of the experts' tasks."""
    judge = Judge("dev.jsonl", TASKS)
    outs = {value: task_arithmetic("", value).run(experts, f"tune-{value:g}").out for value in COEFFICIENTS}
    judge.read(outs.values())
    return max(outs, key=lambda value: judge(outs[value]).probability.mean())


def main() -> None:
    start = time.perf_counter()
    console = Console(width=WIDTH, highlight=False)
    shutil.rmtree(OUT, ignore_errors=True)
    experts = [MODELS / f"rl-{task}" for task in TASKS]
    small = [MODELS / f"rl-bf16-{task}" for task in TASKS]

    plan = rlmerge.plan(Row("", "ram").recipe(experts)).to_dict()
    read, written, memory = (plan[key] / 1e6 for key in ("bytes_read", "bytes_written", "peak_memory"))
    console.print(
        f"Plan of one merge: {plan['merged_tensors']} tensors of {1 + len(experts)} models, {read:.1f} MB to read, "
        f"{written:.1f} MB to write, at most {memory:.0f} MB of memory for tiles."
    )
    best = tune(experts)
    tuned = f"task_arithmetic, λ = {best:g}, tuned"
    rows = (
        Row("linear (average)", "linear"),
        task_arithmetic("task_arithmetic, λ = 1/3", 1 / 3),
        task_arithmetic(tuned, best),
        Row("ties, density 0.2", "ties", {"density": 0.2}),
        Row("dare_ties, density 0.5", "dare_ties", {"density": 0.5}),
        Row("ram", "ram"),
        Row("ram_plus", "ram_plus"),
    )
    ways = {
        "bf16, nearest": task_arithmetic("", 1 / 3),
        "bf16, stochastic": task_arithmetic("", 1 / 3, rounding="stochastic"),
        "float32": task_arithmetic("", 1 / 3, out_dtype="float32"),
    }
    merges = {row.label: row.run(experts, f"rl-{index}") for index, row in enumerate(rows)}
    stores = {
        f"{kind}, λ = 1/3, {way}": (models, row.run(models, f"{kind}-{way}"))
        for kind, models in (("rl", experts), ("rl-bf16", small))
        for way, row in ways.items()
    }
    console.print(f"Merged and verified {len(COEFFICIENTS) + len(merges) + len(stores)} times; scoring ...\n")

    judge = Judge("test.jsonl", (*TASKS, *OTHERS))
    results = (*merges.values(), *(result for _, result in stores.values()))
    judge.read((BASE, *experts, *small, *(result.out for result in results)))
    console.print(scores(judge, experts, merges))
    console.print(SCORES_TEXT.format(best=best, tried=", ".join(f"{value:g}" for value in COEFFICIENTS)))
    console.print(stored(judge, stores))
    console.print(STORED_TEXT)
    console.print(answers(judge, experts, "tuned merge", merges[tuned].out))
    console.print(f"\n{time.perf_counter() - start:.0f} s in all; the merged models are in {OUT}")


if __name__ == "__main__":
    main()
