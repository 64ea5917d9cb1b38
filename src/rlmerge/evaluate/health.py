"""Generation health: do models still stop, vary and keep to the point, and how far have they moved from one another?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.errors import RequestError, RlmergeError
from rlmerge.evaluate.causal import release_memory
from rlmerge.evaluate.generate import Generator, Sample, make_generator
from rlmerge.evaluate.health_results import Health, Length, ModelHealth
from rlmerge.evaluate.predict import CausalPredictor, Output, Predictor, TinyPredictor, divergence, entropy
from rlmerge.evaluate.repetition import TIMES, loops, repeated_share
from rlmerge.evaluate.tasks import read_vocabulary
from rlmerge.evaluate.tiny import MAX_PARAMETERS, TinyConfig
from rlmerge.progress import Progress, Quiet

_BINS = 20


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
    told = progress or Quiet()
    others = tuple(models) if references is None else tuple(references)
    _check(models, others, max_new_tokens)
    small = all(map(_runs_in_numpy, models.values()))
    writer = generator or make_generator("tiny" if small else "transformers", device=device)
    written: dict[str, list[Sample]] = {}
    for name, path in models.items():
        told.start(f"{name} writes", 0)
        rows = writer.generate(
            path,
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            samples=samples,
            seed=seed,
            chat=chat,
        )
        written[name] = [sample for row in rows for sample in row]
        told.done()
    writer.close()
    open_model = TinyPredictor if small else _causal_opener(device)
    measured: list[ModelHealth] = []
    for name, path in models.items():
        told.start(f"{name} is compared", 0)
        measured.append(_measure(name, path, written[name], models, others, open_model, max_new_tokens, chat))
        told.done()
    return Health(len(prompts), samples, max_new_tokens, temperature, tuple(measured))


def _measure(
    name: str,
    path: Path,
    samples: Sequence[Sample],
    models: Mapping[str, Path],
    references: Sequence[str],
    open_model: Callable[[Path], Predictor],
    max_new_tokens: int,
    chat: bool,
) -> ModelHealth:
    if not all(sample.tokens for sample in samples):
        hint = "Use the back end transformers or vllm: a server tells no token ids."
        raise RequestError("the health of outputs needs their tokens", where=name, hint=hint)
    lengths = np.array([len(sample.tokens) for sample in samples])
    texts = [sample.tokens[:-1] if sample.stopped else sample.tokens for sample in samples]
    edges = list(range(1, max_new_tokens + 1, -(-max_new_tokens // _BINS)))
    edges.append(max_new_tokens + 1)
    model = open_model(path)
    prompts = {sample.prompt: model.encode(sample.prompt, chat=chat) for sample in samples}
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
        edges=tuple(edges),
        counts=tuple(np.histogram(lengths, edges)[0].tolist()),
        entropy=spread,
        kl_to=apart,
    )


def _check(models: Mapping[str, Path], references: Sequence[str], max_new_tokens: int) -> None:
    from rlmerge.inspection.identity import compare_identities

    if not models:
        raise RequestError("there are no models", hint="Name at least one.")
    unknown = next((name for name in references if name not in models), None)
    if unknown is not None:
        raise RequestError(f"the reference {unknown!r} is none of the models", hint=f"They are: {', '.join(models)}.")
    if max_new_tokens < TIMES:
        hint = f"Use {TIMES} or more: a loop is an n-gram repeated {TIMES} times."
        raise RequestError(f"max_new_tokens is {max_new_tokens}", hint=hint)
    names = list(models)
    found = compare_identities([open_checkpoint(path) for path in models.values()], names) if references else ()
    for difference in found:
        if difference.aspect == "vocabulary":
            what = f"KL to it is undefined: its vocabulary is not that of {names[0]} ({difference.detail})"
            hint = f"Leave it out, or give it the tokenizer of {names[0]} if it was trained with that one."
            raise RequestError(what, where=difference.expert, hint=hint)


def _runs_in_numpy(path: Path) -> bool:
    """Whether a model is a plain Llama over characters, and small enough."""
    try:
        config = TinyConfig.parse(open_checkpoint(path).config or {}, str(path))
        read_vocabulary(path)
    except RlmergeError:
        return False
    return config.parameters <= MAX_PARAMETERS


def _causal_opener(device: str) -> Callable[[Path], Predictor]:
    from rlmerge.sensitivity.model import find_device

    found = find_device(device)

    def load(path: Path) -> Predictor:
        release_memory()
        return CausalPredictor.load(path, found)

    return load
