"""What a merge will do, worked out from headers alone: which tensors, from what, with which values, at what cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rlmerge import __version__
from rlmerge.checkpoint import Checkpoint, OutputTensor, ShardPlan, Source
from rlmerge.kernels.program import Layout
from rlmerge.methods import Method
from rlmerge.methods.method import Stages
from rlmerge.options import Options
from rlmerge.recipe import Recipe

from .inputs import Inputs
from .place import free_space
from .sizing import sizing


@dataclass(frozen=True)
class TensorPlan:
    """One output tensor: the inputs it is made of and, when it is merged, the values its formula gets.

    ``values`` holds the recipe's parameters for this tensor by argument name, and ``experts``, ``numel`` and ``wide``.
    """

    output: OutputTensor
    action: Literal["merge", "copy"]
    base: Source | None
    experts: tuple[Source, ...]
    values: Mapping[str, Any]
    extras: Mapping[str, tuple[Source, ...]]
    layout: Layout

    @property
    def sources(self) -> tuple[Source, ...]:
        """Base and experts, in the order of the layout's inputs."""
        return (*(() if self.base is None else (self.base,)), *self.experts)

    @property
    def inputs(self) -> tuple[Source, ...]:
        """All that is read: base, experts and further inputs."""
        return (*self.sources, *(info for infos in self.extras.values() for info in infos))

    @property
    def columns(self) -> int:
        """Length of a row: the last dimension; a vector is one row."""
        return self.output.shape[-1] if self.output.shape else 1


@dataclass(frozen=True)
class Plan:
    """A merge ready to run. ``template`` is the model whose config, tokenizer and other files are copied."""

    recipe: Recipe
    options: Options
    base: Checkpoint | None
    experts: tuple[Checkpoint, ...]
    inputs: Inputs
    template: Checkpoint
    tensors: Mapping[str, TensorPlan]
    shards: tuple[ShardPlan, ...]
    out: Path | None
    warnings: tuple[str, ...]

    @property
    def method(self) -> Method:
        """The recipe's method."""
        return self.recipe.method

    @cached_property
    def stages(self) -> Stages:
        """The statistics the method needs, stage by stage."""
        return self.method.statistics(len(self.experts), **self.recipe.static())

    @property
    def bytes_read(self) -> int:
        """Bytes of all inputs, each read once."""
        return sum(info.nbytes for tensor in self.tensors.values() for info in tensor.inputs)

    @property
    def bytes_written(self) -> int:
        """Bytes of all output shards."""
        return sum(shard.size for shard in self.shards)

    @property
    def free_disk(self) -> int | None:
        """Bytes that may be written where the output goes, None without an output."""
        return None if self.out is None else free_space(self.out)

    @property
    def peak_memory(self) -> int:
        """Expected peak of anonymous memory in bytes, without the interpreter."""
        return sizing(self).peak

    @cached_property
    def digest(self) -> str:
        """Hex identity of the output bytes: recipe, inputs, version and the options that matter."""
        options = asdict(self.options)
        kept = ("seed", "dtype", "out_dtype", "rounding", "shard_size", "on_nonfinite")
        content = {
            "version": __version__,
            "recipe": self.recipe.text,
            "models": [x.edition for x in (*([self.base] if self.base else []), *self.experts)],
            "inputs": {name: [x.fingerprint for x in found] for name, found in self.inputs.items()},
            "options": {name: options[name] for name in kept},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-able data."""
        merged = [t for t in self.tensors.values() if t.action == "merge"]
        return {
            "method": self.method.name,
            "status": self.method.status,
            "base": self.base.reference if self.base else None,
            "experts": [expert.reference for expert in self.experts],
            "inputs": {name: [x.directory for x in found] for name, found in self.inputs.items()},
            "tensors": len(self.tensors),
            "merged_tensors": len(merged),
            "parameters": sum(t.output.numel for t in merged),
            "dtypes": sorted({t.output.dtype.name for t in self.tensors.values()}),
            "shards": [shard.name for shard in self.shards],
            "statistics": [[statistic.name for statistic in stage] for stage in self.stages],
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "peak_memory": self.peak_memory,
            "free_disk": self.free_disk,
            "seed": self.options.seed,
            "out": None if self.out is None else str(self.out),
            "warnings": list(self.warnings),
            "digest": self.digest,
        }
