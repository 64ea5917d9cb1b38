"""What is known of the outputs of models, as frozen data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of an output, the one that ends it included."""

    mean: float
    p10: float
    p50: float
    p90: float
    max: int


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """What one model's own outputs look like.

    ``length_cap_repetition`` is the share of outputs that hit the length limit with an n-gram repeated at least 8 times
    at the end; ``seq_rep_4`` the mean share of 4-grams that occurred before in their output; ``stop_rate`` the share
    that ended by itself. ``edges`` [bins + 1] and ``counts`` [bins] are the histogram of lengths. ``entropy`` is the
    mean next-token entropy and ``kl_to`` the mean next-token KL(this model ‖ other), in nats at temperature 1, over
    every position at which this model wrote a token; a KL is infinite when the other excludes what this one allows.
    """

    name: str
    length_cap_repetition: float
    seq_rep_4: float
    stop_rate: float
    length: Length
    edges: tuple[int, ...]
    counts: tuple[int, ...]
    entropy: float
    kl_to: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data; an infinite KL is None, for JSON knows no infinity."""
        return {
            "name": self.name,
            "length_cap_repetition": self.length_cap_repetition,
            "seq_rep_4": self.seq_rep_4,
            "stop_rate": self.stop_rate,
            "length": asdict(self.length),
            "histogram": {"edges": list(self.edges), "counts": list(self.counts)},
            "entropy": self.entropy,
            "kl_to": {name: value if math.isfinite(value) else None for name, value in self.kl_to.items()},
        }


@dataclass(frozen=True, slots=True)
class Health:
    """The health of several models on the same prompts, with ``samples`` outputs a prompt."""

    prompts: int
    samples: int
    max_new_tokens: int
    temperature: float
    models: tuple[ModelHealth, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return {
            "prompts": self.prompts,
            "samples": self.samples,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "models": [model.to_dict() for model in self.models],
        }
