"""What a study may spend: which methods on which sets of experts, how many trials, how many items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rlmerge.errors import RequestError, did_you_mean

FAMILY = (
    "task_arithmetic",
    "linear",
    "ties",
    "dare_ties",
    "della",
    "ram",
    "ram_plus",
    "consensus_ta",
    "emr",
    "cabs",
    "pcb",
    "sar_merging",
    "scf_rkl",
    "regmean",
    "tsv",
    "iso_c",
    "iso_cts",
    "wudi",
    "swudi",
    "actmat",
    "ace",
    "covariance",
)
"""The methods of the second edition: one of each kind that decides weight by weight, and all that look at more."""

SIZES = ("task_arithmetic", "ties", "ram", "regmean", "tsv", "actmat", "covariance")
"""The methods that are followed over sizes."""

FEW = ("linear", "task_arithmetic", "ties", "dare_ties", "ram")
"""The methods that every arm and the pairs get: averaging, its scaled form, and three ways with conflicts."""

SWEEP = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.25, 1.6)
"""Coefficients of the sweep of task arithmetic, from a weak trace of each expert to more than their sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyBudget:
    """How much of everything; arms that a lab does not have are left out.

    ``methods`` (None: every registered one) merge all experts of a ``main_arms`` arm, ``other_methods`` those of any
    other arm, ``pair_methods`` every two experts of a ``pair_arms`` arm. Each method gets ``trials`` scorings on dev,
    its default setting among them. ``dev_items`` and ``test_items`` are items per task (None: all). ``sweep`` are the
    coefficients of task arithmetic on every arm. Where a method can use sensitivities of the experts, they come from
    ``calibration`` sampled answers each (0: none are measured, and methods that need them are skipped).
    Of the first ``landscape_seeds`` and ``health_seeds`` seeds the main arms get pictures at ``alphas`` × ``betas`` on
    ``landscape_items`` items, and the generation health of base, experts and the merges of ``health_methods`` on
    ``health_prompts`` prompts a task, cut off at ``health_tokens`` tokens; or on ``health_texts`` beginnings of plain
    text at ``health_temperature``, where the laboratory has text. Methods that look at inputs or subspaces have their
    tuned merges taken apart, ``ablation_layers`` layers one by one (0: none).
    """

    methods: tuple[str, ...] | None = None
    main_arms: tuple[str, ...] = ("rl", "sft")
    other_methods: tuple[str, ...] = FEW
    pair_methods: tuple[str, ...] = FEW
    pair_arms: tuple[str, ...] = ("rl", "sft")
    trials: int = 12
    dev_items: int | None = 48
    test_items: int | None = None
    sweep: tuple[float, ...] = SWEEP
    calibration: int = 64
    landscape_seeds: int = 5
    landscape_items: int = 64
    alphas: tuple[float, ...] = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    betas: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    health_seeds: int = 5
    health_methods: tuple[str, ...] = (*FEW, "sar_merging", "scf_rkl")
    health_prompts: int = 32
    health_tokens: int = 64
    health_texts: int = 0
    health_temperature: float = 0.7
    ablation_layers: int = 12

    def __post_init__(self) -> None:
        """RequestError for a budget no study could keep to."""
        least = {
            "trials": 2,
            "dev_items": 1,
            "test_items": 1,
            "calibration": 0,
            "landscape_seeds": 0,
            "landscape_items": 1,
            "health_seeds": 0,
            "health_prompts": 1,
            "health_tokens": 8,
            "health_texts": 0,
            "health_temperature": 0.0,
            "ablation_layers": 0,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise RequestError(f"a study's {name} must be at least {low}, not {value}")
        wrong = [value for value in self.sweep if not 0 < value < float("inf")]
        if wrong:
            raise RequestError(f"a coefficient of the sweep is {wrong[0]}", hint="Coefficients are above 0.")

    def check_methods(self, known: Sequence[str]) -> None:
        """RequestError with the nearest name when a method is not among ``known``."""
        for name in (*(self.methods or ()), *self.other_methods, *self.pair_methods, *self.health_methods):
            if name not in known:
                raise RequestError(f"a study cannot use the unknown method '{name}'", hint=did_you_mean(name, known))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_WORDS = StudyBudget(
    methods=SIZES,
    main_arms=("rl",),
    other_methods=("linear", "task_arithmetic", "covariance"),
    pair_methods=("task_arithmetic", "covariance"),
    pair_arms=("rl",),
    dev_items=32,
    test_items=128,
    sweep=(0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4),
    landscape_seeds=0,
    health_methods=("linear", "task_arithmetic", "ties", "covariance"),
    health_tokens=40,
    health_texts=64,
)
"""On tasks in words: larger models, which take longer to score."""

BUDGETS: Mapping[str, StudyBudget] = {
    "ci": StudyBudget(
        methods=FEW,
        trials=3,
        dev_items=8,
        sweep=(0.5, 1.0),
        calibration=0,
        landscape_seeds=1,
        landscape_items=8,
        alphas=(0.0, 1.0),
        betas=(-1.0, 0.0, 1.0),
        health_seeds=1,
        health_methods=("linear",),
        health_prompts=4,
        health_tokens=16,
        ablation_layers=0,
    ),
    "quick": StudyBudget(trials=8, test_items=128, pair_methods=("linear", "task_arithmetic")),
    "full": StudyBudget(),
    "characters": replace(_WORDS, methods=FAMILY, health_seeds=0),
    "words": replace(_WORDS, methods=FAMILY, health_methods=(*_WORDS.health_methods, "ram", "scf_rkl")),
    "words-128": _WORDS,
    "words-256": replace(_WORDS, trials=9, pair_arms=(), test_items=64, health_seeds=1, health_texts=32),
    "words-512": replace(
        _WORDS, trials=9, pair_arms=(), dev_items=24, test_items=64, health_seeds=0, ablation_layers=4
    ),
    # Every trial lets a language model write: what the tiny laboratory shows for all methods is checked for a few.
    "gpu": StudyBudget(
        methods=("linear", "task_arithmetic", "ties", "ram"),
        other_methods=("task_arithmetic",),
        pair_arms=(),
        trials=5,
        sweep=(0.5, 1.0, 1.5),
        calibration=0,
        landscape_seeds=0,
        health_seeds=0,
        ablation_layers=0,
    ),
    "smol": StudyBudget(
        methods=("task_arithmetic", "ties", "ram", "tsv", "actmat", "covariance"),
        main_arms=("rl",),
        other_methods=("task_arithmetic", "covariance"),
        pair_arms=(),
        trials=5,
        sweep=(0.5, 1.0, 1.5),
        calibration=0,
        landscape_seeds=0,
        health_seeds=0,
        ablation_layers=1,
    ),
}
"""What the laboratory's profiles spend on their study."""


def budget_of(profile: str) -> StudyBudget:
    """The budget of the profile called so; RequestError when there is none."""
    if profile not in BUDGETS:
        raise RequestError(f"no study is budgeted for the profile '{profile}'", hint=did_you_mean(profile, BUDGETS))
    return BUDGETS[profile]
