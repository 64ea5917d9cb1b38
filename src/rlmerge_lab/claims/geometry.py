"""Claims on the updates and the score around an expert: sparsity, direction, conflict, and what another update does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .cells import Cells, Study, finite
from .figure import Figure, Margin, Side, difference, level
from .verdict import (
    CONFLICT,
    COSINE,
    COSINE_GAP,
    CURSE,
    DTYPE,
    ENOUGH,
    MATCHED_SCORE,
    RELATIVE_NORM,
    SCALE,
    SCORE,
    SIZE,
    UNCHANGED,
    Verdict,
)

MATCHED = "Same base, items and learning rate; supervised training stopped at the accuracy of RL."


def verdicts(study: Study) -> tuple[Verdict, ...]:
    """Every claim of this kind, judged."""
    matched = (accuracy(study, "rl", "sft"), norm(study, "rl", "sft"))
    return (
        Verdict(
            "sparser", "geometry", "RL leaves more weights unchanged than supervised fine-tuning.",
            f"{CURSE}; {SCALE}", (unchanged(study, "rl", "sft"),), MATCHED, f"{DTYPE} {SIZE}", matched,
            (unchanged(study, "rl", "sft-high-lr"), unchanged(study, "rl-bf16", "rl")),
        ),
        Verdict(
            "orthogonal", "geometry", "Task vectors of RL experts are near-orthogonal.", CURSE,
            (level("cosine of two task vectors, rl", study.pair("rl", "cosine"), Side.NEAR, COSINE),),
            "The null: random signs on the same magnitudes, whose standard deviation is the unit of the figure beside.",
            f"Orthogonality of random vectors grows with their number of entries by itself. {SIZE}",
            beside=(level("cosine, RL, in standard deviations of the null", _against_null(study, "rl"), Side.NEAR,
                          Margin(2.0)),
                    level("cosine, SFT, in standard deviations of the null", _against_null(study, "sft"), Side.NEAR,
                          Margin(2.0))),
        ),
        Verdict(
            "farther-apart", "geometry", "RL task vectors are more orthogonal than supervised ones.", CURSE,
            (difference("|cosine|, rl − sft", _size(study.pair("rl", "cosine")), _size(study.pair("sft", "cosine")),
                        Side.BELOW, COSINE_GAP),),
            MATCHED, SIZE, matched,
            (difference("Jaccard of changed weights, rl − sft", study.pair("rl", "jaccard"),
                        study.pair("sft", "jaccard"), Side.BELOW, CONFLICT),),
        ),
        Verdict(
            "conflict-norm", "geometry", "RL task vectors have a lower conflict norm than supervised ones.", ENOUGH,
            (pairs_of(study, "conflict_norm", "rl", "sft"),), MATCHED,
            f"The conflict norm is of degree 2 in the update: a shorter update lowers it without less conflict. {SIZE}",
            matched, (pairs_of(study, "conflict_norm", "rl", "sft-high-lr"),),
        ),
        Verdict(
            "conflict-share", "geometry", "Less of RL's overlap is in conflict, whatever the size of the updates.",
            f"{ENOUGH}, with the size divided out", (conflict(study, "rl", "sft"),), MATCHED,
            f"Random signs give one half. {SIZE}", matched,
            (difference("share of opposite signs, rl − sft", study.pair("rl", "sign_conflict"),
                        study.pair("sft", "sign_conflict"), Side.BELOW, CONFLICT),
             conflict(study, "rl", "sft-high-lr")),
        ),
        Verdict(
            "forgets-less", "geometry", "RL experts lose less on tasks they were not trained on.", f"{CURSE}; {ENOUGH}",
            (forgetting(study, "rl", "sft"),), MATCHED, SIZE, matched,
            (forgetting(study, "rl", "sft-high-lr"), forgetting(study, "rl", "sft-long")),
        ),
    )  # fmt: skip


def accuracy(study: Study, a: str, b: str) -> Figure:
    """Whether the experts of two arms know their own task equally well."""
    return difference(
        f"experts' pass@1 on their own task, {a} − {b}", study.own(a), study.own(b), Side.NEAR, MATCHED_SCORE
    )


def norm(study: Study, a: str, b: str, side: Side = Side.NEAR) -> Figure:
    """‖τ‖/‖θ₀‖ of two arms."""
    first, second = study.expert(a, "norm"), study.expert(b, "norm")
    return difference(f"‖τ‖/‖θ₀‖, {a} − {b}", first, second, side, _relative(second))


def unchanged(study: Study, a: str, b: str) -> Figure:
    """Shares of weights bit-identical to the base."""
    first, second = study.expert(a, "unchanged"), study.expert(b, "unchanged")
    return difference(f"unchanged weights, {a} − {b}", first, second, Side.ABOVE, UNCHANGED)


def conflict(study: Study, a: str, b: str) -> Figure:
    """Σ|C⁻|/Σ|C| of two arms: the conflict with the size of the updates divided out."""
    first, second = study.pair(a, "conflict_share"), study.pair(b, "conflict_share")
    return difference(f"Σ|C⁻|/Σ|C|, {a} − {b}", first, second, Side.BELOW, CONFLICT)


def pairs_of(study: Study, field: str, a: str, b: str) -> Figure:
    """A figure of pairs that is claimed to be smaller in ``a``."""
    first, second = study.pair(a, field), study.pair(b, field)
    return difference(f"{field.replace('_', ' ')}, {a} − {b}", first, second, Side.BELOW, _relative(second))


def forgetting(study: Study, a: str, b: str) -> Figure:
    """Expert minus base on the tasks of the other experts."""
    return difference(f"change on other tasks, {a} − {b}", study.others(a), study.others(b), Side.ABOVE, SCORE)


def _relative(cells: Cells) -> Margin:
    """A tenth of the mean size, for figures without a scale of their own."""
    sizes = [abs(value) for value in cells.values()]
    return Margin(RELATIVE_NORM * sum(sizes) / len(sizes) if sizes else 0.0)


def _size(cells: Cells) -> Cells:
    return {key: abs(value) for key, value in cells.items()}


def _against_null(study: Study, arm: str) -> Cells:
    spread = study.pair(arm, "cosine_null_sd")
    return {key: value / spread[key] for key, value in study.pair(arm, "cosine").items() if spread.get(key, 0.0) > 0}


OWN_LENGTH = "Each arm is moved by its own updates, which differ in length; the second control shows by how much."


def landscape_verdicts(study: Study) -> tuple[Verdict, ...]:
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
