"""``rlmerge sensitivity``: from a model and data to a sealed directory of sensitivities."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
import transformers

from rlmerge._version import __version__
from rlmerge.checkpoint.layout import plan_shards
from rlmerge.checkpoint.model import Checkpoint, open_checkpoint
from rlmerge.checkpoint.partial import PartialDirectory
from rlmerge.checkpoint.sensitivity_record import FORMAT_VERSION, GRAM, RECORD, SensitivityRecord, SensitivityResult
from rlmerge.jsondata import digest
from rlmerge.language.data import Dataset, read_data
from rlmerge.language.model import Causal, failures, find_device, load_causal, match_parameters
from rlmerge.language.tokens import Encoded, encode_references, total_tokens
from rlmerge.progress import Progress, Quiet
from rlmerge.sensitivity.options import SensitivityOptions
from rlmerge.sensitivity.passes import Passes, TensorWriter, enable_checkpointing
from rlmerge.sensitivity.sampling import Reward, make_reward, sample_responses

_MEMORY_HINT = (
    "Try --stream-layers, --gradient-checkpointing, --batch-size 1, --dtype bfloat16 or a smaller --max-length."
)


def measure(
    model: str | os.PathLike[str],
    data: str,
    out: str | os.PathLike[str],
    options: SensitivityOptions | None = None,
    progress: Progress | None = None,
) -> SensitivityResult:
    """Measure the diagonal Fisher of ``model`` on ``data`` and write it to the directory ``out``.

    For each stored tensor: the mean over sequences of (∂ log π(response | prompt) / ∂θ)², float32, under the tensor's
    own name; with ``options.gram`` also the Gram matrices of the linear layers' inputs. Held in memory at a time: the
    model, one tensor's gradient, one sequence's (or microbatch's) activations, and four bytes for each parameter (with
    ``options.stream_layers`` for each parameter of the largest layer). RequestError when the request or an input is
    wrong, and nothing is written; RunError when the run fails, after which ``options.resume`` skips finished passes.
    """
    started = time.monotonic()
    options, progress = options or SensitivityOptions(), progress or Quiet()
    dataset = read_data(data, options.sequences, options.seed)
    reward = make_reward(options.reward, dataset) if options.reward else None
    checkpoint = open_checkpoint(model)
    device = find_device(options.device)
    planned = _plan_digest(checkpoint, dataset, options, device)
    with _output(out, planned, options) as partial, failures(checkpoint.path, _MEMORY_HINT):
        causal = load_causal(checkpoint.path, device, options.dtype)
        parameters, uncovered = match_parameters(causal.model, checkpoint)
        encoded = _encode(causal, dataset, options, reward, progress)
        if options.gradient_checkpointing:
            enable_checkpointing(causal.model)
        passes = Passes(causal, parameters, encoded.sequences, options, progress)
        shards = plan_shards(passes.outputs, options.shard_size)
        passes.write(TensorWriter(partial, shards))
        record = _record(checkpoint, data, dataset, encoded, options, device, uncovered, passes.owners)
        partial.write_file(RECORD, record.to_json())
        partial.seal(shards)
    return SensitivityResult(
        out=partial.target,
        record=record,
        tensors=len(passes.outputs),
        passes=len(passes.groups),
        seconds=time.monotonic() - started,
        peak_memory=_peak_memory(),
        warnings=tuple(passes.warnings),
    )


def _encode(
    causal: Causal, dataset: Dataset, options: SensitivityOptions, reward: Reward | None, progress: Progress
) -> Encoded:
    if options.mode == "empirical":
        return encode_references(causal.tokenizer, dataset.examples, options.max_length, ends=causal.ends)
    progress.start("Sampling", len(dataset.examples) * options.samples, "responses")
    encoded = sample_responses(causal, dataset.examples, options, reward, progress.advance)
    progress.done()
    return encoded


@contextmanager
def _output(out: str | os.PathLike[str], digest: str, options: SensitivityOptions) -> Generator[PartialDirectory]:
    """The output in the making; what a failed run leaves stays only if it holds tensors that a resumed one can use."""
    with PartialDirectory(out, digest, resume=options.resume, force=options.force) as partial:
        try:
            yield partial
        except BaseException:
            if not any(partial.path.glob("*.safetensors")):
                partial.abandon()
            raise


def _versions() -> dict[str, str]:
    return {
        "rlmerge": __version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _plan_digest(checkpoint: Checkpoint, dataset: Dataset, options: SensitivityOptions, device: Any) -> str:
    asked = {**asdict(options), "resume": None, "force": None, "device": str(device)}
    return digest([FORMAT_VERSION, checkpoint.fingerprint(), dataset.digest, asked, _versions()])


def _record(
    checkpoint: Checkpoint,
    data: str,
    dataset: Dataset,
    encoded: Encoded,
    options: SensitivityOptions,
    device: Any,
    uncovered: tuple[str, ...],
    owners: dict[str, str],
) -> SensitivityRecord:
    return SensitivityRecord(
        model=checkpoint.reference,
        model_digest=checkpoint.fingerprint(),
        data=data,
        data_digest=dataset.digest,
        mode=options.mode,
        reward=options.reward,
        sequences=len(encoded.sequences),
        tokens=total_tokens(encoded.sequences),
        truncated=encoded.truncated,
        dropped=encoded.dropped,
        eos_appended=encoded.eos_appended,
        sampled=encoded.sampled,
        max_length=options.max_length,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        seed=options.seed,
        dtype=options.dtype,
        device=str(device),
        versions=_versions(),
        uncovered=uncovered,
        grams={name: owner + GRAM for name, owner in owners.items()},
        gram_tokens=sum(len(sequence.ids) for sequence in encoded.sequences) if owners else 0,
    )


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
