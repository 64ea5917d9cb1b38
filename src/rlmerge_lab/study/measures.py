"""What is measured of experts and merges besides their scores: geometry, scale, landscape, generation health."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmerge.geometry.definitions import Measure
from rlmerge.geometry.figures import overlap, sparsity
from rlmerge.geometry.measure import measure
from rlmerge.kernels.dtypes import FLOAT32
from rlmerge_lab.training.directory import Lab

from .candidates import Candidate
from .cases import Case, decided_by
from .off_task import off_task
from .tuning import merge_of


@dataclass(frozen=True, slots=True)
class GeometryJob:
    """Measures the experts of a case against the base, with the figures of ``rlmerge inspect``."""

    case: Case

    @property
    def label(self) -> str:
        return f"geometry.{self.case.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return decided_by("geometry", models=self.case.identity["models"], tasks=self.case.tasks)

    @property
    def cost(self) -> int:
        return self.case.items(0, 0.1)

    def run(self) -> dict[str, Any]:
        """{"experts": {task: figures}, "pairs": one row per pair}."""
        family, tasks = self.case.family, self.case.tasks
        dtypes = [FLOAT32] * (1 + len(tasks))
        # Every stored value is exact in float32, so nothing is gained by going back to its own type.
        seen = measure(family.base, list(family.experts), dtypes)
        where = {"seed": self.case.seed, "arm": self.case.arm}
        experts = {task: _expert(sparsity(seen, k, family.dtype.name)) for k, task in enumerate(tasks)}
        pairs = [
            {**where, "a": tasks[a], "b": tasks[b], **_pair(overlap(seen, a, b, family.dtype.name))}
            for a in range(len(tasks))
            for b in range(a + 1, len(tasks))
        ]
        return {"experts": experts, "pairs": pairs}


def _expert(figures: Mapping[str, Measure]) -> dict[str, float | None]:
    named = {"norm": "relative_norm", "unchanged": "unchanged_bits", "small_absolute": "small_absolute", "gini": "gini"}
    return {name: figures[key].value for name, key in named.items()}


def _pair(figures: Mapping[str, Measure]) -> dict[str, float | None]:
    cosine, jaccard = figures["cosine"], figures["jaccard"]
    return {
        "cosine": cosine.value,
        "cosine_null_sd": cosine.null_sd,
        "jaccard": jaccard.value,
        "jaccard_chance": jaccard.null,
        **{key: figures[key].value for key in ("sign_conflict", "conflict_norm", "conflict_share", "distance")},
    }


@dataclass(frozen=True, slots=True)
class SweepJob:
    """Scores θ₀ + λ Σ τ_k on test for each coefficient λ of ``lambdas``."""

    case: Case
    lambdas: tuple[float, ...]

    @property
    def label(self) -> str:
        return f"sweep.{self.case.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return decided_by("sweep", case=self.case.identity, lambdas=self.lambdas)

    @property
    def cost(self) -> int:
        return self.case.items(0, len(self.lambdas))

    def run(self) -> list[dict[str, Any]]:
        """One row per coefficient."""
        family = self.case.family
        total = family.merge("task_arithmetic", {}, self.case.seed)
        rows: list[dict[str, Any]] = []
        for factor in self.lambdas:
            merge = total.scaled(factor)
            weights = family.stored(merge)
            every = (*self.case.tasks, *self.case.off)
            found, _ = self.case.evaluations.test.passes(family.model(weights), family.home, every)
            test = {task: found[task] for task in self.case.tasks}
            rows.append(
                {
                    "seed": self.case.seed,
                    "arm": self.case.arm,
                    "lambda": factor,
                    "norm": merge.norm / family.base_norm,
                    **self.case.test.outcome(test).to_dict(),
                    **off_task(self.case.off, found),
                    "test": test,
                    **family.survival(merge, weights),
                }
            )
        return rows


@dataclass(frozen=True, slots=True)
class LandscapeJob:
    """One picture for each expert of a set: around it, along the update of the expert after it, on its own task."""

    case: Case
    items: int
    alphas: tuple[float, ...]
    betas: tuple[float, ...]

    @property
    def label(self) -> str:
        return f"landscape.{self.case.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        points = {"items": self.items, "alphas": self.alphas, "betas": self.betas}
        return decided_by("landscape", case=self.case.identity, **points)

    @property
    def cost(self) -> int:
        return len(self.case.tasks) * self.items * len(self.alphas) * len(self.betas)

    def run(self) -> list[dict[str, Any]]:
        """The pictures as plain data."""
        from rlmerge.evaluate.landscape.loss import landscape
        from rlmerge.evaluate.landscape.scorers import TinyScorer

        family, tasks = self.case.family, self.case.tasks
        base, *experts = (family.model(vector).weights for vector in (family.base, *family.experts))
        rows: list[dict[str, Any]] = []
        for place, task in enumerate(tasks):
            other = (place + 1) % len(tasks)
            scorer = TinyScorer.of(family.home, self.case.evaluations.test.items((task,))[: self.items])
            found = landscape(
                base,
                experts[place],
                experts[other],
                scorer,
                alphas=self.alphas,
                betas=self.betas,
                names=(task, tasks[other]),
                seed=self.case.seed,
            )
            rows += [{"seed": self.case.seed, "arm": self.case.arm, **picture.to_dict()} for picture in found]
        return rows


def text_prompts(lab: Lab, count: int) -> tuple[str, ...]:
    """The first ``count`` beginnings of plain text that no model was trained on; none where the lab has no text."""
    file = lab.root / "words" / "text.jsonl"
    if not count or not file.exists():
        return ()
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return tuple(dict.fromkeys(row["prompt"] for row in rows if row["split"] == "test"))[:count]


@dataclass(frozen=True, slots=True)
class HealthJob:
    """Samples an answer of at most ``tokens`` tokens to ``prompts`` test prompts of each task, and measures them.

    Where there are ``texts``, beginnings of plain text, they are continued instead, at ``temperature``. ``merges`` are
    candidates with their parameters as results have them; those with measured inputs are left out.
    """

    case: Case
    merges: tuple[tuple[Candidate, Mapping[str, Any]], ...]
    prompts: int
    tokens: int
    texts: tuple[str, ...] = ()
    temperature: float = 1.0

    @property
    def label(self) -> str:
        return f"health.{self.case.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        merges = [[candidate.label, dict(parameters)] for candidate, parameters in self.merges]
        texts = {"texts": self.texts, "temperature": self.temperature} if self.texts else {}
        asked = {"prompts": self.prompts, "tokens": self.tokens, **texts}
        return decided_by("health", case=self.case.identity, merges=merges, **asked)

    @property
    def cost(self) -> int:
        answers = len(self.texts) or self.prompts * len(self.case.tasks)
        return 20 * answers * (1 + len(self.case.tasks) + len(self.merges))

    def run(self) -> list[dict[str, Any]]:
        """One row per model: ``base``, ``expert:<task>``, ``merge:<method>``."""
        from rlmerge.evaluate.health import health

        case = self.case
        own = {"base": case.base.path} | {f"expert:{t}": e.path for t, e in zip(case.tasks, case.experts, strict=True)}
        tasks = (item.prompt for task in case.tasks for item in case.evaluations.test.items((task,))[: self.prompts])
        asked = self.texts or tuple(tasks)
        temperature = self.temperature if self.texts else 1.0
        with tempfile.TemporaryDirectory(prefix="rlmerge-study-") as folder:
            models = dict(own)
            for candidate, parameters in self.merges:
                if candidate.measured:
                    continue
                name = f"merge:{candidate.label}"
                models[name] = Path(folder) / candidate.label
                case.family.write(merge_of(case, candidate, parameters), models[name])
            found = health(
                models,
                asked,
                references=tuple(own),
                max_new_tokens=self.tokens,
                temperature=temperature,
                seed=case.seed,
            )
        where = {"seed": case.seed, "arm": case.arm, "prompts": found.prompts, "max_new_tokens": found.max_new_tokens}
        where |= {"on": "text" if self.texts else "tasks", "temperature": temperature}
        rows = [model.to_dict() for model in found.models]
        return [{**where, "model": row.pop("name"), **row} for row in rows]
