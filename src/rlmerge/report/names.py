"""Names of models and tasks as a report shows them: short, and no two of them alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from rlmerge.text import fit, plain


class Referenced(Protocol):
    """A model that was named by a path or, with a ``revision``, by a Hub id."""

    @property
    def reference(self) -> str: ...
    @property
    def revision(self) -> str | None: ...


def model_names(models: Iterable[Referenced]) -> list[str]:
    """Short names of models, unlike one another, out of what the user wrote; links are not followed."""
    return shortest_ends(
        [
            tuple(model.reference.split("/"))
            if model.revision
            else Path(os.path.abspath(os.path.expanduser(model.reference))).parts  # noqa: PTH100, PTH111
            for model in models
        ]
    )


def shortest_ends(paths: Sequence[Sequence[str]]) -> list[str]:
    """For each path, given as its parts, the last part, with as many before it as tell it from the others.

    Equal paths get numbers: ``out``, ``out (2)``.
    """
    depth, different = 1, len({tuple(path) for path in paths})
    while len({tuple(path[-depth:]) for path in paths}) < different:
        depth += 1
    last = [path[-1] for path in paths]
    ends = ["/".join(path[-depth:]) if last.count(path[-1]) > 1 else path[-1] for path in paths]
    return [f"{end} ({again + 1})" if (again := ends[:k].count(end)) else end for k, end in enumerate(ends)]


def cut_names(names: Iterable[str], room: int) -> dict[str, str]:
    """``names`` safe to print and cut in their middle to ``room`` columns, still unlike one another."""
    short: dict[str, str] = {}
    for name in names:
        cut, number = fit(plain(name), room, size=1), 1
        while cut in short.values() and name not in short:
            number += 1
            cut = f"{fit(plain(name), room - 4, size=1)} ({number})"
        short.setdefault(name, cut)
    return short
