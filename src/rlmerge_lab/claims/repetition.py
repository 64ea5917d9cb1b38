"""Claims on generated text: what merging does to repetition."""

from __future__ import annotations

from rlmerge_lab.claims.cells import Cells, Study, only, seed_means
from rlmerge_lab.claims.figure import Figure, Side, difference
from rlmerge_lab.claims.sources import ENOUGH, REPETITION, SCF
from rlmerge_lab.claims.verdict import Verdict

FIELD = "length_cap_repetition"
SHORT = "Answers here are a few tokens long, so there is little room to repeat; long reasoning may behave otherwise."
SAMPLED = "Repetition is counted in sampled outputs and so carries sampling noise, unlike the scores."


def verdicts(study: Study) -> tuple[Verdict, ...]:
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
