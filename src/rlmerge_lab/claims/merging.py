"""The open question: do RL experts merge better or worse than supervised ones."""

from __future__ import annotations

import math

from .cells import AVERAGING, TUNABLE, Cells, Study, curve, interpolate, seed_means
from .figure import Figure, Margin, Side, difference, from_seeds
from .geometry import MATCHED, accuracy, norm
from .verdict import CURSE, ENOUGH, GAIN, RETENTION, SCORE, SIZE, Verdict

CONDITIONS = {
    "averaging": ("when averaged", "default", "Plain averaging, coefficient 1/K for both arms."),
    "tuned": (
        "when every method is tuned on dev", "tuned",
        "Each method's scale and main parameter tuned on dev with one budget of trials; the figure is the mean over "
        "methods, and each method stands beside it.",
    ),
    "matched-norm": (
        "at equal norm of the merged update", "matched",
        "Task arithmetic at one ‖δ*‖ for both arms, the geometric mean of the two norms that tuning chose, read off "
        "the sweep of its coefficient. Beside it each method at the norm of tuned task arithmetic in its own arm.",
    ),
}  # fmt: skip
"""Key, words, rule of the merges, control. The same difference decides for both sources, in opposite directions."""


def verdicts(study: Study) -> tuple[Verdict, ...]:
    """RL against supervised under three conditions, and without any."""
    return (*_better_or_worse(study), _unmatched(study))


def gain(study: Study, a: str, b: str, rule: str, side: Side, field: str = "gain_kept", unit: Margin = GAIN) -> Figure:
    """Two arms under one rule: merged by averaging (``default``), or the mean over all methods."""
    how = "averaging" if rule == "default" else f"all methods, {rule}"
    words = {"gain_kept": "gain kept", "score": "pass@1 of the merge"}.get(field, field)
    first, second = (_merged(study, arm, rule, field) for arm in (a, b))
    return difference(f"{words}, {how}, {a} − {b}", first, second, side, unit)


def _merged(study: Study, arm: str, rule: str, field: str) -> Cells:
    return study.merge(arm, AVERAGING, rule, field) if rule == "default" else study.by_method(arm, rule, field)


def _better_or_worse(study: Study) -> list[Verdict]:
    found: list[Verdict] = []
    controls = (accuracy(study, "rl", "sft"), norm(study, "rl", "sft"))
    for key, (words, rule, control) in CONDITIONS.items():
        mean_of_methods = gain(study, "rl", "sft", rule, Side.ABOVE)
        beside = [*_denominators(study, rule), *_each(study, rule)]
        if key == "matched-norm":
            decides, beside = _equal_norm(study), [mean_of_methods, *beside]
        else:
            decides = mean_of_methods
        for better, source in ((True, ENOUGH), (False, CURSE)):
            found.append(
                Verdict(
                    f"{'better' if better else 'worse'}-{key}", "merging",
                    f"RL experts merge {'better' if better else 'worse'} than accuracy-matched SFT experts {words}.",
                    source, (decides if better else decides.flipped(),), f"{MATCHED} {control}", SIZE, controls,
                    tuple(figure if better else figure.flipped() for figure in beside),
                )
            )  # fmt: skip
    return found


def _equal_norm(study: Study) -> Figure:
    """RL minus SFT of task arithmetic at one norm, by seed."""
    tuned = [seed_means(study.merge(arm, TUNABLE, "tuned", "norm")) for arm in ("rl", "sft")]
    gains: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for seed in tuned[0].keys() & tuned[1].keys():
        norm = math.sqrt(tuned[0][seed] * tuned[1][seed])
        found = [interpolate(curve(study, arm, seed), norm) for arm in ("rl", "sft")]
        for gain, value in zip(gains, found, strict=True):
            if value is not None:
                gain[seed] = value
    return from_seeds("gain kept, task arithmetic at equal ‖δ*‖, rl − sft", *gains, Side.ABOVE, GAIN)


def _denominators(study: Study, rule: str) -> list[Figure]:
    """The same comparison by every denominator; degradation only where it is not retention minus a constant."""
    figures = [
        gain(study, "rl", "sft", rule, Side.ABOVE, field, margin)
        for field, margin in (("retention", RETENTION), ("degradation", RETENTION), ("score", SCORE))
    ]
    retention, degradation = figures[0].differences, figures[1].differences
    same = len(retention) == len(degradation) and all(
        abs(a - b) < 1e-9 for a, b in zip(retention, degradation, strict=True)
    )
    return [figures[0], figures[2]] if same and retention else figures


def _each(study: Study, rule: str) -> list[Figure]:
    """Every method by itself, and averaging on pairs."""
    if rule == "default":
        pairs = [study.merge(arm, AVERAGING, rule, pairs=True) for arm in ("rl", "sft")]
        return [difference("gain kept, averaging of pairs, rl − sft", pairs[0], pairs[1], Side.ABOVE, GAIN)]
    return [
        difference(
            f"gain kept, {method}, {rule}, rl − sft",
            study.merge("rl", method, rule), study.merge("sft", method, rule), Side.ABOVE, GAIN,
        )
        for method in study.methods
    ]  # fmt: skip


def _unmatched(study: Study) -> Verdict:
    arms = ("sft-high-lr", "sft-long")
    return Verdict(
        "better-unmatched", "merging",
        "RL experts merge better than supervised experts trained without matching (ten times the learning rate; "
        "over-trained).", f"{ENOUGH}, whose supervised updates are several times longer than its RL updates",
        tuple(gain(study, "rl", arm, "default", Side.ABOVE) for arm in arms),
        "Nothing, on purpose: its distance to the matched comparison is the effect of matching.",
        SIZE, tuple(norm(study, "rl", arm) for arm in arms),
        tuple(gain(study, "rl", arm, "tuned", Side.ABOVE) for arm in arms),
    )  # fmt: skip
