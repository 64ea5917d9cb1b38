"""``rlmerge sensitivity``: from a model and data to a sealed directory of sensitivities."""

from __future__ import annotations

import hashlib
import json
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

from rlmerge import __version__
from rlmerge.checkpoint.layout import plan_shards
from rlmerge.checkpoint.model import Checkpoint, open_checkpoint
from rlmerge.checkpoint.partial import PartialDirectory
from rlmerge.errors import RunError
from rlmerge.progress import Quiet
from rlmerge.sensitivity.data import Dataset, read_data
from rlmerge.sensitivity.model import CausalModel, enable_checkpointing, find_device, load_model
from rlmerge.sensitivity.options import SensitivityOptions
from rlmerge.sensitivity.passes import Passes, TensorWriter
from rlmerge.sensitivity.progress import Progress
from rlmerge.sensitivity.record import GRAM, RECORD, SensitivityRecord, SensitivityResult
from rlmerge.sensitivity.reward import Reward, make_reward
from rlmerge.sensitivity.sampling import sample_responses
from rlmerge.sensitivity.tokens import Encoded, encode_references, total_tokens


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
    digest = _plan_digest(checkpoint, dataset, options, device)
    with _output(out, digest, options) as partial, _out_of_memory():
        causal = load_model(checkpoint, options.dtype, device)
        encoded = _encode(causal, dataset, options, reward, progress)
        if options.gradient_checkpointing:
            enable_checkpointing(causal.model)
        passes = Passes(causal, encoded.sequences, options, progress)
        shards = plan_shards(passes.outputs, options.shard_size)
        passes.write(TensorWriter(partial, shards))
        record = _record(checkpoint, data, dataset, causal, encoded, options, passes.owners)
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
    causal: CausalModel, dataset: Dataset, options: SensitivityOptions, reward: Reward | None, progress: Progress
) -> Encoded:
    if options.mode == "empirical":
        return encode_references(causal.tokenizer, dataset.examples, options.max_length)
    progress.start("Sampling", len(dataset.examples) * options.samples)
    return sample_responses(causal, dataset.examples, options, reward, progress.advance)


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


@contextmanager
def _out_of_memory() -> Generator[None]:
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError on a GPU, a plain RuntimeError on the CPU
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        hint = (
            "Try --stream-layers, --gradient-checkpointing, --batch-size 1, --dtype bfloat16 or a smaller --max-length."
        )
        raise RunError("memory ran out while the gradients were computed", hint=hint) from error


def _versions() -> dict[str, str]:
    return {
        "rlmerge": __version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _plan_digest(checkpoint: Checkpoint, dataset: Dataset, options: SensitivityOptions, device: Any) -> str:
    asked = {**asdict(options), "resume": None, "force": None, "device": str(device)}
    content = [checkpoint.fingerprint(), dataset.digest, asked, _versions()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _record(
    checkpoint: Checkpoint,
    data: str,
    dataset: Dataset,
    causal: CausalModel,
    encoded: Encoded,
    options: SensitivityOptions,
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
        sampled=encoded.sampled,
        max_length=options.max_length,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        seed=options.seed,
        dtype=options.dtype,
        device=str(causal.device),
        versions=_versions(),
        uncovered=causal.uncovered,
        grams={name: owner + GRAM for name, owner in owners.items()},
        gram_tokens=sum(len(sequence.ids) for sequence in encoded.sequences) if owners else 0,
    )


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
