"""What a sensitivity measurement is asked to do."""

from __future__ import annotations

from typing import Literal

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.frozen import frozen

Mode = Literal["empirical", "true", "reward"]

MODES: tuple[Mode, ...] = ("empirical", "true", "reward")
DTYPES = ("float32", "bfloat16", "float16", "float64")


@frozen(kw_only=True)
class SensitivityOptions:
    """Choices of ``measure``; RequestError when one is out of range.

    ``sequences`` caps the examples read (None: all of a file; 64 for reasoning-gym). ``samples`` is how many responses
    are drawn for each prompt in the modes that sample, each of at most ``max_new_tokens``. ``max_length`` caps prompt
    and response together, in tokens. ``batch_size`` is how many sequences share one forward and backward pass; the
    gradients are squared per sequence whatever it is. ``dtype`` is the type gradients are computed in; they are squared
    and summed in float32. ``stream_layers`` makes one pass for each group of layers, holding only its sums.
    """

    mode: Mode = "empirical"
    reward: str | None = None
    sequences: int | None = None
    samples: int = 1
    max_length: int = 2048
    max_new_tokens: int = 256
    batch_size: int = 1
    seed: int = 0
    dtype: str = "float32"
    device: str = "auto"
    gradient_checkpointing: bool = False
    stream_layers: bool = False
    gram: bool = False
    shard_size: int = 5 * 10**9
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (("mode", self.mode, MODES), ("dtype", self.dtype, DTYPES)):
            if value not in known:
                raise RequestError(f"unknown {name} '{value}'", hint=did_you_mean(value, known))
        for name, low in (
            ("sequences", 1),
            ("samples", 1),
            ("max_length", 2),
            ("max_new_tokens", 1),
            ("batch_size", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < low:
                raise RequestError(f"{name} must be at least {low}, not {value}")
        if self.mode == "reward" and self.reward is None:
            raise RequestError(
                "mode 'reward' needs a reward", hint="Give --reward exact, regex:PATTERN or reasoning-gym."
            )
        if self.mode != "reward" and self.reward is not None:
            raise RequestError(f"a reward has no meaning in mode '{self.mode}'", hint="Add --mode reward.")
