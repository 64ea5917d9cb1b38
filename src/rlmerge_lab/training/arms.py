"""Ways of training an expert from the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of training an expert from the base.

    ``kind`` is reinforcement learning or supervised fine-tuning. ``rate`` multiplies the profile's learning rate.
    ``weights`` is the type weights are held in while training; all experts are stored in bfloat16. ``data`` is where
    supervised answers come from: the task's teacher, or the base's own correct samples. ``matched`` supervised training
    stops once it is as accurate as the reinforced expert of the same seed and task. ``positives`` drops every negative
    advantage.
    """

    name: str
    about: str
    kind: Literal["rl", "sft"]
    rate: float = 1.0
    weights: Literal["float32", "bfloat16"] = "float32"
    data: Literal["teacher", "own"] = "teacher"
    matched: bool = True
    positives: bool = False


ARMS = {
    arm.name: arm
    for arm in (
        Arm("rl", "GRPO, float32 master weights", "rl"),
        Arm("rl-bf16", "GRPO, weights held in bfloat16", "rl", weights="bfloat16"),
        Arm("rl-positive", "GRPO without negative advantages", "rl", positives=True),
        Arm("sft", "supervised on the teacher, same learning rate, matched accuracy", "sft"),
        Arm("sft-high-lr", "supervised on the teacher, ten times the learning rate, matched accuracy", "sft", rate=10),
        Arm("rft", "supervised on the base's own correct samples, matched accuracy", "sft", data="own"),
        Arm("sft-long", "supervised on the teacher, for a fixed long time", "sft", matched=False),
    )
}
"""Every arm by name."""
