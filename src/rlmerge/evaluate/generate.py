"""Outputs of a model to prompts: one interface over NumPy, transformers, vLLM and servers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlmerge.errors import RequestError, RunError, did_you_mean
from rlmerge.kernels.random import stream_key

BACKENDS = ("tiny", "transformers", "vllm", "server")


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
        raise RequestError(f"there is no back end '{backend}'", hint=did_you_mean(backend, BACKENDS))
    if (server is not None) != (backend == "server"):
        what = f"the back end '{backend}' takes no server" if server else "the back end 'server' needs its URL"
        raise RequestError(what, hint="Use --backend server --server http://localhost:8000/v1.")
    if backend == "tiny":
        from rlmerge.evaluate.generate_tiny import TinyGenerator

        return TinyGenerator()
    if backend == "transformers":
        from rlmerge.evaluate.generate_transformers import TransformersGenerator

        return TransformersGenerator(device, batch_size)
    if backend == "vllm":
        from rlmerge.evaluate.generate_vllm import VllmGenerator

        return VllmGenerator()
    from rlmerge.evaluate.generate_server import ServerGenerator

    assert server is not None
    return ServerGenerator(server)


def check_request(prompts: Sequence[str], max_new_tokens: int, temperature: float, samples: int) -> None:
    """RequestError unless the arguments of ``Generator.generate`` make sense."""
    if not prompts or not all(prompts):
        what = "a prompt is empty" if prompts else "there are no prompts"
        raise RequestError(what, hint="Give at least one prompt of at least one character each.")
    if max_new_tokens < 1 or samples < 1:
        name, value = ("max_new_tokens", max_new_tokens) if max_new_tokens < 1 else ("samples", samples)
        raise RequestError(f"{name} is {value}", hint="It must be at least 1.")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise RequestError(f"the temperature is {temperature}", hint="It must be 0 (greedy) or a positive number.")


def random_streams(prompts: Sequence[str], samples: int, seed: int) -> list[list[tuple[int, int]]]:
    """Keys of ``kernels.random`` for each sample of each prompt, whatever other prompts there are.

    A prompt that occurs again gets other keys than the first time.
    """
    seen: Counter[str] = Counter()
    keys: list[list[tuple[int, int]]] = []
    for prompt in prompts:
        keys.append([stream_key("sample", seed, seen[prompt], index, prompt) for index in range(samples)])
        seen[prompt] += 1
    return keys


def refuse_undefined(undefined: bool, model: Path) -> None:
    """RunError when logits are NaN: such a model has no next-token distribution."""
    if undefined:
        hint = "Its weights are broken or overflow; `rlmerge verify` and the merge's warnings say where."
        raise RunError("the model's logits are NaN", where=str(model), hint=hint)
