"""What a merge will do, worked out from headers alone: which tensors, from what, with which values, at what cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from rlmerge.addresses import addressed
from rlmerge.checkpoint import Checkpoint, InputFile, ShardPlan
from rlmerge.checkpoint.partial import uploading
from rlmerge.frozen import frozen
from rlmerge.methods import Method
from rlmerge.options import Options
from rlmerge.recipe import LIKE_BASE, ModelRef, Recipe

from .code import code_digest, digest_of
from .job import Job
from .measured import Inputs
from .place import free_space, held_here
from .sizing import Sizing, bytes_remote, size_of
from .statistics import wide_stages


def is_like_base(options: Options, recipe: Recipe) -> bool:
    """Whether the output is to be stored as the base is."""
    return (options.out_dtype or recipe.out_dtype or "").strip() == LIKE_BASE


@frozen
class Beside:
    """What is written beside the weights: ``files`` by name, each opened or rendered when the plan was made.

    ``notes`` say what was taken from where; ``licenses`` are those that the models' cards name, None where one does
    not.
    """

    files: Mapping[str, InputFile | bytes]
    notes: tuple[str, ...]
    licenses: tuple[str | None, ...]


@frozen
class Plan:
    """A merge ready to run: jobs in the order in which their tensors are written, and what goes around them.

    ``template`` is the model whose config, tokenizer and other files are copied. ``jobs`` are by output name; their
    ``models`` number the ``experts``. ``before`` are the plans of the stages that it builds on, in their order.
    """

    recipe: Recipe
    options: Options
    base: Checkpoint | None
    experts: tuple[Checkpoint, ...]
    opened: Mapping[str, Checkpoint]
    inputs: Inputs
    template: Checkpoint
    jobs: Mapping[str, Job]
    shards: tuple[ShardPlan, ...]
    out: Path | None
    warnings: tuple[str, ...]
    beside: Beside
    before: tuple[Plan, ...] = ()

    @property
    def method(self) -> Method:
        """The recipe's method."""
        return self.recipe.method

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods in use, more than one where modules have their own."""
        return self.recipe.methods

    @property
    def method_name(self) -> str:
        """The names of the methods."""
        return ", ".join(method.name for method in self.methods)

    @property
    def status(self) -> str:
        """Where the methods are from."""
        return ", ".join(dict.fromkeys(method.status for method in self.methods))

    @cached_property
    def job_of(self) -> Mapping[str, Job]:
        """The job that writes each tensor, by the tensor's name."""
        return {output.name: job for job in self.jobs.values() for output in job.outputs}

    def jobs_of(self, shard: ShardPlan) -> list[Job]:
        """The jobs that write a shard, in the order of its tensors."""
        return list(dict.fromkeys(self.job_of[output.name] for output in shard.tensors))

    @property
    def merged(self) -> list[Job]:
        """The jobs that are more than copies."""
        return [job for job in self.jobs.values() if job.method is not None]

    @property
    def models(self) -> tuple[Checkpoint, ...]:
        """Every model that is read, each once: base, experts, and those that only give tokens or a template."""
        return tuple(dict.fromkeys(self.opened.values()))

    @property
    def origins(self) -> Mapping[str, tuple[ModelRef, Checkpoint]]:
        """Every model from outside that the result comes of, by identity: those of the stages before it, then its own.

        This is the order in which a lock lists them.
        """
        plans = (*self.before, self)
        named = [(model, plan.opened[model.identity]) for plan in plans for model in plan.recipe.models]
        return {model.identity: (model, checkpoint) for model, checkpoint in named if not model.stage}

    @cached_property
    def sizing(self) -> Sizing:
        """Threads, tiles and memory of the run."""
        upload = None if self.out is None else uploading(self.out)
        reserved = 0 if upload is None else upload.use(self.options.memory)
        return size_of(list(self.jobs.values()), self.options, reserved=reserved)

    @property
    def bytes_read(self) -> int:
        """Bytes of all inputs, each read once."""
        return sum(source.nbytes for job in self.jobs.values() for source in job.inputs)

    @cached_property
    def bytes_remote(self) -> int:
        """Bytes that come over a network: remote inputs, once for the merge and once more for each pass before it.

        What statistics read of a tensor whose inputs fit into half of ``sizing.ahead`` is still there for its merge.
        """
        if not self.sizing.ahead:
            return 0
        again = wide_stages(next((job.stages for job in self.merged), ()))
        total = 0
        for job in self.jobs.values():
            once = bytes_remote([job])
            narrow = len(job.stages) - again if once > self.sizing.ahead // 2 else 0
            total += once * (1 + (again if job.stages else 0) + narrow)
        return total

    @property
    def bytes_written(self) -> int:
        """Bytes of all output shards."""
        return sum(shard.size for shard in self.shards)

    @property
    def bytes_sent(self) -> int:
        """Bytes that go up to an object store: the shards of an output that is not here."""
        return self.bytes_written if self.out is not None and uploading(self.out) is not None else 0

    @property
    def bytes_here(self) -> int:
        """Bytes of disk that the shards take on this machine at a time."""
        return held_here(self.out, self.shards)

    @property
    def free_disk(self) -> int | None:
        """Bytes that may be written where the output goes, None without an output."""
        return None if self.out is None else free_space(self.out)

    @property
    def peak_memory(self) -> int:
        """Expected peak of anonymous memory in bytes, without the interpreter."""
        return self.sizing.peak

    @cached_property
    def digest(self) -> str:
        """Hex identity of the output bytes: recipe, inputs, version and the options that matter."""
        options = asdict(self.options)
        kept = ("seed", "dtype", "out_dtype", "rounding", "shard_size", "on_nonfinite")
        content = {
            "code": [code_digest(), *(digest_of((m.formula, m.derive, m.rows_field, m.spreads)) for m in self.methods)],
            "recipe": self.recipe.text,
            "models": [model.edition for model in self.models],
            "inputs": {name: [x.fingerprint for x in found] for name, found in self.inputs.items()},
            "options": {name: options[name] for name in kept},
        }
        if self.base is not None and is_like_base(self.options, self.recipe):
            from .like_base import copied

            content["copied"] = copied(self.base)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_dict(self, digest: bool = True) -> dict[str, Any]:
        """The plan as JSON-able data; its ``digest`` reads samples of all weights, which some can do without."""
        merged = self.merged
        stages = merged[0].stages if merged else ()
        return {
            "method": self.method_name,
            "status": self.status,
            "base": self.base.reference if self.base else None,
            "experts": [expert.reference for expert in self.experts],
            "inputs": {name: [x.directory for x in found] for name, found in self.inputs.items()},
            "tensors": len(self.jobs),
            "merged_tensors": len(merged),
            "parameters": sum(t.output.numel for t in merged),
            "dtypes": sorted({output.dtype.name for shard in self.shards for output in shard.tensors}),
            "shards": [shard.name for shard in self.shards],
            "statistics": [[statistic.name for statistic in stage] for stage in stages],
            "bytes_read": self.bytes_read,
            "bytes_remote": self.bytes_remote,
            "bytes_written": self.bytes_written,
            "bytes_sent": self.bytes_sent,
            "bytes_here": self.bytes_here,
            "peak_memory": self.peak_memory,
            "free_disk": self.free_disk,
            "seed": self.options.seed,
            "out": None if self.out is None else addressed(str(self.out)),
            "warnings": list(self.warnings),
            "notes": list(self.beside.notes),
            **({"digest": self.digest} if digest else {}),
        }
