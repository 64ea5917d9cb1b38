"""Claims on methods: that one merges RL experts better than another, and what merging does to repetition."""

from __future__ import annotations

from .cells import AVERAGING, TUNABLE, Cells, Study, only, seed_means
from .figure import Figure, Side, difference, mean
from .verdict import CURSE, ENOUGH, GAIN, RAM, RECONSTRUCTED, REPETITION, SCALE, SCF, SIZE, Verdict

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


FIELD = "length_cap_repetition"
SHORT = (
    "Outputs here are at most a few dozen tokens long, so there is little room to repeat; long reasoning may differ."
)
SAMPLED = "Repetition is counted in sampled outputs and so carries sampling noise, unlike the scores."


def repetition_verdicts(study: Study) -> tuple[Verdict, ...]:
    """Whether merging repeats more than its experts, SCF-RKL less than other methods, RL's merges less than SFT's."""
    limits = f"{SHORT} {SAMPLED}"
    return (
        Verdict(
            "repetition-amplified", "health", "Merging amplifies repetition beyond the experts'.", SCF,
            (_amplified(study, "rl", FIELD),), "The same prompts and sampling for experts and merges.", limits,
            beside=(_amplified(study, "rl", "seq_rep_4"), _amplified(study, "sft", FIELD)),
        ),
        Verdict(
            "repetition-scf", "health", "SCF-RKL repeats less than the other methods.", SCF,
            (_scf(study, FIELD),), "The same experts, prompts and sampling.", f"{limits} SCF-RKL is a reconstruction.",
            beside=(_scf(study, "seq_rep_4"),),
        ),
        Verdict(
            "repetition-rl", "health", "Merges of RL experts repeat less than merges of supervised ones.",
            f"{ENOUGH} and {SCF}, read together", (_arms(study, FIELD),),
            "The same methods, prompts and sampling.", limits,
            beside=(_arms(study, "seq_rep_4"), difference("stop rate of merges, rl − sft",
                    study.health("rl", "merge", "stop_rate"), study.health("sft", "merge", "stop_rate"),
                    Side.ABOVE, REPETITION)),
        ),
    )  # fmt: skip


def _amplified(study: Study, arm: str, field: str) -> Figure:
    merges, experts = (_pooled(study.health(arm, kind, field)) for kind in ("merge", "expert"))
    return difference(f"{_words(field)}, {arm}, merges − experts", merges, experts, Side.ABOVE, REPETITION)


def _scf(study: Study, field: str) -> Figure:
    cells = study.health("rl", "merge", field)
    others = _pooled({key: value for key, value in cells.items() if key[1] != "scf_rkl"})
    return difference(f"{_words(field)}, rl, scf_rkl − others", only(cells, "scf_rkl"), others, Side.BELOW, REPETITION)


def _arms(study: Study, field: str) -> Figure:
    first, second = (study.health(arm, "merge", field) for arm in ("rl", "sft"))
    return difference(f"{_words(field)} of merges, rl − sft", first, second, Side.BELOW, REPETITION)


def _pooled(cells: Cells) -> Cells:
    return {(seed, ""): value for seed, value in seed_means(cells).items()}


def _words(field: str) -> str:
    return {FIELD: "repetition at the length cap", "seq_rep_4": "seq-rep-4"}[field]
