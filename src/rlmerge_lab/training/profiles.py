"""How much the laboratory does: which experts, how large, how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rlmerge.errors import RequestError, did_you_mean

from .arms import FIRST_EDITION
from .tasks import CHARACTER_TASKS

TEXT = "text"
"""Stands among the shares of a base's tasks for plain English."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Sizes of one run of the laboratory. Every seed trains its own base and its own experts."""

    name: str
    about: str
    seeds: tuple[int, ...]
    tasks: tuple[str, ...] = CHARACTER_TASKS
    arms: tuple[str, ...] = FIRST_EDITION
    students: tuple[str, ...] = ()
    # The base: a Llama decoder, trained on all tasks in these shares, with some slips, and stopped early.
    hidden: int = 64
    layers: int = 3
    heads: int = 4
    mlp: int = 176
    base_steps: int = 6000
    base_batch: int = 64
    base_rate: float = 3e-3
    slips: float = 0.2
    shares: Mapping[str, float] = field(
        default_factory=lambda: {"reverse": 0.12, "shift": 0.14, "steps": 0.4, "make": 0.25, "brackets": 0.09}
    )
    # Tasks that the base knows and no expert is trained on, and tokens of a vocabulary of English, learnt by byte-pair
    # encoding, in which the tasks are put into words (None: characters). `text` among the shares is plain English.
    held: tuple[str, ...] = ()
    vocabulary: int | None = None
    # Experts.
    rate: float = 2e-4
    rl_steps: int = 120
    rl_prompts: int = 16
    rl_samples: int = 8
    sft_batch: int = 32
    sft_limit: int = 600
    long_steps: int = 400
    # Tokens that a student generates.
    distil_tokens: int = 200_000
    # Questions of each task.
    train: int = 1500
    dev: int = 128
    test: int = 256
    # A language model on data sets of reasoning-gym, named with their settings, in place of character tasks. `model` is
    # a directory or Hub id (None: SmolLM2-135M-Instruct); sizes and slips above are not used then.
    gym: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    model: str | None = None
    answer_tokens: int = 24
    samples: int = 4
    microbatch: int = 64
    # Experts are trained by LoRA of this rank on all linear layers (0: all weights are trained), then merged into it.
    lora: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Profile:
        """The profile ``to_dict`` described."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        return cls(**values)


def _words(name: str, hidden: int, base_steps: int) -> Profile:
    """The tasks in English at one width. Learning rates fall with the square root of the width."""
    slower = (hidden / 64) ** -0.5
    return Profile(
        name,
        f"tasks in English over a BPE vocabulary, models {hidden} wide",
        seeds=(0, 1, 2, 3, 4) if hidden == 64 else (0, 1, 2),
        tasks=("reverse", "shift", "steps", "make"),
        arms=("rl", "rl-constant", "rl-kl") if hidden == 64 else ("rl",),
        students=("distil", "distil-ta", "distil-own") if hidden == 64 else (),
        held=("sort", "largest"),
        vocabulary=2048,
        shares={"reverse": 0.1, "shift": 0.15, "steps": 0.34, "make": 0.2, "sort": 0.07, "largest": 0.05, TEXT: 0.09},
        hidden=hidden,
        heads=hidden // 16,
        mlp=hidden * 11 // 4,
        base_steps=base_steps,
        base_rate=3e-3 * slower,
        rate=3e-4 * slower,
        rl_steps=100,
    )


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "ci",
            "whether everything runs; no claim rests on it",
            seeds=(0,),
            tasks=("reverse", "steps"),
            hidden=32,
            layers=2,
            heads=2,
            mlp=88,
            base_steps=150,
            rl_steps=6,
            sft_limit=10,
            long_steps=10,
            train=200,
            dev=24,
            test=24,
        ),
        Profile(
            "quick",
            "three seeds of reinforced and supervised experts of three tasks, for a first look",
            seeds=(0, 1, 2),
            tasks=("reverse", "make", "brackets"),
            arms=("rl", "sft"),
            base_steps=2000,
            shares={"reverse": 0.3, "make": 0.55, "brackets": 0.15},
            rl_steps=60,
        ),
        Profile("full", "five seeds, every arm", seeds=(0, 1, 2, 3, 4)),
        Profile("characters", "the reinforced experts of `full` alone, beside `words`", (0, 1, 2, 3, 4), arms=("rl",)),
        _words("words", 64, 4000),
        _words("words-128", 128, 3000),
        _words("words-256", 256, 2000),
        _words("words-512", 512, 1200),
        Profile(
            "gpu",
            "SmolLM2 or your own model on tasks of reasoning-gym",
            seeds=(0, 1),
            tasks=("chain_sum", "spell_backward", "countdown"),
            gym={
                "chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
                "spell_backward": {"min_word_len": 3, "max_word_len": 5},
                "countdown": {
                    "min_numbers": 2,
                    "max_numbers": 3,
                    "min_value": 1,
                    "max_value": 9,
                    "min_target": 1,
                    "max_target": 27,
                    "operators": ["+", "-"],
                },
            },
            shares={},
            slips=0.0,
            base_steps=60,
            base_batch=32,
            base_rate=5e-5,
            rate=1e-5,
            rl_steps=40,
            sft_limit=120,
            long_steps=120,
            train=512,
            dev=48,
            test=96,
        ),
        Profile(
            "smol",
            "SmolLM2 by LoRA, in some hours on a CPU",
            seeds=(0,),
            tasks=("chain_sum", "spell_backward", "letter_counting"),
            arms=("rl",),
            # Short questions and answers: on a CPU every token of a prompt is paid for.
            gym={
                "chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
                "spell_backward": {"min_word_len": 3, "max_word_len": 4},
                "letter_counting": {"min_words": 2, "max_words": 4},
            },
            shares={},
            slips=0.0,
            base_steps=60,
            base_batch=16,
            base_rate=5e-5,
            lora=16,
            rate=2e-4,
            rl_steps=30,
            rl_prompts=4,
            rl_samples=8,
            distil_tokens=10_000,
            train=256,
            dev=24,
            test=48,
            answer_tokens=12,
            microbatch=8,
        ),
    )
}
"""Every profile by name."""


def profile(name: str) -> Profile:
    """The profile called ``name``; RequestError when there is none."""
    if name not in PROFILES:
        raise RequestError(f"no profile '{name}'", hint=did_you_mean(name, PROFILES))
    return PROFILES[name]
