"""What each expert says: its samples, and at every position of them how likely it finds the next token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlmerge.calibration.options import CalibrationOptions
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.extras import require
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import decode
from rlmerge.language.data import Dataset
from rlmerge.language.generation import refuse_nan
from rlmerge.language.model import Causal, failures, load_tokenizer
from rlmerge.language.tokens import Encoded, TokenSequence, encode_references
from rlmerge.merging.plan import Plan
from rlmerge.progress import Progress
from rlmerge.sensitivity.options import SensitivityOptions
from rlmerge.sensitivity.sampling import sample_responses


@frozen
class Target:
    """A sequence, and the expert's distribution at each of its T response tokens.

    ``tokens`` [T, n] are the n likeliest, ``logs`` [T, n] their log-probabilities, and ``rest`` [T] is that of all
    others together; None where there are no others.
    """

    sequence: TokenSequence
    tokens: Tensor
    logs: Tensor
    rest: Tensor | None


@frozen
class Heard:
    """Targets of one expert, those that are fitted on and those held out; what became of its prompts."""

    fitted: tuple[Target, ...]
    held_out: tuple[Target, ...]
    truncated: int
    dropped: int


def voice(causal: Causal, checkpoint: Checkpoint) -> Causal:
    """``causal``, whose weights are the expert's by now, with the expert's own tokenizer and ends where it has some."""
    names = {file.name for file in checkpoint.side_files}
    if not names & {"tokenizer.json", "tokenizer.model", "vocab.json"}:
        return causal
    root = checkpoint.side_root
    tokenizer = load_tokenizer(root)
    ends = [*_listed_ends(root, names), tokenizer.eos_token_id, *causal.ends]
    return replace(causal, tokenizer=tokenizer, ends=tuple(dict.fromkeys(end for end in ends if end is not None)))


def _listed_ends(root: Path, names: set[str]) -> list[Any]:
    if "generation_config.json" not in names:
        return []
    found: Any = require("transformers").GenerationConfig.from_pretrained(root, local_files_only=True).eos_token_id
    return found if isinstance(found, list) else [found]


def hear(
    causal: Causal, dataset: Dataset, options: CalibrationOptions, advance: Callable[[int], None] = lambda done: None
) -> Heard:
    """Draw or read the responses to an expert's prompts, and keep what it says of them.

    RequestError when no prompt has tokens or leaves room for a response.
    """
    examples = dataset.examples
    fitted = fitting_share(len(examples), options)
    encoded = [
        _responses(causal, replace(dataset, examples=part), options) if part else Encoded((), 0, 0)
        for part in (examples[:fitted], examples[fitted:])
    ]
    advance(len(examples))
    parts: list[tuple[Target, ...]] = []
    for each in encoded:
        parts.append(
            tuple(target for batch in batches(each.sequences, options) for target in _look(causal, batch, options))
        )
    truncated, dropped = (sum(getattr(each, name) for each in encoded) for name in ("truncated", "dropped"))
    return Heard(parts[0], parts[1], truncated, dropped)


def check_places(plan: Plan, parameters: Mapping[str, Any]) -> None:
    """CheckpointError for a merged tensor that the base's model has no parameter for."""
    lost = [name for name, job in plan.jobs.items() if job.method is not None and name not in parameters]
    if lost:
        hint = "Calibration runs the merge in the base's architecture: calibrate experts that share it."
        what = f"the merge makes a tensor that the base's model has no place for ({len(lost)} in all)"
        raise CheckpointError(what, where=lost[0], hint=hint)


def listen(
    causal: Causal,
    plan: Plan,
    parameters: Mapping[str, Any],
    sets: Sequence[Dataset],
    general: Dataset | None,
    options: CalibrationOptions,
    progress: Progress,
) -> Iterator[Heard]:
    """What each expert says, and last the base where it is asked; the model has one's weights after the other's."""
    total = sum(len(each.examples) for each in sets) + (len(general.examples) if general else 0)
    progress.start("Listening to the experts", total, "prompts")
    drift = None if general is None else hear(causal, general, options, progress.advance)
    for k, (expert, dataset) in enumerate(zip(plan.experts, sets, strict=True)):
        with failures(causal.path), torch.no_grad():
            for name, job in plan.jobs.items():
                if job.method is not None:
                    source = job.experts[k]
                    weights = torch.from_numpy(np.array(decode(source.read(), source.dtype)))
                    parameters[name].copy_(weights.view(parameters[name].shape))
        speaking = voice(causal, expert)
        heard = hear(speaking, dataset, options, progress.advance)
        if k == 0:
            check_causal(speaking, heard.fitted[0].sequence)
        yield heard
    if drift is not None:
        yield drift
    progress.done()


def fitting_share(count: int, options: CalibrationOptions) -> int:
    """How many of ``count`` prompts are fitted on: all but the share that the options hold out, at least one."""
    held_out = count * options.held_out // (options.sequences + options.held_out)
    return max(1, count - held_out)


def batches(sequences: Sequence[Any], options: CalibrationOptions) -> list[Sequence[Any]]:
    """Runs of ``batch_size``."""
    size = options.batch_size
    return [sequences[first : first + size] for first in range(0, len(sequences), size)]


def padded(sequences: Sequence[TokenSequence], device: Any) -> tuple[Tensor, Tensor]:
    """Ids [B, T] with zeros on the right, and which of them are there."""
    width = max(len(sequence.ids) for sequence in sequences)
    rows = [[*sequence.ids, *[0] * (width - len(sequence.ids))] for sequence in sequences]
    there = [[1] * len(sequence.ids) + [0] * (width - len(sequence.ids)) for sequence in sequences]
    return torch.tensor(rows, device=device), torch.tensor(there, device=device)


def next_logits(model: Any, sequences: Sequence[TokenSequence], device: Any) -> list[Tensor]:
    """For each sequence the logits [T, V], float32 or wider, that predict its response."""
    ids, there = padded(sequences, device)
    logits = model(input_ids=ids, attention_mask=there, use_cache=False).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return [row[s.start - 1 : len(s.ids) - 1] for row, s in zip(logits, sequences, strict=True)]


def check_causal(causal: Causal, sequence: TokenSequence) -> None:
    """RequestError when a token changes what is predicted before it, as in models that fill gaps."""
    ids = torch.tensor([sequence.ids, (*sequence.ids[:-1], (sequence.ids[-1] + 1) % 2)], device=causal.device)
    with failures(causal.path), torch.no_grad():
        logits = causal.model(input_ids=ids, use_cache=False).logits[:, :-1].double()
    # The same shapes go through the same kernels: rounding is equal, or nearly so where experts are routed.
    if float((logits[0] - logits[1]).abs().max()) > 0.01 * float(logits.abs().max()):
        hint = "Calibration compares next-token distributions, which only decoders have."
        raise RequestError("the model is not causal: its predictions look ahead", where=str(causal.path), hint=hint)


def _responses(causal: Causal, dataset: Dataset, options: CalibrationOptions) -> Encoded:
    if options.responses == "given":
        return encode_references(causal.tokenizer, dataset.examples, options.max_length, ends=causal.ends)
    asked = SensitivityOptions(
        mode="true",
        samples=options.samples,
        max_length=options.max_length,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    encoded = sample_responses(causal, dataset.examples, asked)
    # A prompt of no tokens was dropped; nothing predicts a first token.
    return replace(encoded, sequences=tuple(s for s in encoded.sequences if s.start > 0))


def _look(causal: Causal, sequences: Sequence[TokenSequence], options: CalibrationOptions) -> list[Target]:
    with failures(causal.path), torch.no_grad():
        found = next_logits(causal.model, sequences, causal.device)
    return [_target(causal, sequence, row, options.top) for sequence, row in zip(sequences, found, strict=True)]


def _target(causal: Causal, sequence: TokenSequence, logits: Tensor, top: int) -> Target:
    refuse_nan(bool(torch.isnan(logits).any()), causal.path)
    logs = torch.log_softmax(logits, -1)
    if logs.shape[-1] <= top:
        tokens = torch.arange(logs.shape[-1]).expand(len(logs), -1)
        return Target(sequence, tokens, logs.cpu(), None)
    kept, tokens = logs.topk(top, -1)
    rest = torch.logsumexp(logs.scatter(-1, tokens, -torch.inf), -1)
    return Target(sequence, tokens.cpu(), kept.cpu(), rest.cpu())
