"""Outputs of a model to prompts: one interface over NumPy, transformers, vLLM and servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Sample:
    """One output to one prompt.

    ``text`` is without the token that ended it; ``tokens`` are the generated ids, that token included, and empty where
    a server returns text alone. ``stopped`` says that the model ended by itself and not at the length limit.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]
    stopped: bool


class Generator(Protocol):
    """A back end that lets models write."""

    def identity(self) -> Mapping[str, Any]:
        """What besides model and arguments decides the outputs: back end and versions; JSON types."""
        ...

    def generate(
        self,
        model: Path,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float,
        samples: int,
        seed: int,
        chat: bool,
    ) -> list[list[Sample]]:
        """For each prompt, ``samples`` outputs of at most ``max_new_tokens`` tokens each.

        Outputs are drawn from softmax(logits / ``temperature``) with no filter on top; temperature 0 takes the most
        likely token. The draws of a prompt follow from ``seed``, its text and how often it occurred before, whatever
        else is in the batch. With ``chat`` a prompt is the user's turn in the model's chat template. RequestError for
        arguments or models that cannot work; RunError when generation fails.
        """
        ...
