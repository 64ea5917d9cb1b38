"""Writes a PEFT adapter directory: configuration, weights tensor by tensor, and a manifest, complete or not at all."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from rlmerge.checkpoint.formats.adapter import WEIGHTS
from rlmerge.checkpoint.formats.adapter_config import NAME
from rlmerge.checkpoint.formats.adapter_keys import PREFIX
from rlmerge.checkpoint.formats.adapter_names import unwrapped
from rlmerge.checkpoint.layout import OutputTensor, ShardPlan
from rlmerge.checkpoint.partial import PartialDirectory
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import DType
from rlmerge.kernels.rounding import encode
from rlmerge.progress import Progress, Quiet


@frozen
class NewTensor:
    """A tensor to be written: its name without PEFT's prefix, and its values, floats in row-major order by pieces.

    ``stats`` is asked for once the tensor is written; what it says, as JSON, is kept for a resumed run.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    pieces: Callable[[], Iterable[np.ndarray]]
    stats: Callable[[], Mapping[str, Any]] | None = None


@dataclass
class NewAdapter:
    """An adapter to be written.

    ``ranks`` of modules and of target parameters, by full name; their alpha is the same, so that the factors are taken
    as they are by every reader, also by those that know no patterns. ``whole`` names modules that replace the base's,
    ``tokens`` trained rows by module.
    """

    base: str | None
    task: str | None = None
    tensors: list[NewTensor] = field(default_factory=list[NewTensor])
    ranks: dict[str, int] = field(default_factory=dict[str, int])
    parameters: list[str] = field(default_factory=list[str])
    whole: list[str] = field(default_factory=list[str])
    tokens: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    has_bias: bool = False
    fan_in_fan_out: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in self.tensors)

    def config(self, base_modules: Sequence[str]) -> Mapping[str, Any]:
        """The content of ``adapter_config.json``; ``base_modules`` are all modules of the base that have a weight."""
        counts = Counter(self.ranks.values())
        # The most frequent rank, the smaller of two as frequent ones.
        common = min(counts, key=lambda rank: (-counts[rank], rank)) if counts else 1
        others = {re.escape(name): rank for name, rank in sorted(self.ranks.items()) if rank != common}
        modules = sorted(self.ranks.keys() - set(self.parameters))
        return {
            "peft_type": "LORA",
            "task_type": self.task or "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "inference_mode": True,
            "r": common,
            "lora_alpha": common,
            "rank_pattern": others,
            "alpha_pattern": others,
            "target_modules": _short(modules, base_modules),
            "target_parameters": sorted(self.parameters) or None,
            "modules_to_save": sorted(self.whole) or None,
            "trainable_token_indices": {name: list(rows) for name, rows in sorted(self.tokens.items())} or None,
            "bias": "all" if self.has_bias else "none",
            "fan_in_fan_out": self.fan_in_fan_out,
            "init_lora_weights": True,
            "lora_dropout": 0.0,
            "use_rslora": False,
            "use_dora": False,
        }


def write_adapter(
    out: str | PathLike[str],
    adapter: NewAdapter,
    base_modules: Sequence[str],
    digest: str,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Mapping[str, Mapping[str, Any]]:
    """Write ``adapter`` to the new directory ``out``, with ``files`` beside it; the stats of its tensors by name.

    ``digest`` covers everything that decides the bytes: an interrupted run of the same is continued with ``resume``.
    RequestError and RunError as ``PartialDirectory`` raises them; what the tensors' pieces raise ends the run.
    """
    progress = progress or Quiet()
    planned = [OutputTensor(PREFIX + tensor.name, tensor.dtype, tensor.shape) for tensor in adapter.tensors]
    shard = ShardPlan(WEIGHTS, tuple(planned))
    values = {PREFIX + tensor.name: tensor for tensor in adapter.tensors}
    with PartialDirectory(out, digest, resume=resume, force=force) as partial:
        entries = dict(partial.completed())
        writer = partial.shard_writer(shard)
        progress.start("write", sum(tensor.nbytes for tensor in writer.pending))
        for planned_tensor in writer.pending:
            tensor = values[planned_tensor.name]
            for piece in tensor.pieces():
                writer.write(planned_tensor.name, encode(np.ascontiguousarray(piece).reshape(-1), tensor.dtype))
            entry = writer.finish_tensor(planned_tensor.name, tensor.stats() if tensor.stats else {})
            entries[entry.tensor] = entry
            progress.advance(planned_tensor.nbytes)
        progress.done()
        text = json.dumps(adapter.config(base_modules), indent=2, ensure_ascii=False, allow_nan=False)
        partial.write_file(NAME, f"{text}\n".encode())
        for name, content in (files or {}).items():
            partial.write_file(name, content)
        partial.seal([shard])
    return {name.removeprefix(PREFIX): entry.stats for name, entry in entries.items()}


def _short(modules: Sequence[str], base_modules: Sequence[str]) -> list[str]:
    """``modules`` by their last part where the base has no others of that name, else without what wraps the model.

    A wrapper is left out only where no other module of the base ends in the same way.
    """
    targeted = Counter(name.rpartition(".")[2] for name in modules)
    known = Counter(name.rpartition(".")[2] for name in base_modules)
    found: set[str] = set()
    for name in modules:
        end = name.rpartition(".")[2]
        core = unwrapped(name)
        is_alone = sum(f".{other}".endswith(f".{core}") for other in base_modules if known[end] != targeted[end]) < 2
        found.add(end if known[end] == targeted[end] else core if is_alone else name)
    return sorted(found)
