"""Every switch of sar_merging and scf_rkl on real RL experts, one at a time: ``python examples/ablation.py [--quick]``.

Both methods are reconstructions: their papers leave most of these choices open. With torch installed (``pip install
'rlmerge[torch]'``) sensitivities are measured first; without it the rows that need them are left out. Results go to
.ablation.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scoreboard import BASE, MODELS, TASKS, Judge, survived

import rlmerge
from rlmerge.language.tiny import load

OUT = Path(__file__).resolve().parents[1] / ".ablation"
EXPERTS = [MODELS / f"rl-{task}" for task in TASKS]
COEFFICIENTS = (0.1, 0.2, 0.33, 0.5, 0.75, 1.0, 1.25)
WIDTH = 136

TEXT = """\
One switch of each method is turned at a time; everything else stays at its default. "gain kept" is the mean share of \
the experts' gains on their own tasks that the merge keeps, with a 95 % interval over the questions, not over training \
runs; intervals that overlap do not rank rows. Nothing was tuned. "norm" is ‖W − W₀‖ / ‖W₀‖, and "same norm" what \
plain task arithmetic of that norm keeps (interpolated between λ = {low:g} and {high:g}): how far an update reaches \
decides most of what is kept, so compare these two columns. A reconstruction says nothing about the published method.
"""


@dataclass(frozen=True)
class Row:
    """One merge: the method, what is changed from its defaults, and which measurement it reads, if any."""

    method: str
    label: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    measured: str | None = None

    def recipe(self) -> dict[str, Any]:
        """The recipe as a mapping, with the directories of its measurement."""
        key = "gram" if self.method == "regmean" else "sensitivity"
        models = [
            {"model": str(expert)} | ({key: str(directory(self.measured, task))} if self.measured else {})
            for expert, task in zip(EXPERTS, TASKS, strict=True)
        ]
        parameters = dict(self.parameters)
        return {"merge_method": self.method, "base_model": str(BASE), "models": models, "parameters": parameters}

    def run(self, name: str) -> rlmerge.MergeResult:
        """Merge into .ablation/NAME."""
        return rlmerge.merge(self.recipe(), OUT / name, cache=False)


def directory(measured: str, task: str) -> Path:
    """Where the sensitivity of one task's expert (or of the base on that task) is written."""
    return OUT / f"fisher-{measured}-{task}"


def sar_rows() -> Iterable[Row]:
    """Every switch of sar_merging."""

    def row(label: str, measured: str | None = "empirical", **parameters: Any) -> Row:
        return Row("sar_merging", label, parameters, measured)

    yield row("defaults, references")
    yield row("own samples (true Fisher)", "true")
    yield row("references, Fisher of the base", "base", measured_on="base")
    yield row("no sensitivities", None)
    for value in ("fisher_mean", "winner_on_sign_conflict"):
        yield row(f"arbitration {value}", arbitration=value)
    for value in ("fisher", "fisher_tau"):
        yield row(f"score {value}", score=value)
    yield row("normalize false", normalize=False)
    yield row("active bits", active="bits")
    for value in (0.2, 0.5, 1.0):
        yield row(f"density {value:g}", density=value)
    for value in ("l2", "inverse", "none"):
        yield row(f"rescale {value}", rescale=value)
    yield row("lambda 0.5", **{"lambda": 0.5})


def scf_rows() -> Iterable[Row]:
    """Every switch of scf_rkl."""

    def row(label: str, measured: str | None = None, **parameters: Any) -> Row:
        return Row("scf_rkl", label, parameters, measured)

    yield row("defaults")
    for value in (0.3, 0.6, 1.0):
        yield row(f"rho {value:g}", rho=value)
    yield row("importance element", importance="element")
    yield row("importance fisher", "empirical", importance="fisher")
    yield row("direction forward, exact", direction="forward", divergence="exact")
    yield row("divergence exact", divergence="exact")
    yield row("order argmax", order="argmax")
    yield row("order argmax, rho 0.3", order="argmax", rho=0.3)


def other_rows() -> Iterable[Row]:
    """Merges with measured inputs that the papers do fix."""
    yield Row("fisher", "", {}, "empirical")
    yield Row("regmean", "", {}, "empirical")


def measure(console: Console, sequences: int) -> bool:
    """Measure what the rows read, from dev questions of each expert's own task; False without torch."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        console.print("torch is not installed, so rows that need sensitivities are left out.")
        return False
    from rlmerge import sensitivity
    from rlmerge.sensitivity.options import SensitivityOptions

    questions = (MODELS / "data" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    for expert, task in zip(EXPERTS, TASKS, strict=True):
        data = OUT / f"{task}.jsonl"
        data.write_text("\n".join(line for line in questions if f'"task": "{task}"' in line), encoding="utf-8")
        for name, model, more in (
            ("empirical", expert, {"gram": True}),
            ("true", expert, {"mode": "true", "max_new_tokens": 8}),
            ("base", BASE, {}),
        ):
            options = SensitivityOptions(sequences=sequences, batch_size=16, device="cpu", **more)
            sensitivity.measure(model, str(data), directory(name, task), options)
    return True


def norm(model: Path) -> float:
    """‖W − W₀‖ / ‖W₀‖ over all weights."""
    old, new = load(BASE).weights, load(model).weights
    moved = sum(float(((new[name] - weight) ** 2).sum()) for name, weight in old.items())
    return float(np.sqrt(moved / sum(float((weight**2).sum()) for weight in old.values())))


def table(judge: Judge, rows: Sequence[Row], results: Sequence[rlmerge.MergeResult], line: np.ndarray) -> Table:
    """One line a merge; ``line`` holds norms and mean gains kept of plain task arithmetic [2, N]."""
    title = "sar_merging and scf_rkl, one switch at a time"
    found = Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("method", "switch"):
        found.add_column(name, no_wrap=True)
    for name in (*TASKS, "gain kept", "norm", "same norm", "survived"):
        found.add_column(name, justify="right", no_wrap=True)
    for index, (row, result) in enumerate(zip(rows, results, strict=True)):
        size = norm(result.out)
        inside = line[0, 0] <= size <= line[0, -1]
        found.add_row(
            f"{row.method} ({result.status})",
            row.label,
            *(f"{judge.mean(result.out, task):.3f}" for task in TASKS),
            judge.kept(EXPERTS, result.out)[1],
            f"{size:.4f}",
            f"{np.interp(size, *line):.0%}" if inside else "–",
            survived(result),
            end_section=index + 1 == len(rows) or rows[index + 1].method != row.method,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the questions and sequences")
    share = 4 if parser.parse_args().quick else 1
    start = time.perf_counter()
    console = Console(width=WIDTH, highlight=False)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()

    measured = measure(console, 256 // share)
    sweep = [Row("task_arithmetic", f"lambda {value:g}", {"lambda": value}) for value in COEFFICIENTS]
    rows = [
        row
        for row in (*sweep, *sar_rows(), *scf_rows(), *other_rows())
        if measured or (row.measured is None and row.method not in ("fisher", "regmean"))
    ]
    results = [row.run(f"{index:02}") for index, row in enumerate(rows)]
    console.print(f"Merged {len(rows)} times in {time.perf_counter() - start:.0f} s; scoring ...\n")

    judge = Judge("test.jsonl", TASKS)
    judge.items = tuple(item for index, item in enumerate(judge.items) if index % share == 0)
    judge.read((BASE, *EXPERTS, *(result.out for result in results)))
    plain = [result.out for result in results[: len(sweep)]]
    line = np.array([[norm(out), np.mean(judge.kept(EXPERTS, out)[0])] for out in plain]).T
    console.print(table(judge, rows, results, line))
    console.print(TEXT.format(low=COEFFICIENTS[0], high=COEFFICIENTS[-1]))
    console.print(f"{time.perf_counter() - start:.0f} s in all; the merged models are in {OUT}")


if __name__ == "__main__":
    main()
