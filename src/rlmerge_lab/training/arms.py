"""Ways of training an expert from the base, and a student from all experts of a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of training an expert from the base.

    ``kind`` is reinforcement learning or supervised fine-tuning. ``rate`` multiplies the profile's learning rate.
    ``weights`` is the type weights are held in while training; all experts are stored in bfloat16. ``data`` is where
    supervised answers come from: the task's teacher, or the base's own correct samples. ``matched`` supervised training
    stops once it is as accurate as the reinforced expert of the same seed and task. ``positives`` drops every negative
    advantage, ``constant`` makes advantages +1 and -1, and ``kl`` weighs a penalty on leaving the base: see
    ``trainers.train_reinforced``.
    """

    name: str
    about: str
    kind: Literal["rl", "sft"]
    rate: float = 1.0
    weights: Literal["float32", "bfloat16"] = "float32"
    data: Literal["teacher", "own"] = "teacher"
    matched: bool = True
    positives: bool = False
    constant: bool = False
    kl: float = 0.0

    @property
    def identity(self) -> list[Any]:
        """What decides an expert, JSON-able; what an arm leaves alone is not in it, so that older experts stay."""
        later = {"constant": self.constant, "kl": self.kl}
        changed = {name: value for name, value in later.items() if value}
        how = [self.kind, self.rate, self.weights, self.data, self.matched, self.positives]
        return [*how, changed] if changed else how


ARMS = {
    arm.name: arm
    for arm in (
        Arm("rl", "GRPO, float32 master weights", "rl"),
        Arm("rl-bf16", "GRPO, weights held in bfloat16", "rl", weights="bfloat16"),
        Arm("rl-positive", "GRPO without negative advantages", "rl", positives=True),
        Arm("rl-constant", "GRPO with advantages of +1 and -1", "rl", constant=True),
        Arm("rl-kl", "GRPO with a KL penalty on leaving the base", "rl", kl=0.04),
        Arm("sft", "supervised on the teacher, same learning rate, matched accuracy", "sft"),
        Arm("sft-high-lr", "supervised on the teacher, ten times the learning rate, matched accuracy", "sft", rate=10),
        Arm("rft", "supervised on the base's own correct samples, matched accuracy", "sft", data="own"),
        Arm("sft-long", "supervised on the teacher, for a fixed long time", "sft", matched=False),
    )
}
"""Every arm by name."""

FIRST_EDITION = ("rl", "rl-bf16", "rl-positive", "sft", "sft-high-lr", "rft", "sft-long")
"""What profiles train unless they say otherwise: arms that tell the claims of the two papers apart."""


@dataclass(frozen=True, slots=True)
class Student:
    """A model of all tasks, distilled on its own samples from the reinforced experts of a seed.

    It starts at the base, or at the merge of those experts by the ``start`` method.
    """

    name: str
    about: str
    start: str | None = None


STUDENTS = {
    student.name: student
    for student in (
        Student("distil", "distilled on its own samples from all RL experts, from the base"),
        Student("distil-ta", "the same, from tuned task arithmetic", "task_arithmetic"),
        Student("distil-own", "the same, from the tuned `covariance` merge", "covariance"),
    )
}
"""Every student by name."""
