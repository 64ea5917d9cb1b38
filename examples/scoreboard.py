"""The demo's judge and its three tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from rlmerge import MergeResult
from rlmerge.evaluate.exact import Item, ItemScores, answer, read_items, score
from rlmerge.evaluate.statistics import bootstrap, retention
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import load

MODELS = Path(__file__).resolve().parent / "checkpoints"
BASE = MODELS / "base"
TASKS = ("rev", "cnt", "shift")
"""The tasks experts were trained on, in the order in which experts are given."""
OTHERS = ("add", "sort")

Merges = Mapping[str, MergeResult]
"""Finished merges by what their rows are called."""


class Judge:
    """Scores models on the questions of one file, each model once."""

    def __init__(self, file: str, tasks: Iterable[str]) -> None:
        chosen = set(tasks)
        self.items = tuple(item for item in read_items(MODELS / "data" / file) if item.task in chosen)
        self.vocabulary = read_vocabulary(BASE)
        self._known: dict[Path, ItemScores] = {}

    def read(self, models: Iterable[Path]) -> None:
        """Score several models at once, one process for each core."""
        new = [model for model in dict.fromkeys(models) if model not in self._known]
        # Matrices this small gain nothing from BLAS threads, which would fight over the cores with these processes.
        os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            found = pool.map(partial(_score, items=self.items, vocabulary=self.vocabulary), new)
            self._known.update(zip(new, found, strict=True))

    def __call__(self, model: Path) -> ItemScores:
        """ItemScores of every question, of a model that was read."""
        return self._known[model]

    def mean(self, model: Path, task: str) -> float:
        """Mean probability of a right answer on one task: the exact pass@1."""
        return float(self(model).on(task).probability.mean())

    def kept(self, experts: Sequence[Path], merged: Path) -> tuple[list[float], str]:
        """Share of each expert's gain on its own task that ``merged`` keeps, and their mean with its 95 % interval."""
        columns = [
            self(model).on(task).probability
            for task, expert in zip(TASKS, experts, strict=True)
            for model in (BASE, expert, merged)
        ]

        def shares(*columns: np.ndarray) -> list[float]:
            return [retention(*columns[first : first + 3]) for first in range(0, len(columns), 3)]

        mean = bootstrap(lambda *columns: float(np.mean(shares(*columns))), *columns)
        return shares(*columns), f"{mean.value:.0%} [{100 * mean.low:.0f}, {100 * mean.high:.0f}]"


def _score(model: Path, items: Sequence[Item], vocabulary: dict[str, int]) -> ItemScores:
    return score(load(model), items, vocabulary)


def scores(judge: Judge, experts: Sequence[Path], merges: Merges) -> Table:
    """Base, experts and merges on every task, with what each merge kept and cost."""
    title = "Probability of a right answer, and how much of the expert's gain is kept"
    table = _table(title, "model")
    for name in (*TASKS, *OTHERS, "gain kept", "survived", "s", "MB"):
        table.add_column(name, justify="right", no_wrap=True)

    def row(label: str, model: Path, kept: Sequence[float | None], *rest: str, end: bool = False) -> None:
        shares = ("" if share is None else f"{share:.0%}" for share in kept)
        own = (f"{judge.mean(model, task):.3f} {share:>4}" for task, share in zip(TASKS, shares, strict=True))
        table.add_row(label, *own, *(f"{judge.mean(model, task):.3f}" for task in OTHERS), *rest, end_section=end)

    row("base", BASE, [None] * 3)
    for place, expert in enumerate(experts):
        row(expert.name, expert, [1.0 if i == place else None for i in range(3)], end=place == 2)
    for label, result in merges.items():
        memory = "–" if result.peak_memory is None else f"{result.peak_memory / 1e6:.0f}"
        kept, mean = judge.kept(experts, result.out)
        row(label, result.out, kept, mean, survived(result), f"{result.seconds:.2f}", memory)
    return table


def stored(judge: Judge, merges: Mapping[str, tuple[Sequence[Path], MergeResult]]) -> Table:
    """What storing a merge does to small changes; each merge comes with the experts it was made of."""
    table = _table("The same sum of changes, stored in different ways", "merge")
    for name in ("survived", "erased by rounding", "coefficient asked", "stored", "gain kept"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, (experts, result) in merges.items():
        erased = np.mean([expert.erased / expert.changed for expert in result.experts])
        asked, got = (np.mean([getattr(e, name) for e in result.experts]) for name in ("requested", "realised"))
        kept = judge.kept(experts, result.out)[1]
        table.add_row(label, survived(result), f"{erased:.0%}", f"{asked:.3f}", f"{got:.3f}", kept)
    return table


def answers(judge: Judge, experts: Sequence[Path], label: str, merged: Path) -> Table:
    """What the models say to the first such question of each task."""
    table = _table("Questions the base gets wrong and the expert right", "question")
    for name in ("right answer", "base", "its expert", label):
        table.add_column(name)
    for task, expert in zip(TASKS, experts, strict=True):
        learned = ~judge(BASE).greedy & judge(expert).greedy & (judge(BASE).tasks == task)
        item = judge.items[int(learned.argmax())]
        said = (answer(load(model), item.prompt, judge.vocabulary) for model in (BASE, expert, merged))
        table.add_row(item.prompt.lstrip("_"), " or ".join(item.answers), *said)
    return table


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    return table


def survived(result: MergeResult) -> str:
    """Mean over the experts of the share of their changes that still differ from the base in the stored file."""
    shares = [expert.survival for expert in result.experts if expert.survival is not None]
    return f"{np.mean(shares):.0%}" if shares else "–"
