"""Calibrate the shipped experts, and say what the recipes keep before and after, and how far from the experts they are.

    python bench/calibrate.py --methods task_arithmetic covariance

Prompts are those of `data/dev.jsonl`, scores exact on `data/test.jsonl`, which chose nothing. Needs the extra `torch`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from _measure import BENCH, RLMERGE, common_arguments, measure, report, table, workspace

MODELS = BENCH.parent / "examples" / "checkpoints"
TASKS = ("rev", "cnt", "shift")
PROGRAM = ["env", "OMP_NUM_THREADS=1", RLMERGE]
"""One thread: the models are too small to share, and a second one would spend its time waiting."""

GROUPINGS = {"one group": ["--layer-groups", "0"], "runs of layers": [], "and module types": ["--kinds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "covariance"], metavar="NAME")
    parser.add_argument("--limit", type=int, help="only the first items of each task")
    common_arguments(parser)
    arguments = parser.parse_args()
    rows: list[list[str]] = []
    with workspace("calibrate", arguments.keep) as work:
        made: dict[str, tuple[Path, list[str]]] = {}
        for method in arguments.methods:
            recipe = work / f"{method}.yaml"
            models = [{"model": str(MODELS / f"rl-{task}")} for task in TASKS]
            recipe.write_text(
                json.dumps({"merge_method": method, "base_model": str(MODELS / "base"), "models": models})
            )
            for label, options in GROUPINGS.items():
                name = f"{method}, {label}"
                out = work / f"{len(made)}.yaml"
                before, after = _calibrate(recipe, out, options)
                made[name] = out, [after[0], after[1], after[2]]
                made.setdefault(f"{method}, as given", (recipe, [before[0], before[1], "–"]))
        kept = _score({name: path for name, (path, _) in made.items()}, work, arguments.limit)
        rows = [[name, kept[name], *figures] for name, (_, figures) in made.items()]
    header = ["recipe", "gain kept, test items", "KL fitted on", "KL held out", "CPU s"]
    body = (
        "Three RL experts of one base, 0.6 M parameters, 64 prompts each and 16 held out; KL(expert ‖ merged) summed "
        f"over experts, nats a token.\n\n{table(header, sorted(rows))}"
    )
    report("Calibration of the shipped experts", body, arguments.record)


def _calibrate(recipe: Path, out: Path, options: list[str]) -> tuple[list[str], list[str]]:
    """Divergences fitted on and held out, and CPU seconds, as given and calibrated."""
    prompts = [f"rl-{task}={MODELS / 'data' / 'dev.jsonl'}:{task}" for task in TASKS]
    command = [*PROGRAM, "calibrate", str(recipe), "-o", str(out), "--prompts", *prompts, *options]
    run = measure([*command, "--batch-size", "64", "--max-new-tokens", "12", "--quiet", "--format", "json"])
    result = json.loads(run.output)
    cells: list[list[str]] = []
    for stage in ("given", "calibrated"):
        held_out = sum(row["held_out"][stage] for row in result["divergences"])
        cells.append([f"{result['objective'][stage]:.4f}", f"{held_out:.4f}", f"{run.cpu:.0f}"])
    return cells[0], cells[1]


def _score(recipes: dict[str, Path], work: Path, limit: int | None) -> dict[str, str]:
    """The share of the experts' gain that the merge of each recipe keeps, with its interval."""
    folders: dict[str, str] = {}
    for number, (name, recipe) in enumerate(recipes.items()):
        folders[f"merge-{number}"] = name
        measure([*PROGRAM, "merge", str(recipe), "-o", str(work / f"merge-{number}"), "--quiet", "--no-cache"])
    command = [*PROGRAM, "eval", *(str(work / folder) for folder in folders), "--base", str(MODELS / "base")]
    command += ["--experts", *(str(MODELS / f"rl-{task}") for task in TASKS), "--store", str(work / "store")]
    command += ["--tasks", f"exact:{MODELS / 'data' / 'test.jsonl'}", "--quiet", "--format", "json"]
    command += ["--limit", str(limit)] if limit else []
    found = json.loads(measure(command).output)
    kept = {folders[merge["model"]]: merge["gain_kept"] for merge in found["merges"]}
    return {name: f"{x['value']:.1%} [{x['low']:.1%}, {x['high']:.1%}]" for name, x in kept.items()}


if __name__ == "__main__":
    main()
