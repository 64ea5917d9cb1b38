"""The comparison of docs/acceptance.md as command lines: ``python examples/acceptance.py olmo`` prints a shell script.

``olmo`` and ``ram`` are public experts, for one GPU node with vLLM and lm-evaluation-harness. ``stand-in`` is the same
script over the small checkpoints beside this file, which a laptop runs in a minute or two:

    python examples/acceptance.py stand-in | sh
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"


@dataclass(frozen=True)
class Family:
    """Experts of one base. ``dev`` tasks choose, ``test`` tasks confirm; ``prompts`` are data by expert's short name.

    ``scoring`` are options of ``rlmerge eval`` and, under the same names, of the section ``evaluate`` of a search.
    """

    base: str
    experts: Mapping[str, str]
    prompts: Mapping[str, str]
    dev: Sequence[str]
    test: Sequence[str]
    scoring: Mapping[str, str | int | bool]
    listening: Sequence[str]
    memory: str = "48GB"
    trials: int = 12
    limit: int | None = None


OLMO = Family(
    base="allenai/Olmo-3-1025-7B",
    experts={name: f"allenai/Olmo-3-7B-RL-Zero-{name}" for name in ("Math", "Code", "IF")},
    prompts={name: f"../prompts/{name}.jsonl" for name in ("Math", "Code", "IF")},
    dev=("math500", "mbpp"),
    test=("lm-eval:aime24", "lm-eval:aime25", "humaneval", "ifeval"),
    scoring={
        "backend": "vllm",
        "model_args": "dtype=bfloat16,max_model_len=32768,max_gen_toks=28672",
        "unsafe_code": True,
    },
    listening=("--dtype", "bfloat16", "--max-new-tokens", "1024", "--gradient-checkpointing"),
)

RAM = Family(
    base="Qwen/Qwen2.5-7B-Instruct",
    experts={
        "Coder": "Gen-Verse/ReasonFlux-Coder-7B",
        "ToolRL": "emrecanacikgoz/Qwen2.5-7B-Instruct-ToolRL-grpo-cold",
        "Memory": "BytedTsinghua-SIA/RL-MemoryAgent-7B",
    },
    prompts={name: f"../prompts/{name}.jsonl" for name in ("Coder", "ToolRL", "Memory")},
    dev=("mbpp", "gsm8k"),
    test=("humaneval", "ifeval", "command:tool", "command:memory"),
    scoring={
        "backend": "vllm",
        "model_args": "dtype=bfloat16,max_model_len=32768",
        "unsafe_code": True,
        "command": "./score.sh {model} {tasks}",
    },
    listening=("--dtype", "bfloat16", "--max-new-tokens", "512", "--gradient-checkpointing"),
)

STAND_IN = Family(
    base=str(CHECKPOINTS / "base"),
    experts={task: str(CHECKPOINTS / f"rl-{task}") for task in ("rev", "cnt", "shift")},
    prompts={task: f"{CHECKPOINTS / 'data' / 'dev.jsonl'}:{task}" for task in ("rev", "cnt", "shift")},
    dev=(f"exact:{CHECKPOINTS / 'data' / 'dev.jsonl'}",),
    test=(f"exact:{CHECKPOINTS / 'data' / 'test.jsonl'}",),
    scoring={},
    listening=("--max-new-tokens", "6", "--batch-size", "16"),
    memory="512MiB",
    trials=2,
    limit=5,
)

FAMILIES = {"olmo": OLMO, "ram": RAM, "stand-in": STAND_IN}


def merges(family: Family) -> dict[str, list[str]]:
    """Method and parameters of the recipes that no data chose, by the name of their output."""
    mean = f"lambda={1 / len(family.experts):.4g}"
    return {
        "mean": ["task_arithmetic", "-p", mean],
        "ta-0.75": ["task_arithmetic", "-p", "lambda=0.75"],
        "ta-1": ["task_arithmetic"],
        "ties": ["ties", "-p", "density=0.2"],
        "ram-plus": ["ram_plus"],
        "iso-c": ["iso_c"],
        "tsv": ["tsv"],
        "actmat": ["actmat"],
        "covariance": ["covariance"],
    }


def recipe(family: Family, method: str, parameters: Mapping[str, object], section: Mapping[str, object]) -> str:
    """A recipe, or with a section ``tune`` a search, as YAML."""
    models = [{"model": expert} for expert in family.experts.values()]
    document = {"merge_method": method, "base_model": family.base, "models": models, "parameters": parameters}
    given = {name: value for name, value in {**document, **section}.items() if value}
    return yaml.safe_dump(given, sort_keys=False, default_flow_style=None, width=110).rstrip()


def files(family: Family) -> dict[str, str]:
    """Recipes to calibrate and searches to run, by file name."""
    tune = {
        "tasks": list(family.dev),
        "test": list(family.test),
        "trials": family.trials,
        "limit": family.limit,
        "test_limit": family.limit,
        "evaluate": dict(family.scoring),
    }
    search = {"tune": {name: value for name, value in tune.items() if value}}
    found: dict[str, str] = {}
    for name, method in (("ta", "task_arithmetic"), ("cov", "covariance")):
        found[f"{name}.yaml"] = recipe(family, method, {}, {})
        found[f"{name}-search.yaml"] = recipe(family, method, {"lambda": {"low": 0.2, "high": 1.5}}, search)
    return found


def commands(family: Family) -> list[list[str]]:
    """Arguments of ``rlmerge``, in their order, for the directory that holds ``files``."""
    experts = list(family.experts.values())
    models = ["--base", family.base, *experts]
    found = [["inspect", *models, "-o", "inspect.html"]]
    models += ["--memory", family.memory]
    found += [["merge", "--method", *words, *models, "-o", name] for name, words in merges(family).items()]
    for name, expert in family.experts.items():
        measured = ["--data", family.prompts[name], "--mode", "true", "--sequences", "64", "--gram", "--stream-layers"]
        listening = [word for word in family.listening if word != "--gradient-checkpointing"]
        found.append(["sensitivity", "--model", expert, *measured, *listening, "-o", f"gram-{name}"])
    grams = ",".join(f"gram-{name}" for name in family.experts)
    found.append(["merge", "--method", "regmean", "-p", f"gram={grams}", *models, "-o", "regmean"])
    prompts = [f"{Path(expert).name}={family.prompts[name]}" for name, expert in family.experts.items()]
    for name in ("ta", "cov"):
        found.append(["tune", f"{name}-search.yaml", "-o", f"{name}-search", "--merge", "--memory", family.memory])
        calibrated = f"{name}-calibrated"
        found.append(
            [
                "calibrate",
                f"{name}.yaml",
                "--prompts",
                *prompts,
                "--kinds",
                *family.listening,
                "-o",
                f"{calibrated}.yaml",
            ]
        )
        found.append(["merge", f"{calibrated}.yaml", "--memory", family.memory, "-o", calibrated])
    merged = [*merges(family), "regmean", *(f"{name}-{how}" for name in ("ta", "cov") for how in ("calibrated",))]
    merged += ["ta-search/merged", "cov-search/merged"]
    scoring = [word for name, value in family.scoring.items() for word in _option(name, value)]
    scoring += ["--limit", str(family.limit)] if family.limit else []
    tasks = ["--base", family.base, "--experts", *experts, "--tasks", *family.test]
    found.append(["eval", *merged, *tasks, *scoring, "-o", "report.html", "--json", "report.json"])
    return found


def script(family: Family) -> str:
    """Everything as a shell script."""
    lines = ["set -e", "mkdir -p acceptance", "cd acceptance"]
    for name, text in files(family).items():
        lines += [f"cat > {name} <<'END'", text, "END"]
    lines += [shlex.join(["rlmerge", *words]) for words in commands(family)]
    return "\n".join(lines) + "\n"


def _option(name: str, value: str | int | bool) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is True else [flag, str(value)]


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) == 2 else ""
    if chosen not in FAMILIES:
        sys.exit(f"usage: python examples/acceptance.py {' | '.join(FAMILIES)}")
    print(script(FAMILIES[chosen]), end="")
