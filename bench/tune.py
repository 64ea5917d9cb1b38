"""Search the recipe of the shipped experts beside the laboratory's own plan of tuning, which has twice the trials.

    python bench/tune.py --trials 12 --seeds 5

The laboratory tunes each method by a plan written by hand, the scale of the merged change and the method's density, one
of each for all experts; its answer is the best on dev of `--methods`, `--trials` each. `rlmerge tune` gets half of all
these trials, for a weight of each expert, the method and the density, and scores eight coefficients of task arithmetic
beside them. Both choose on the same items of `data/dev.jsonl` and are scored on `data/test.jsonl`, which chose nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from _measure import BENCH, RLMERGE, common_arguments, measure, report, table, workspace

from rlmerge.evaluate.exact import score
from rlmerge.evaluate.statistics import percentiles, resampled_means
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import TinyLlama, load
from rlmerge.search.request import DENSITY, WEIGHT
from rlmerge_lab.study.candidates import candidates
from rlmerge_lab.study.cases import Case, Evaluations, Model
from rlmerge_lab.study.scoring import Evaluation, Reference
from rlmerge_lab.study.tuning import MergeJob, merge_of

MODELS = BENCH.parent / "examples" / "checkpoints"
TASKS = ("rev", "cnt", "shift")
ARMS = ("rl", "rl-bf16", "sft-matched")
PROGRAM = ["env", "OMP_NUM_THREADS=1", RLMERGE]
"""One thread: the models are too small to share, and a second one would spend its time waiting."""

BASELINE = 8
"""Coefficients of task arithmetic that a search scores beside its trials."""

RESAMPLES = 2000


@dataclass(frozen=True)
class Found:
    """The recipe that one way of tuning chose: what it keeps on dev, its probabilities [T, N] on the test items."""

    dev: float
    test: np.ndarray
    seconds: float
    recipe: str


@dataclass(frozen=True)
class Arm:
    """The experts of one way of training, and the items they are merged for."""

    name: str
    limit: int | None

    @property
    def experts(self) -> list[Path]:
        return [MODELS / f"{self.name}-{task}" for task in TASKS]

    @property
    def splits(self) -> Evaluations:
        dev, test = (MODELS / "data" / f"{split}.jsonl" for split in ("dev", "test"))
        return Evaluations(Evaluation.of(dev, self.limit), Evaluation.of(test, None))

    def case(self) -> Case:
        """The experts as the laboratory merges them."""
        models = [load(path) for path in (MODELS / "base", *self.experts)]

        def reference(evaluation: Evaluation) -> Reference:
            base, *experts = (evaluation.passes(model, MODELS / "base", TASKS)[0] for model in models)
            return Reference(base, {task: own[task] for task, own in zip(TASKS, experts, strict=True)})

        base, *experts = (Model(path, path.name) for path in (MODELS / "base", *self.experts))
        splits = self.splits
        sides = reference(splits.dev), reference(splits.test)
        return Case(0, self.name, "all", TASKS, base, tuple(experts), splits, *sides)

    def probabilities(self, model: TinyLlama) -> np.ndarray:
        """Of a correct sample, for each test item of each task [T, N]."""
        found = score(model, self.splits.test.items(TASKS), _vocabulary())
        return np.stack([found.on(task).probability for task in TASKS])


@lru_cache
def _vocabulary() -> dict[str, int]:
    return read_vocabulary(MODELS / "base")


def planned(arm: Arm, case: Case, methods: list[str], trials: int) -> Found:
    """The best on dev of what the laboratory finds for each method."""
    started = time.process_time()
    found: list[tuple[float, Any, dict[str, Any]]] = []
    for candidate in candidates(methods, len(TASKS), measured=False)[0]:
        rows = MergeJob(case, candidate, trials).run()["rows"]
        (row,) = (row for row in rows if row["rule"] == "tuned")
        found.append((row["dev"], candidate, row["parameters"]))
    seconds = time.process_time() - started
    dev, candidate, parameters = max(found, key=lambda each: each[0])
    family = case.family
    model = family.model(family.stored(merge_of(case, candidate, parameters)))
    values = ", ".join(f"{name} {value:.2f}" for name, value in parameters.items())
    return Found(dev, arm.probabilities(model), seconds, f"{candidate.label} {values}")


def searched(arm: Arm, work: Path, methods: list[str], trials: int, scales: list[float], seed: int) -> Found:
    """The winner of a search over ``lambda`` from low to high."""
    data = MODELS / "data" / "dev.jsonl"
    scale = {**dict(zip(("low", "high"), scales, strict=True)), "log": True}
    search = {
        "merge_method": {"choices": methods},
        "base_model": str(MODELS / "base"),
        "models": [{"model": str(path), "parameters": {"weight": WEIGHT}} for path in arm.experts],
        "parameters": {"lambda": scale, "density": DENSITY, "normalize": True},
        "tune": {
            "tasks": [f"exact:{data}:{task}" for task in TASKS],
            "own": {path.name: [task] for path, task in zip(arm.experts, TASKS, strict=True)},
            **({"limit": arm.limit} if arm.limit else {}),
        },
    }
    file, out = work / f"{arm.name}-{seed}.yaml", work / f"{arm.name}-{seed}"
    file.write_text(json.dumps(search))
    command = [*PROGRAM, "tune", str(file), "-o", str(out), "--trials", str(trials), "--seed", str(seed), "--merge"]
    run = measure([*command, "--quiet", "--format", "json"])
    result = json.loads(run.output)
    best = "baseline" if result["best"] is None else f"trial {result['best']}"
    return Found(result["finalists"][0]["dev"], arm.probabilities(load(out / "merged")), run.cpu, best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "ties"], metavar="NAME")
    parser.add_argument("--trials", type=int, default=12, help="the laboratory's, of each method")
    parser.add_argument("--seeds", type=int, default=5, help="searches of each set of experts")
    parser.add_argument("--scales", nargs=2, type=float, default=[0.2, 12], metavar=("LOW", "HIGH"), help="of lambda")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--limit", type=int, default=200, help="dev items of each task")
    common_arguments(parser)
    arguments = parser.parse_args()
    plan = arguments.trials * len(arguments.methods)
    rows: list[list[str]] = []
    means: list[str] = []
    wins = searches = 0
    with workspace("tune", arguments.keep) as work:
        for name in arguments.arms:
            arm = Arm(name, arguments.limit)
            case = arm.case()
            gain = sum(case.test.expert[task] - case.test.base[task] for task in TASKS)
            base = sum(case.test.base[task] for task in TASKS)
            first = planned(arm, case, arguments.methods, arguments.trials)

            def kept(found: Found, base: float = base, gain: float = gain) -> float:
                return float((found.test.mean(axis=1).sum() - base) / gain)

            rows.append([f"{name}, plan: {first.recipe}", f"{first.dev:.3f}", f"{kept(first):.3f}", "", _cpu(first)])
            differences: list[np.ndarray] = []
            for seed in range(arguments.seeds):
                found = searched(arm, work, arguments.methods, plan // 2, arguments.scales, seed)
                difference = (found.test - first.test) / gain
                label = f"{name}, search {seed}: {found.recipe}"
                told = _interval(difference)
                rows.append([label, f"{found.dev:.3f}", f"{kept(found):.3f}", told, _cpu(found)])
                print(" | ".join(rows[-1]), flush=True)
                differences.append(difference)
                wins += difference.mean(axis=1).sum() >= 0
                searches += 1
            means.append(f"{name} {_interval(np.mean(differences, axis=0))}")
    header = ["experts, and what was chosen", "dev", "test", "more than the plan on test", "CPU s"]
    body = (
        f"Gain kept, {len(TASKS)} experts of one base and training seed each, 0.6 M parameters. The plan has "
        f"{plan} trials, {arguments.trials} of each method ({', '.join(arguments.methods)}), every one on all "
        f"{arguments.limit} dev items of a task; a search has {plan // 2}, stopped early or not, with lambda from "
        f"{arguments.scales[0]:g} to {arguments.scales[1]:g}, and the {BASELINE} recipes of its baseline. Intervals "
        "are 95 % over the test items, the same ones drawn for both; they say nothing of other experts.\n\n"
        f"{table(header, rows)}\n\n"
        f"At least as good as the plan on test: {wins} of {searches} searches. Mean difference over the searches: "
        f"{'; '.join(means)}."
    )
    report("Searches beside the laboratory's plan", body, arguments.record)


def _interval(difference: np.ndarray) -> str:
    """The sum over tasks of the mean [T, N] over items, with its interval."""
    random = np.random.default_rng(0)
    draws = sum(resampled_means(row[None], RESAMPLES, random)[:, 0] for row in difference)
    found = percentiles(float(difference.mean(axis=1).sum()), np.asarray(draws))
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _cpu(found: Found) -> str:
    return f"{found.seconds:.0f}"


if __name__ == "__main__":
    main()
