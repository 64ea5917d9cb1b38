"""From a candidate to its objectives, on a share of the items or on all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlmerge.checkpoint import Checkpoint
from rlmerge.errors import RunError
from rlmerge.progress import Progress

from .candidates import Candidate
from .objectives import KL, Objective, Standards
from .scoring import CANDIDATE, Bench, Scores, Subject
from .settings import Settings

if TYPE_CHECKING:
    from .kl import ExpertDivergence

FALLBACK = Objective((("gain_kept", 1.0),))
"""The real objective beside proxies, where there are tasks."""


class Judge:
    """Judges candidates by the objectives of a search; ``prepare`` comes first.

    ``real`` objectives are those of scores, which winner and baseline are compared by even if the search follows a
    proxy.
    """

    def __init__(
        self,
        settings: Settings,
        subjects: Sequence[Subject],
        progress: Progress,
        divergence: ExpertDivergence | None = None,
    ) -> None:
        self.objectives = settings.objectives
        self.subjects = subjects
        self.own = settings.own
        self.divergence = divergence
        real = tuple(objective for objective in self.objectives if not objective.is_proxy)
        prune = settings.prune and bool(real) and not settings.is_multiple
        self.bench = (
            Bench(settings.tasks, settings.evaluate, settings.limit, prune, progress) if settings.tasks else None
        )
        self.real_objectives: tuple[Objective, ...] = (real or (FALLBACK,)) if self.bench else ()
        self.needs_scores = bool(real)
        self._standards: Standards | None = None

    @property
    def is_blind(self) -> bool:
        """Whether nothing is ever scored."""
        return self.bench is None

    @property
    def levels(self) -> int:
        """Shares of the items on which candidates are judged one after the other."""
        return len(self.bench.levels) if self.bench and self.needs_scores else 1

    @property
    def standards(self) -> Standards:
        """What scores are measured by."""
        assert self._standards is not None, "prepare comes first"
        return self._standards

    def accepts_memory(self, model: Checkpoint) -> bool:
        """Whether candidates need not be written."""
        return self.bench is None or self.bench.accepts_memory(model)

    def prepare(self) -> None:
        """Score base and experts. RequestError when an objective means nothing for them, RunError when one fails."""
        if self.bench is None:
            return
        self.bench.score_references(self.subjects)
        self._standards = self.bench.standards(self.own)
        for objective in self.real_objectives:
            objective.check(self.standards, self.bench.labels)

    def listen(self) -> None:
        """Hear the experts, where an objective compares with what they say."""
        if self.divergence is not None:
            self.divergence.listen()

    def proxies(self, candidate: Candidate) -> dict[str, float]:
        """What a candidate measured when it was merged, and ``proxy:kl`` where an objective asks for it."""
        if self.divergence is None:
            return dict(candidate.proxies)
        return {**candidate.proxies, KL: -self.divergence.of(candidate)}

    def values(self, candidate: Candidate, level: int) -> tuple[list[float], dict[str, float]]:
        """The objectives of a candidate and its scores by task. RunError for one that is not finite."""
        scores: Scores = self.bench.score(candidate, level) if self.bench and self.needs_scores else {}
        real = iter(self.real(scores, level) if self.needs_scores else ())
        found = [
            objective.of_proxies(candidate.proxies) if objective.is_proxy else next(real)
            for objective in self.objectives
        ]
        for objective, value in zip(self.objectives, found, strict=True):
            if not math.isfinite(value):
                raise RunError(f"the objective {objective.name} is {value}")
        return found, {task: score.value for task, score in scores.items()}

    def real(self, scores: Scores, level: int) -> list[float]:
        """The objectives of scores, on a level."""
        assert self.bench is not None, "blind searches score nothing"
        table = self.bench.table(scores, level)
        return [float(objective.of_scores(table, CANDIDATE, self.standards)) for objective in self.real_objectives]

    def reference(self, name: str) -> list[float]:
        """The objectives of scores of the base or an expert, on all items."""
        assert self.bench is not None, "blind searches score nothing"
        table: Mapping[str, Mapping[str, float]] = {
            task: {model: score.value for model, score in row.items()} for task, row in self.bench.references.items()
        }
        return [float(objective.of_scores(table, name, self.standards)) for objective in self.real_objectives]
