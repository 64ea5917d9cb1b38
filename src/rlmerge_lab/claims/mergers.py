"""Claims on methods: that one merges RL experts better than another, each with the same budget of trials."""

from __future__ import annotations

from rlmerge_lab.claims.cells import AVERAGING, TUNABLE, Study, seed_means
from rlmerge_lab.claims.figure import Figure, Side, difference, mean
from rlmerge_lab.claims.sources import CURSE, GAIN, RAM, RECONSTRUCTED, SCALE, SCF, SIZE
from rlmerge_lab.claims.verdict import Verdict

TUNED = "The same experts; scale and main parameter of both tuned on dev with one budget of trials."
SAR_MEASURED = "sar_merging:fisher"
"""SAR-Merging with the Fisher information that its source arbitrates by; without it the larger change wins."""
RAMS = ("ram", "ram_plus", "ramplus_tl", "ram_percentile")


def verdicts(study: Study) -> tuple[Verdict, ...]:
    """RAM against averaging and against its coefficient tuned; SAR-Merging and SCF-RKL against the best of the rest."""
    defaults = [
        _against(study, a, b, "default")
        for a, b in [*((name, AVERAGING) for name in RAMS[1:]), ("ram", "ties"), ("ram", "dare_ties")]
    ]
    tuned = [_against(study, name, TUNABLE, "tuned") for name in RAMS[1:]]
    return (
        Verdict(
            "ram-averaging", "methods", "RAM merges RL experts better than averaging.", f"{RAM}; {SCALE}",
            (_against(study, "ram", AVERAGING, "default"),), "The same experts, both methods as published.",
            f"Averaging at coefficient 1/K adds a shorter update than RAM; the next verdict controls for that. {SIZE}",
            beside=tuple(figure for figure in defaults if figure.differences),
        ),
        Verdict(
            "ram-tuned", "methods", "RAM merges RL experts better than task arithmetic with a tuned coefficient.", RAM,
            (_against(study, "ram", TUNABLE, "tuned"),), TUNED, SIZE,
            beside=tuple(figure for figure in tuned if figure.differences),
        ),
        _best(study, SAR_MEASURED if SAR_MEASURED in study.methods else "sar_merging", "SAR-Merging", CURSE),
        _best(study, "scf_rkl", "SCF-RKL", SCF),
    )  # fmt: skip


def _against(study: Study, method: str, other: str, rule: str) -> Figure:
    return difference(
        f"gain kept, rl, {rule}, {method} − {other}",
        study.merge("rl", method, rule), study.merge("rl", other, rule), Side.ABOVE, GAIN,
    )  # fmt: skip


def _best(study: Study, method: str, words: str, source: str) -> Verdict:
    """Against the other method that did best on dev, so that test does not choose its own rival."""
    on_dev = {
        name: mean(list(seed_means(cells).values()))
        for name in study.methods
        if name.partition(":")[0] != method.partition(":")[0] and (cells := study.merge("rl", name, "tuned", "dev"))
    }
    rival = max(on_dev, key=lambda name: on_dev[name], default=TUNABLE)
    rest = [_against(study, method, name, "tuned") for name in study.methods if name not in (method, rival)]
    return Verdict(
        method.partition(":")[0].replace("_", "-"), "methods",
        f"{words} merges RL experts better than the other methods.", source,
        (_against(study, method, rival, "tuned"),),
        f"{TUNED} The rival is the other method with the best mean on dev, here {rival}.", RECONSTRUCTED,
        beside=tuple(figure for figure in rest if figure.differences),
    )  # fmt: skip
