"""Merge or distil: what distillation from all experts reaches, and by how many generated tokens, from three starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from .cells import Study
from .figure import Figure, Side, difference, from_seeds
from .rotations import OWN
from .verdict import OURS, SCORE, SIZE, TOKENS, Verdict

FROM_BASE, FROM_ARITHMETIC, FROM_OWN = "distil", "distil-ta", "distil-own"
"""On-policy distillation from the experts of all tasks, by where the student starts."""

Curve = Sequence[tuple[float, float]]

ALIKE = "The same teachers, questions, learning rate and tokens; only the student's start differs."


def verdicts(study: Study) -> tuple[Verdict, ...]:
    """Whether a merge is the better start for distillation, and whether distillation alone overtakes a merge."""
    return (
        Verdict(
            "distil-sooner", "students",
            f"Distillation that starts at the merge by {OWN} reaches sooner where distillation from the base ends.",
            OURS, (_sooner(study, FROM_OWN, FROM_BASE),),
            f"{ALIKE} What is reached is the pass@1 on dev of the base's student at its last look; a student that "
            "never reaches it counts with all its tokens. Making the merge generates none.",
            f"Looks are some hundred answers apart, with straight lines between them. {SIZE}",
            beside=_known(_sooner(study, FROM_ARITHMETIC, FROM_BASE), _sooner(study, FROM_OWN, FROM_ARITHMETIC),
                          _ends(study, FROM_OWN, FROM_BASE)),
        ),
        Verdict(
            "distil-overtakes", "students",
            f"Distillation from the base, within its tokens, becomes better than the tuned merge by {OWN}.", OURS,
            (_overtakes(study),),
            "The same experts, as teachers or merged; pass@1 on test, mean over the experts' tasks.",
            f"More tokens may change it; the merge needs none. {SIZE}",
            beside=_known(_ends(study, FROM_ARITHMETIC, FROM_BASE), _ends(study, FROM_OWN, FROM_ARITHMETIC)),
        ),
    )  # fmt: skip


def tokens_to(curve: Curve, level: float) -> float:
    """Tokens at which ``curve`` first reaches ``level``, on straight lines between its points; its last if never."""
    if curve[0][1] >= level:
        return curve[0][0]
    for (before, low), (after, high) in pairwise(curve):
        if high >= level:
            return before + (after - before) * (level - low) / (high - low)
    return curve[-1][0]


def _sooner(study: Study, arm: str, other: str) -> Figure:
    """Tokens until the level at which distillation from the base ends, as shares of all its tokens."""
    goal = study.student(FROM_BASE)

    def shares(curves: Mapping[int, Curve]) -> dict[int, float]:
        return {
            seed: tokens_to(curve, goal[seed][-1][1]) / goal[seed][-1][0]
            for seed, curve in curves.items()
            if seed in goal and goal[seed][-1][0] > 0
        }

    name = f"share of the tokens until the end of distillation from the base is reached, {arm} − {other}"
    return from_seeds(name, shares(study.student(arm)), shares(study.student(other)), Side.BELOW, TOKENS)


def _ends(study: Study, arm: str, other: str) -> Figure:
    name = f"pass@1 of the student, {arm} − {other}"
    return difference(name, study.student_score(arm), study.student_score(other), Side.ABOVE, SCORE)


def _overtakes(study: Study) -> Figure:
    merged = study.merge("rl", OWN, "tuned", "score")
    name = f"pass@1, {FROM_BASE} − tuned merge by {OWN}"
    return difference(name, study.student_score(FROM_BASE), merged, Side.ABOVE, SCORE)


def _known(*figures: Figure) -> tuple[Figure, ...]:
    return tuple(figure for figure in figures if figure.differences)
