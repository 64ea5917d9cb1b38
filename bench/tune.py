"""Search the recipe of the shipped experts beside the laboratory's own plan of tuning, which has twice the trials.

    python bench/tune.py --trials 12 --seeds 5
    python bench/tune.py --lab LAB

The laboratory tunes each method by a plan written by hand, the scale of the merged change and the method's density, one
of each for all experts; its answer is the best on dev of `--methods`, `--trials` each. `rlmerge tune` gets half of all
these trials, for the method, its coefficient and density and a weight of each expert, and scores eight coefficients of
task arithmetic beside them. Both choose on the same items of `data/dev.jsonl` and are scored on `data/test.jsonl`,
which chose nothing.

With ``--lab`` the experts are the reinforced ones of every training seed of a laboratory that was trained (`rlmerge lab
train -o LAB --profile characters`), each searched once, and the mean difference has its interval over these.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
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
from rlmerge.search.request import default_recipe
from rlmerge.student import quantile
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
    """The experts of one way of training, one for each of ``tasks``, and the items they are merged for."""

    name: str
    base: Path
    experts: tuple[Path, ...]
    tasks: tuple[str, ...]
    data: Path
    limit: int | None

    @property
    def splits(self) -> Evaluations:
        dev, test = (self.data / f"{split}.jsonl" for split in ("dev", "test"))
        return Evaluations(Evaluation.of(dev, self.limit), Evaluation.of(test, None))

    def case(self) -> Case:
        """The experts as the laboratory merges them."""
        models = [load(path) for path in (self.base, *self.experts)]

        def reference(evaluation: Evaluation) -> Reference:
            base, *experts = (evaluation.passes(model, self.base, self.tasks)[0] for model in models)
            return Reference(base, {task: own[task] for task, own in zip(self.tasks, experts, strict=True)})

        base, *experts = (Model(path, path.name) for path in (self.base, *self.experts))
        splits = self.splits
        sides = reference(splits.dev), reference(splits.test)
        return Case(0, self.name, "all", self.tasks, base, tuple(experts), splits, *sides)

    def probabilities(self, model: TinyLlama) -> np.ndarray:
        """Of a correct sample, for each test item of each task [T, N]."""
        found = score(model, self.splits.test.items(self.tasks), _vocabulary(self.base))
        return np.stack([found.on(task).probability for task in self.tasks])


def shipped(names: Sequence[str], limit: int) -> list[Arm]:
    """The experts of the examples, by the way they were trained."""
    return [
        Arm(name, MODELS / "base", tuple(MODELS / f"{name}-{t}" for t in TASKS), TASKS, MODELS / "data", limit)
        for name in names
    ]


def trained(lab: Path, limit: int) -> list[Arm]:
    """The reinforced experts of every training seed of a laboratory."""
    tasks = tuple(json.loads((lab / "lab.json").read_text())["profile"]["tasks"])
    return [
        Arm(seed.name, seed / "base", tuple(seed / "rl" / task for task in tasks), tasks, lab / "data", limit)
        for seed in sorted(lab.glob("seed-*"))
    ]


@lru_cache
def _vocabulary(base: Path) -> dict[str, int]:
    return read_vocabulary(base)


def planned(arm: Arm, case: Case, methods: list[str], trials: int) -> Found:
    """The best on dev of what the laboratory finds for each method."""
    started = time.process_time()
    found: list[tuple[float, Any, dict[str, Any]]] = []
    for candidate in candidates(methods, len(arm.tasks), measured=False)[0]:
        rows = MergeJob(case, candidate, trials).run()["rows"]
        (row,) = (row for row in rows if row["rule"] == "tuned")
        found.append((row["dev"], candidate, row["parameters"]))
    seconds = time.process_time() - started
    dev, candidate, parameters = max(found, key=lambda each: each[0])
    family = case.family
    model = family.model(family.stored(merge_of(case, candidate, parameters)))
    values = ", ".join(f"{name} {value:.2f}" for name, value in parameters.items())
    return Found(dev, arm.probabilities(model), seconds, f"{candidate.label} {values}")


def searched(arm: Arm, work: Path, methods: list[str], trials: int, seed: int) -> Found:
    """The winner of a search of the space that one without a file has."""
    data = arm.data / "dev.jsonl"
    search = {
        **default_recipe(str(arm.base), [str(path) for path in arm.experts], methods),
        "tune": {
            "tasks": [f"exact:{data}:{task}" for task in arm.tasks],
            "own": {path.name: [task] for path, task in zip(arm.experts, arm.tasks, strict=True)},
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
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--lab", type=Path, metavar="DIR", help="experts of a laboratory, instead of the shipped ones")
    parser.add_argument("--limit", type=int, default=200, help="dev items of each task")
    common_arguments(parser)
    arguments = parser.parse_args()
    plan = arguments.trials * len(arguments.methods)
    rows: list[list[str]] = []
    means: list[str] = []
    every: list[float] = []
    arms = trained(arguments.lab, arguments.limit) if arguments.lab else shipped(arguments.arms, arguments.limit)
    with workspace("tune", arguments.keep) as work:
        for number, arm in enumerate(arms):
            case = arm.case()
            gain = sum(case.test.expert[task] - case.test.base[task] for task in arm.tasks)
            base = sum(case.test.base[task] for task in arm.tasks)
            first = planned(arm, case, arguments.methods, arguments.trials)

            def kept(found: Found, base: float = base, gain: float = gain) -> float:
                return float((found.test.mean(axis=1).sum() - base) / gain)

            rows.append(
                [f"{arm.name}, plan: {first.recipe}", f"{first.dev:.3f}", f"{kept(first):.3f}", "", _cpu(first)]
            )
            differences: list[np.ndarray] = []
            for seed in [number] if arguments.lab else range(arguments.seeds):
                found = searched(arm, work, arguments.methods, plan // 2, seed)
                difference = (found.test - first.test) / gain
                label = f"{arm.name}, search {seed}: {found.recipe}"
                told = _interval(difference)
                rows.append([label, f"{found.dev:.3f}", f"{kept(found):.3f}", told, _cpu(found)])
                print(" | ".join(rows[-1]), flush=True)
                differences.append(difference)
                every.append(float(difference.mean(axis=1).sum()))
            means.append(f"{arm.name} {_interval(np.mean(differences, axis=0))}")
    if arguments.lab:
        mean, half = (
            statistics.mean(every),
            quantile(0.975, len(every) - 1) * statistics.stdev(every) / len(every) ** 0.5,
        )
        means = [f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}] (95 %, Student's t over the training seeds)"]
    wins = sum(each >= 0 for each in every)
    header = ["experts, and what was chosen", "dev", "test", "more than the plan on test", "CPU s"]
    body = (
        f"Gain kept, {len(arms[0].tasks)} experts of one base and training seed each. The plan has "
        f"{plan} trials, {arguments.trials} of each method ({', '.join(arguments.methods)}), every one on all "
        f"dev items, at most {arguments.limit} of a task; a search has {plan // 2}, stopped early or not, in the space "
        f"that `rlmerge tune` has by default, and the {BASELINE} recipes of its baseline. Intervals in the table are "
        "95 % over the test items, the same ones drawn for both.\n\n"
        f"{table(header, rows)}\n\n"
        f"At least as good as the plan on test: {wins} of {len(every)} searches. Mean difference over the searches: "
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
