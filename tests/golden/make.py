"""The merges whose bytes are kept as digests, and the digests of what this checkout makes of them.

``python tests/golden/make.py`` prints the digests as JSON. A changed digest is a changed arithmetic: it is made on
purpose, named in CHANGELOG.md, and comes with a new ``rlmerge.kernels.ARITHMETIC``.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import rlmerge
from rlmerge import methods
from rlmerge.checkpoint import open_checkpoint
from support.measured import write_measured

CHECKPOINTS = Path(__file__).parents[2] / "examples" / "checkpoints"
DIGESTS = Path(__file__).with_name("digests.json")
SETS = {
    "rl": ("rl-rev", "rl-cnt", "rl-shift"),
    "rl-bf16": ("rl-bf16-rev", "rl-bf16-cnt", "rl-bf16-shift"),
}
MEASURED = {"sar_merging": "sensitivity", "scf_rkl": "", "fisher": "sensitivity", "regmean": "gram"}
NEEDED: dict[str, dict[str, Any]] = {
    "nearswap": {"t": 0.001},
    "slerp": {"t": 0.3},
    "sce": {"select_topk": 0.5},
    "covariance": {"rank": 16},
    "wudi": {"steps": 5},
}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "ram": [{"active": "bits"}, {"active": "percentile", "percentile": 80}, {"active": "strict", "r": 0.3}],
    "ties": [{"scope": "global"}, {"rescale": "l1"}, {"normalize": False, "lambda": 0.4, "weight": [0.2, 0.5, 0.9]}],
    "dare_linear": [{"rescale": "l1"}, {"density": 0.2, "normalize": True}],
    "della": [{"rescale": "l1"}, {"density": 0.4, "epsilon": 0.2}],
    "breadcrumbs": [{"density": 0.6, "gamma": 0.02}],
    "linear": [{"normalize": False, "weight": [0.5, 0.2, 0.1]}],
    "task_arithmetic": [{"weight": [0.3, 0.2, 0.7]}, {"lambda": 0.37}],
    "sce": [{"select_topk": 0.1}],
    "covariance": [{"rank": 0}],
    "emr": [{"expert": 2}],
    "nuslerp": [{"nuslerp_flatten": False, "nuslerp_row_wise": True}],
    "regmean": [{"lambda": 1.2, "others": "sum"}],
    "scf_rkl": [{"importance": "element"}],
    "sar_merging": [{"arbitration": "fisher_mean"}, {"rescale": "inverse", "density": 0.3}],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "float32": {"out_dtype": "float32"},
    "stochastic": {"rounding": "stochastic", "seed": 7},
    "float64": {"dtype": "float64", "out_dtype": "float32"},
}


def recipes(measured: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(label, recipe, options) of every merge."""
    for family, experts in SETS.items():
        for name in methods.names():
            if not methods.get(name).bitwise:
                continue  # whose last bits are the BLAS's
            for number, given in enumerate([NEEDED.get(name, {}), *SETTINGS.get(name, [])]):
                for option, chosen in OPTIONS.items():
                    if option and (number or family == "rl"):
                        continue
                    label = "-".join(part for part in (family, name, str(number or ""), option) if part)
                    yield label, _recipe(name, experts, given, measured), chosen


def _recipe(name: str, experts: tuple[str, ...], given: dict[str, Any], measured: Path) -> dict[str, Any]:
    method = methods.get(name)
    count = min(len(experts), method.max_experts or len(experts))
    shared = {key: value for key, value in given.items() if not isinstance(value, list)}
    listed = {key: value for key, value in given.items() if isinstance(value, list)}
    entries: list[dict[str, Any]] = []
    for k, expert in enumerate(experts[:count]):
        entry: dict[str, Any] = {"model": str(CHECKPOINTS / expert)}
        if MEASURED.get(name):
            entry[MEASURED[name]] = str(measured / expert)
        entry["parameters"] = {key: values[k] for key, values in listed.items()}
        entries.append(entry)
    document: dict[str, Any] = {"merge_method": name, "models": entries, "parameters": shared}
    if method.base != "ignored" and name != "passthrough":
        document["base_model"] = str(CHECKPOINTS / "base")
    return document


def write_inputs(folder: Path) -> Path:
    """Sensitivities and Gram matrices of every expert from a fixed generator."""
    for seed, expert in enumerate(name for experts in SETS.values() for name in experts):
        model = open_checkpoint(CHECKPOINTS / expert)
        rng = np.random.default_rng(seed)
        fisher = {
            name: (np.exp(4 * rng.standard_normal(info.shape)) * 1e-9 * (rng.random(info.shape) > 0.1)).astype("f4")
            for name, info in model.tensors.items()
        }
        grams = {}
        for name, info in model.tensors.items():
            if "proj" in name:
                # Whole numbers, whose sums are exact: BLAS adds in an order that depends on the processor.
                inputs = rng.integers(-8, 9, (64, info.shape[1])).astype("f4")
                grams[name] = inputs.T @ inputs
        write_measured(folder / expert, CHECKPOINTS / expert, fisher, grams)
    return folder


def digest(recipe: dict[str, Any], options: dict[str, Any], out: Path) -> str:
    """SHA-256 of the merged weights."""
    rlmerge.merge(recipe, out, cache=False, **options)
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        measured = write_inputs(root / "measured")
        found = {
            label: digest(recipe, options, root / "merged" / label) for label, recipe, options in recipes(measured)
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
