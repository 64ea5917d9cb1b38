"""Samples answers from weights in memory: they are placed into one model that stays loaded."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.causal import failures, load_causal
from rlmerge.evaluate.generate_transformers import write
from rlmerge.extras import require
from rlmerge.sensitivity.model import match_parameters

_BATCH = {"cpu": 32, "cuda": 384}
"""Answers written at once, by type of device."""
SIDE_BY_SIDE = 4
"""Processes that share one GPU: writing short answers leaves most of it idle."""


class Sampler:
    """A model of the architecture and tokenizer in ``home``, whose weights can be replaced.

    Whatever is placed is rounded to bfloat16, as experts and merges are stored; a CPU then computes in float32.
    """

    def __init__(self, home: Path, device: Any) -> None:
        self._torch = require("torch")
        self._causal = load_causal(home, device, "float32" if device.type == "cpu" else "bfloat16")
        self._parameters, _ = match_parameters(self._causal.model, open_checkpoint(home))
        self.tokenizer = self._causal.tokenizer
        self.chat = bool(getattr(self.tokenizer, "chat_template", None))

    def place(self, weights: Mapping[str, Any]) -> None:
        """Take ``weights``, tensors of torch or NumPy by stored name; RequestError when one is missing."""
        with failures(self._causal.path), self._torch.no_grad():
            for name, parameter in self._parameters.items():
                if name not in weights:
                    hint = "Place weights of a model like the one the sampler was made for."
                    raise RequestError("the weights lack this tensor", where=name, hint=hint)
                given = weights[name]
                if isinstance(given, np.ndarray):
                    given = self._torch.from_numpy(np.require(given, requirements=("C", "W")))
                parameter.copy_(given.detach().to(self._torch.bfloat16))

    def sample(self, prompts: Sequence[str], samples: int, tokens: int, seed: int) -> list[list[str]]:
        """``samples`` answers to each prompt at temperature 1, of at most ``tokens`` tokens; a greedy one if it is 0.

        The random numbers follow from ``seed`` and the prompt alone, so models are compared on the same ones.
        """
        with _fewer():
            outputs = write(
                self._causal,
                prompts,
                max_new_tokens=tokens,
                temperature=1.0 if samples else 0.0,
                samples=max(samples, 1),
                seed=seed,
                chat=self.chat,
                batch_size=_BATCH.get(self._causal.device.type, _BATCH["cpu"]),
            )
        return [[sample.text for sample in found] for found in outputs]


@contextmanager
def _fewer() -> Generator[None]:
    """Says, where memory runs out, that it is shared."""
    try:
        yield
    except RunError as error:
        if "memory" not in error.what:
            raise
        hint = "Let fewer models work side by side (--workers 1), or choose a smaller --model."
        raise RunError(error.what, where=error.where, hint=hint) from error
