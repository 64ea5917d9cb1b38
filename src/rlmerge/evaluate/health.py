"""Generation health: do models still stop, vary and keep to the point, and how far have they moved from one another?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.errors import RequestError, RlmergeError, did_you_mean
from rlmerge.evaluate.generate import Generator, Sample, Sampling, make_generator
from rlmerge.evaluate.predict import CausalPredictor, Output, Predictor, TinyPredictor, divergence, entropy
from rlmerge.evaluate.tokenizers import vocabulary_difference
from rlmerge.frozen import frozen
from rlmerge.jsondata import plain_fields
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.model import find_device, release_memory
from rlmerge.language.tiny import MAX_PARAMETERS, TinyConfig
from rlmerge.progress import Progress, Quiet

TIMES = 8
"""How often an n-gram must stand at the end of an output that reached the length limit for it to count as a loop."""

_BINS = 20


@frozen(slots=True)
class Length:
    """Tokens of an output, the one that ends it included."""

    mean: float
    p10: float
    p50: float
    p90: float
    max: int


@frozen(slots=True)
class Histogram:
    """How many outputs [bins] have a length from one of ``edges`` [bins + 1] up to the next."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]


@frozen(slots=True)
class ModelHealth:
    """What one model's own outputs look like.

    ``length_cap_repetition`` is the share of outputs that hit the length limit with an n-gram repeated at least 8 times
    at the end; ``seq_rep_4`` the mean share of 4-grams that occurred before in their output; ``stop_rate`` the share
    that ended by itself; ``histogram`` that of the lengths. ``entropy`` is the mean next-token entropy and ``kl_to``
    the mean next-token KL(this model ‖ other), in nats at temperature 1, over every position at which this model wrote
    a token; a KL is infinite when the other excludes what this one allows, and None in JSON.
    """

    name: str
    length_cap_repetition: float
    seq_rep_4: float
    stop_rate: float
    length: Length
    histogram: Histogram
    entropy: float
    kl_to: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return plain_fields(self)


@frozen(slots=True)
class Health:
    """The health of several models on the same prompts, with ``samples`` outputs a prompt."""

    prompts: int
    samples: int
    max_new_tokens: int
    temperature: float
    models: tuple[ModelHealth, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return plain_fields(self)


def health(
    models: Mapping[str, Path],
    prompts: Sequence[str],
    *,
    references: Sequence[str] | None = None,
    generator: Generator | None = None,
    device: str = "auto",
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    samples: int = 1,
    seed: int = 0,
    chat: bool = False,
    progress: Progress | None = None,
) -> Health:
    """Let every model answer ``prompts`` and measure what it wrote.

    ``models`` are directories by name, the base first; ``references`` name those that the KL is measured to (all if
    None; none for an empty sequence). Small character-level Llamas run in NumPy and all others in transformers on
    ``device``; a ``generator`` replaces the writing, not the measuring, and must give token ids. At most two models and
    128 MiB of probabilities for each are in memory at a time. Where models compute in bfloat16, as on most GPUs, a KL
    carries its rounding errors.

    RequestError when there are no prompts, when ``max_new_tokens`` is below 8 (nothing could be repeated 8 times), or
    when a model's vocabulary is not the first one's, for which no KL is defined; RunError when a model fails.
    """
    progress = progress or Quiet()
    others = tuple(models) if references is None else tuple(references)
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, samples=samples, seed=seed, chat=chat)
    _check(models, others, max_new_tokens)
    small = all(map(_runs_in_numpy, models.values()))
    writer = generator or make_generator("tiny" if small else "transformers", device=device)
    written: dict[str, list[Sample]] = {}
    for name, path in models.items():
        progress.start(f"{name} writes", 0)
        written[name] = [sample for row in writer.generate(path, prompts, sampling) for sample in row]
        progress.done()
    writer.close()
    open_model = TinyPredictor if small else _causal_opener(device)
    measured: list[ModelHealth] = []
    for name, path in models.items():
        progress.start(f"{name} is compared", 0)
        measured.append(_measure(name, path, written[name], models, others, open_model, sampling))
        progress.done()
    return Health(len(prompts), samples, max_new_tokens, temperature, tuple(measured))


def _measure(
    name: str,
    path: Path,
    samples: Sequence[Sample],
    models: Mapping[str, Path],
    references: Sequence[str],
    open_model: Callable[[Path], Predictor],
    sampling: Sampling,
) -> ModelHealth:
    if not all(sample.tokens for sample in samples):
        hint = "Use the back end transformers or vllm: a server tells no token ids."
        raise RequestError("the health of outputs needs their tokens", where=name, hint=hint)
    lengths = np.array([len(sample.tokens) for sample in samples])
    texts = [sample.tokens[:-1] if sample.stopped else sample.tokens for sample in samples]
    longest = sampling.max_new_tokens
    edges = [*range(1, longest + 1, -(-longest // _BINS)), longest + 1]
    model = open_model(path)
    prompts = {sample.prompt: model.encode(sample.prompt, chat=sampling.chat) for sample in samples}
    outputs = [Output(prompts[sample.prompt], sample.tokens) for sample in samples]
    spread = entropy(model, outputs)
    apart = {other: divergence(model, open_model(models[other]), outputs) for other in references if other != name}
    p10, p50, p90 = np.quantile(lengths, [0.1, 0.5, 0.9]).tolist()
    return ModelHealth(
        name=name,
        length_cap_repetition=float(np.mean([not s.stopped and loops(t) for s, t in zip(samples, texts, strict=True)])),
        seq_rep_4=float(np.mean([repeated_share(text) for text in texts])),
        stop_rate=float(np.mean([sample.stopped for sample in samples])),
        length=Length(float(lengths.mean()), p10, p50, p90, int(lengths.max())),
        histogram=Histogram(tuple(edges), tuple(np.histogram(lengths, edges)[0].tolist())),
        entropy=spread,
        kl_to=apart,
    )


def _check(models: Mapping[str, Path], references: Sequence[str], max_new_tokens: int) -> None:
    if not models:
        raise RequestError("there are no models", hint="Name at least one.")
    unknown = next((name for name in references if name not in models), None)
    if unknown is not None:
        raise RequestError(f"unknown reference {unknown!r}", hint=did_you_mean(unknown, models))
    if max_new_tokens < TIMES:
        hint = f"A loop is an n-gram repeated {TIMES} times."
        raise RequestError(f"max_new_tokens must be at least {TIMES}, not {max_new_tokens}", hint=hint)
    (first, base), *others = ((name, open_checkpoint(path)) for name, path in models.items())
    for name, other in others if references else ():
        difference = vocabulary_difference(base, other)
        if difference:
            what = f"KL to it is undefined: its vocabulary is not that of {first} ({difference})"
            hint = f"Leave it out, or give it the tokenizer of {first} if it was trained with that one."
            raise RequestError(what, where=name, hint=hint)


def _runs_in_numpy(path: Path) -> bool:
    """Whether a model is a plain Llama over characters, and small enough."""
    try:
        config = TinyConfig.parse(open_checkpoint(path).config or {}, str(path))
        read_vocabulary(path)
    except RlmergeError:
        return False
    return config.parameters <= MAX_PARAMETERS


def _causal_opener(device: str) -> Callable[[Path], Predictor]:
    found = find_device(device)

    def load(path: Path) -> Predictor:
        release_memory()
        return CausalPredictor.load(path, found)

    return load


def loops(tokens: Sequence[int], times: int = TIMES) -> bool:
    """Whether ``tokens`` end with ``times`` copies of one n-gram, of any length n ≥ 1, one after the other."""
    for n in range(1, len(tokens) // times + 1):
        tail = tokens[len(tokens) - n * times :]
        # What equals itself moved by n repeats its first n.
        if tail[n:] == tail[:-n]:
            return True
    return False


def repeated_share(tokens: Sequence[int], n: int = 4) -> float:
    """seq-rep-n: the share of n-grams that occurred before, 1 − distinct / all (Welleck et al., arXiv 1908.04319).

    0 for outputs of fewer than n tokens, which repeat nothing.
    """
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
