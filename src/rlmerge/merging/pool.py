"""What several recipes of the same inputs may share: statistics that depend on the same values, and tallies.

A threshold is read off a tally (how many entries have which magnitude) that does not depend on the density, so recipes
that differ in their densities count once.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from rlmerge.kernels.select import Tally
from rlmerge.kernels.values import Static, typed
from rlmerge.methods import Statistic, arguments

from .job import Job


class Pool:
    """Statistics of tensors being merged by several recipes that read the same sources. For one thread."""

    def __init__(self) -> None:
        self.found: dict[Hashable, np.ndarray] = {}
        self.tallies: dict[Hashable, Tally] = {}
        self._keys: dict[str, set[Hashable]] = {}

    def value(self, jobs: Sequence[Job], statistic: Statistic) -> np.ndarray | None:
        """The value, if another recipe gathered it from the same."""
        return self.found.get(value_key(jobs, statistic))

    def keep(self, jobs: Sequence[Job], statistic: Statistic, value: np.ndarray) -> None:
        """Share a gathered value."""
        self._note(jobs, key := value_key(jobs, statistic))
        self.found[key] = value

    def tally(self, jobs: Sequence[Job], statistic: Statistic) -> Tally | None:
        """The first pass of a selection, if another recipe made it over the same values."""
        return self.tallies.get(tally_key(jobs, statistic))

    def keep_tally(self, jobs: Sequence[Job], statistic: Statistic, tally: Tally) -> None:
        """Share the first pass of a selection; nobody adds to it any more."""
        self._note(jobs, key := tally_key(jobs, statistic))
        self.tallies[key] = tally

    def forget(self, job: Job) -> None:
        """Drop what belongs to one tensor alone, which all recipes have merged."""
        for key in self._keys.pop(job.name, ()):
            self.found.pop(key, None)
            self.tallies.pop(key, None)

    def _note(self, jobs: Sequence[Job], key: Hashable) -> None:
        if len(jobs) == 1:
            self._keys.setdefault(jobs[0].name, set()).add(key)


def value_key(jobs: Sequence[Job], statistic: Statistic) -> Hashable:
    """What the value of a statistic depends on, beside the sources: formulas and values up to its stage."""
    chain: list[Statistic] = []
    for stage in jobs[0].stages:
        if statistic in stage:
            break
        chain += stage
    return tuple(
        (job.name, *((s.formula, s.rank, s.skip, s.over, json.dumps(depends(job, s))) for s in (*chain, statistic)))
        for job in jobs
    )


def tally_key(jobs: Sequence[Job], statistic: Statistic) -> Hashable:
    """What the magnitudes of a selection depend on: as ``value_key``, but not on its name, its rank or what that asks
    for."""
    chain: list[Statistic] = []
    for stage in jobs[0].stages:
        if statistic in stage:
            break
        chain += stage
    before = value_key(jobs, chain[-1]) if chain else ()
    return before, tuple((job.name, statistic.formula, json.dumps(depends(job, statistic, False))) for job in jobs)


def depends(job: Job, statistic: Statistic, used: bool = True) -> list[Any]:
    """What one statistic of one tensor depends on, as plain data; without ``used``, what its formula alone does."""
    known = {"row": 0.0, **job.values, **dict.fromkeys(s.name for stage in job.stages for s in stage), "uniform": None}
    known |= {**dict.fromkeys(job.method.inputs if job.method else ()), "field": None}
    more = {name: known[name] for name in statistic.uses} if used else {}
    plain = {
        name: str(value) if isinstance(typed(value), Static) else np.asarray(value).tolist()
        for name, value in {**arguments(statistic.formula, known), **more}.items()
        if isinstance(value, float | int | str | np.ndarray)
    }
    return [*([statistic.name] if used else ()), statistic.reduce, statistic.over, job.operands.real.name, plain]
