"""Outputs of a model to prompts: one interface over NumPy, transformers, vLLM and servers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.frozen import frozen
from rlmerge.kernels.random import stream_key

BACKENDS = ("tiny", "transformers", "vllm", "server")


@frozen(slots=True, kw_only=True)
class Sampling:
    """How outputs are drawn: ``samples`` to each prompt, of at most ``max_new_tokens`` tokens each.

    Tokens come from softmax(logits / ``temperature``) with no filter on top; temperature 0 takes the most likely one.
    The draws of a prompt follow from ``seed``, its text and how often it occurred before, whatever else is in the
    batch. With ``chat`` a prompt is the user's turn in the model's chat template. RequestError when a value is out of
    range.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    samples: int = 1
    seed: int = 0
    chat: bool = False

    def __post_init__(self) -> None:
        for name, value in (("max_new_tokens", self.max_new_tokens), ("samples", self.samples)):
            if value < 1:
                raise RequestError(f"{name} must be at least 1, not {value}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise RequestError(f"temperature must be 0 (greedy) or a positive number, not {self.temperature}")

    def streams(self, prompts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Keys of ``kernels.random`` for each sample of each prompt, whatever other prompts there are.

        A prompt that occurs again gets other keys than the first time.
        """
        seen: Counter[str] = Counter()
        keys: list[list[tuple[int, int]]] = []
        for prompt in prompts:
            own = [stream_key("sample", self.seed, seen[prompt], index, prompt) for index in range(self.samples)]
            keys.append(own)
            seen[prompt] += 1
        return keys


@frozen(slots=True)
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

    def generate(self, model: Path, prompts: Sequence[str], sampling: Sampling) -> list[list[Sample]]:
        """The outputs to each prompt. RequestError for prompts or models that cannot work, RunError when it fails."""
        ...

    def close(self) -> None:
        """Give back the memory of the model that is held for the next call; the generator stays usable."""
        ...


def make_generator(backend: str, *, server: str | None = None, device: str = "auto", batch_size: int = 32) -> Generator:
    """The back end called ``backend``: ``tiny``, ``transformers``, ``vllm`` or ``server``.

    ``tiny`` runs character-level Llamas in NumPy. ``server`` is the URL of an OpenAI-compatible API; its key comes from
    the environment. ``device`` and ``batch_size`` are for transformers. RequestError for a back end that is unknown, is
    not installed, or does not fit the other arguments.
    """
    if backend not in BACKENDS:
        raise RequestError(f"unknown back end '{backend}'", hint=did_you_mean(backend, BACKENDS))
    if (server is not None) != (backend == "server"):
        what = f"the back end '{backend}' takes no server" if server else "the back end 'server' needs its URL"
        raise RequestError(what, hint="Use --backend server --server http://localhost:8000/v1.")
    if backend == "tiny":
        from rlmerge.evaluate.generate.tiny import TinyGenerator

        return TinyGenerator()
    if backend == "transformers":
        from rlmerge.evaluate.generate.transformers import TransformersGenerator

        return TransformersGenerator(device, batch_size)
    if backend == "vllm":
        from rlmerge.evaluate.generate.vllm import VllmGenerator

        return VllmGenerator()
    from rlmerge.evaluate.generate.server import ServerGenerator

    assert server is not None
    return ServerGenerator(server)


def check_prompts(prompts: Sequence[str]) -> None:
    """RequestError unless there are prompts and none is empty."""
    if not prompts or not all(prompts):
        what = "a prompt is empty" if prompts else "there are no prompts"
        raise RequestError(what, hint="Give at least one prompt of at least one character each.")
