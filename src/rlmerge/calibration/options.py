"""What a calibration is asked to do."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.frozen import frozen

Fit = Literal["auto", "weight", "lambda"]
Responses = Literal["sampled", "given"]

FITS: tuple[Fit, ...] = ("auto", "weight", "lambda")
RESPONSES: tuple[Responses, ...] = ("sampled", "given")
DTYPES = ("float32", "bfloat16", "float16", "float64")


@frozen(kw_only=True)
class CalibrationOptions:
    """Choices of ``calibrate``; RequestError when one is out of range.

    ``sequences`` prompts of each expert are fitted on, and up to ``held_out`` after them only reported; of data that is
    shorter, the same share is held out. ``samples`` responses of at most ``max_new_tokens`` are drawn for each prompt,
    or the data's own are taken (``responses``). ``max_length`` caps prompt and response together, in tokens.
    ``layer_groups`` cuts the layers into as many runs with coefficients of their own (0: no cut), and ``kinds`` cuts
    each by module type. ``top`` is how many of an expert's likeliest tokens are told apart at a position; the others
    are compared as one. ``drift_weight`` weighs the divergence from the base on prompts of no expert. ``ridge`` weighs
    the sum of squares of what coefficients moved from where they start. ``dtype`` is what the model computes in.
    ``scratch`` is a directory for what is held in memory otherwise: the base and a change for each expert, float32.
    """

    fit: Fit = "auto"
    sequences: int = 64
    held_out: int = 16
    responses: Responses = "sampled"
    samples: int = 1
    max_length: int = 2048
    max_new_tokens: int = 256
    layer_groups: int = 4
    kinds: bool = False
    top: int = 256
    drift_weight: float = 1.0
    ridge: float = 1e-4
    steps: int = 40
    batch_size: int = 8
    seed: int = 0
    dtype: str = "float32"
    device: str = "auto"
    gradient_checkpointing: bool = False
    stream_gradients: bool = False
    scratch: str | None = None
    memory: int = 512 * 2**20
    workers: int | None = None
    force: bool = False

    @classmethod
    def of(cls, **given: Any) -> CalibrationOptions:
        """The options a caller spells out; RequestError for an unknown name."""
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise RequestError(f"unknown option '{name}'", hint=did_you_mean(name, names))
        return cls(**given)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("fit", self.fit, FITS),
            ("responses", self.responses, RESPONSES),
            ("dtype", self.dtype, DTYPES),
        ):
            if value not in known:
                raise RequestError(f"unknown {name} '{value}'", hint=did_you_mean(value, known))
        for name, low in (
            ("sequences", 1),
            ("held_out", 0),
            ("samples", 1),
            ("max_length", 2),
            ("max_new_tokens", 1),
            ("layer_groups", 0),
            ("top", 1),
            ("drift_weight", 0),
            ("ridge", 0),
            ("steps", 1),
            ("batch_size", 1),
        ):
            value = getattr(self, name)
            if not math.isfinite(value) or value < low:
                raise RequestError(f"{name} must be at least {low}, not {value}")
