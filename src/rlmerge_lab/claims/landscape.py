"""Claims on the score around an expert: what another task's update does to it, and how flat it lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlmerge_lab.claims.cells import Cells, Study, finite
from rlmerge_lab.claims.figure import Figure, Side, difference
from rlmerge_lab.claims.geometry import MATCHED, accuracy, norm
from rlmerge_lab.claims.sources import CURSE, ENOUGH, SCORE, SIZE
from rlmerge_lab.claims.verdict import Verdict

OWN_LENGTH = "Each arm is moved by its own updates, which differ in length; the second control shows by how much."


def verdicts(study: Study) -> tuple[Verdict, ...]:
    """Both sources on interference, and "Sparsity Curse" on shared, flat basins."""
    controls = (accuracy(study, "rl", "sft"), norm(study, "rl", "sft"))
    along, around = _loss(study, along_update, "+ 1 update of another task"), _loss(study, around_center, "at β = ±max")
    return (
        Verdict(
            "interference-less", "landscape", "Another RL expert's update costs an RL expert less of its own task.",
            ENOUGH, (along,), MATCHED, f"{OWN_LENGTH} {SIZE}", controls,
        ),
        Verdict(
            "interference-more", "landscape", "Another RL expert's update costs an RL expert more of its own task.",
            CURSE, (along.flipped(),), MATCHED, f"{OWN_LENGTH} {SIZE}", controls,
        ),
        Verdict(
            "flat-basin", "landscape", "Supervised experts lie in flatter surroundings than RL experts.", CURSE,
            (around.flipped(),), f"{MATCHED} One random direction with the norms of another task's update.",
            f"{OWN_LENGTH} One direction is a small sample of a neighbourhood. {SIZE}", controls,
        ),
    )  # fmt: skip


def _loss(study: Study, read: Callable[[Sequence[Mapping[str, Any]]], Cells], where: str) -> Figure:
    first, second = (read(study.pictures(arm)) for arm in ("rl", "sft"))
    return difference(f"own pass@1 lost {where}, rl − sft", first, second, Side.BELOW, SCORE)


def along_update(pictures: Sequence[Mapping[str, Any]]) -> Cells:
    """Score at the center minus score at α = 1, β = 0, by picture; pictures without these points have no cell."""
    return {
        _name(row): at_center - moved
        for row in pictures
        if (at_center := _score(row, 0.0, 0.0)) is not None and (moved := _score(row, 1.0, 0.0)) is not None
    }


def around_center(pictures: Sequence[Mapping[str, Any]]) -> Cells:
    """Score at the center minus the mean score at the two ends of β, at α = 0, by picture."""
    found: Cells = {}
    for row in pictures:
        values = [_score(row, 0.0, beta) for beta in (0.0, min(row["betas"]), max(row["betas"]))]
        known = [value for value in values if value is not None]
        if len(known) == 3 and min(row["betas"]) < max(row["betas"]):
            found[_name(row)] = known[0] - (known[1] + known[2]) / 2
    return found


def _score(row: Mapping[str, Any], alpha: float, beta: float) -> float | None:
    if alpha not in row["alphas"] or beta not in row["betas"]:
        return None
    return finite(row["score"][row["alphas"].index(alpha)][row["betas"].index(beta)])


def _name(row: Mapping[str, Any]) -> tuple[int, str]:
    return row["seed"], f"{row['task']} at {row['center']} along {row['direction']}"
