"""The three factors that “Enough is as good as a feast” names: each a pair of arms that differ in that factor."""

from __future__ import annotations

from rlmerge_lab.claims.cells import Study
from rlmerge_lab.claims.figure import Figure, Side
from rlmerge_lab.claims.geometry import accuracy, conflict, norm, pairs_of
from rlmerge_lab.claims.merging import gain
from rlmerge_lab.claims.sources import ENOUGH, SIZE
from rlmerge_lab.claims.verdict import Verdict


def verdicts(study: Study) -> tuple[Verdict, ...]:
    """Each factor needs both links of its chain: the update that it is said to change, and the merge."""
    return (
        _factor(
            study, "on-policy", "rft", "sft",
            "On-policy data keep updates small and so let experts merge better.",
            norm(study, "rft", "sft", Side.BELOW),
            "Both supervised: on the base's own correct samples against on the teacher's answers.",
            "The samples are the base's and are not renewed, so they are on-policy at the start of training only.",
        ),
        _factor(
            study, "shrinking-advantage", "rl-positive", "rft",
            "An advantage that shrinks as the model learns keeps updates small and so lets experts merge better.",
            norm(study, "rl-positive", "rft", Side.BELOW),
            "Correct samples alone in both: fresh ones weighted by their advantage, or fixed ones of equal weight.",
            "Fresh samples and the shrinking advantage come together in these two arms and cannot be separated.",
        ),
        _factor(
            study, "negatives", "rl", "rl-positive",
            "Learning from negatives as well keeps updates out of conflict and so lets experts merge better.",
            conflict(study, "rl", "rl-positive"),
            "The same RL with and without its negative samples.",
            "Without negatives fewer samples push the weights, so the step of an update changes along with its sign.",
        ),
    )  # fmt: skip


def _factor(
    study: Study, key: str, arm: str, without: str, claim: str, link: Figure, control: str, limit: str
) -> Verdict:
    return Verdict(
        key, "factors", claim, ENOUGH, (link, gain(study, arm, without, "default", Side.ABOVE)), control,
        f"{limit} {SIZE}", (accuracy(study, arm, without),),
        (
            gain(study, arm, without, "tuned", Side.ABOVE),
            gain(study, arm, without, "matched", Side.ABOVE),
            *((norm(study, arm, without, Side.BELOW),) if key == "negatives" else (conflict(study, arm, without),)),
            pairs_of(study, "conflict_norm", arm, without),
        ),
    )  # fmt: skip
