"""Coefficients beside which calibrated ones are judged, and how far the merge is from each expert at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rlmerge.calibration.directions import LAMBDA, WEIGHT, Directions
from rlmerge.calibration.divergence import Coefficients, Merged, Voice
from rlmerge.calibration.experts import Heard, fitting_share
from rlmerge.calibration.groups import Groups
from rlmerge.calibration.options import CalibrationOptions
from rlmerge.calibration.results import Divergence
from rlmerge.frozen import frozen
from rlmerge.language.data import Dataset
from rlmerge.merging.plan import Plan

STARTS = ("given", "ones", "shared")
"""Stages that a search may begin at; of equal ones the first."""


@frozen
class Speaker:
    """An expert, or the base on prompts of no expert, with what it was asked and what it said."""

    name: str
    role: str
    weight: float
    data: str
    dataset: Dataset
    heard: Heard

    @property
    def fitting(self) -> Voice:
        """What coefficients are fitted on."""
        return Voice(self.name, self.weight, self.heard.fitted)

    @property
    def held_out(self) -> Voice:
        """What chooses nothing."""
        return Voice(self.name, self.weight, self.heard.held_out)


@frozen
class Stage:
    """The divergence from each speaker at some coefficients; ``held_out`` is None where a speaker has none left."""

    fitted: tuple[float, ...]
    held_out: tuple[float | None, ...]
    objective: float


def compare(merged: Merged, coefficients: Coefficients, speakers: Sequence[Speaker]) -> Stage:
    """How far the merge at ``coefficients`` is from each of ``speakers``."""
    merged.place(coefficients)
    fitted = tuple(merged.divergence(each.fitting) for each in speakers)
    held_out = tuple(merged.divergence(each.held_out) if each.heard.held_out else None for each in speakers)
    objective = sum(each.weight * found for each, found in zip(speakers, fitted, strict=True))
    return Stage(fitted, held_out, objective)


def beside(plan: Plan, directions: Directions) -> dict[str, Coefficients]:
    """The stages that need no search, by the names of ``results.STAGES``."""
    count = directions.count
    argument = plan.method.parameter(WEIGHT if directions.parameter == WEIGHT else LAMBDA).argument

    def constant(value: float) -> Coefficients:
        return lambda name: np.full(count, value)

    def given(name: str) -> np.ndarray:
        return np.broadcast_to(np.asarray(plan.jobs[name].values[argument], np.float64), (count,))

    return {"base": constant(0.0), "shared": constant(1 / len(plan.experts)), "given": given, "ones": constant(1.0)}


def means(coefficients: Coefficients, directions: Directions, groups: Groups) -> np.ndarray:
    """The mean [C, G] of coefficients over the tensors of each group."""
    total, count = np.zeros((directions.count, len(groups.labels))), np.zeros(len(groups.labels))
    for name, group in groups.group_of.items():
        total[:, group] += coefficients(name)
        count[group] += 1
    return total / count


def divergence(k: int, speaker: Speaker, stages: Mapping[str, Stage], options: CalibrationOptions) -> Divergence:
    """What ``stages`` say of the k-th speaker."""
    count = len(speaker.dataset.examples)
    fitted = fitting_share(count, options)
    apart = [float(target.logs.double().exp().sum(-1).mean()) for target in speaker.heard.fitted]
    held_out = {name: value for name, stage in stages.items() if (value := stage.held_out[k]) is not None}
    return Divergence(
        name=speaker.name,
        role=speaker.role,
        weight=speaker.weight,
        data=speaker.data,
        data_digest=speaker.dataset.digest,
        prompts=fitted,
        held_out_prompts=count - fitted,
        sequences=len(speaker.heard.fitted),
        tokens=speaker.fitting.tokens,
        truncated=speaker.heard.truncated,
        dropped=speaker.heard.dropped,
        told_apart=min(1.0, float(np.mean(apart))),
        fitted={name: stage.fitted[k] for name, stage in stages.items()},
        held_out=held_out,
    )
