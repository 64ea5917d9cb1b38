"""The passes of a measurement over its sequences, and what each of them writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlmerge.checkpoint.layout import OutputTensor, ShardPlan
from rlmerge.checkpoint.partial import PartialDirectory
from rlmerge.checkpoint.shard_writer import ShardWriter
from rlmerge.errors import RunError
from rlmerge.kernels.dtypes import FLOAT32
from rlmerge.sensitivity.gram import accumulate_grams, linear_layers, shared_inputs
from rlmerge.sensitivity.model import CausalModel, layer_groups
from rlmerge.sensitivity.options import SensitivityOptions
from rlmerge.sensitivity.progress import Progress
from rlmerge.sensitivity.record import GRAM
from rlmerge.sensitivity.squares import accumulate_squares
from rlmerge.sensitivity.tokens import TokenSequence


class Passes:
    """The passes over the sequences, one for each group of tensors."""

    def __init__(
        self,
        causal: CausalModel,
        sequences: Sequence[TokenSequence],
        options: SensitivityOptions,
        progress: Progress,
    ) -> None:
        self.causal, self.sequences, self.options, self.progress = causal, sequences, options, progress
        self.groups = layer_groups(causal.parameters, stream=options.stream_layers)
        self.linears = linear_layers(causal.model, causal.parameters) if options.gram else {}
        self.owners = shared_inputs(causal.model, self.linears, self.sequences[0]) if options.gram else {}
        self.warnings: list[str] = []

    @property
    def outputs(self) -> list[OutputTensor]:
        """What is written, in order: all sensitivities, then all Gram matrices."""
        tensors = [(name, tuple(self.causal.parameters[name].shape)) for group in self.groups for name in group]
        owned = [name for group in self.groups for name in self._owned(group)]
        tensors += [(name + GRAM, 2 * (self.linears[name].in_features,)) for name in owned]
        return [OutputTensor(name, FLOAT32, shape) for name, shape in tensors]

    def _owned(self, group: Sequence[str]) -> list[str]:
        """The tensors of ``group`` under whose names Gram matrices are stored."""
        return [name for name in group if self.owners.get(name) == name]

    def write(self, writer: TensorWriter) -> None:
        """Measure and write, group after group, all that is not written yet."""
        for number, group in enumerate(self.groups, 1):
            if not writer.holds(group):
                self._start("Fisher", number)
                self._write_squares(group, writer)
        for number, group in enumerate(self.groups, 1):
            owned = self._owned(group)
            if not writer.holds([name + GRAM for name in owned]):
                self._start("Gram", number)
                self._write_grams(owned, writer)

    def _start(self, phase: str, number: int) -> None:
        many = len(self.groups) > 1
        self.progress.start(f"{phase} {number}/{len(self.groups)}" if many else phase, len(self.sequences))

    def _write_squares(self, group: Sequence[str], writer: TensorWriter) -> None:
        parameters = [self.causal.parameters[name] for name in group]
        device = self._room(sum(parameter.numel() for parameter in parameters))
        sums = {parameter: torch.zeros(parameter.shape, device=device) for parameter in parameters}
        reason = accumulate_squares(
            self.causal.model,
            self.sequences,
            sums,
            batch_size=self.options.batch_size,
            advance=self.progress.advance,
        )
        if reason and not self.warnings:
            self.warnings.append(f"sequences went through the model one by one: {reason}")
        for total in sums.values():
            total.div_(len(self.sequences))
        for name, parameter in zip(group, parameters, strict=True):
            writer.write(name, sums[parameter])

    def _write_grams(self, owned: Sequence[str], writer: TensorWriter) -> None:
        linears = {name: self.linears[name] for name in owned}
        device = self._room(sum(linear.in_features**2 for linear in linears.values()))
        grams = accumulate_grams(self.causal.model, self.sequences, linears, device, self.progress.advance)
        for name, gram in grams.items():
            writer.write(name + GRAM, gram)

    def _room(self, numel: int) -> Any:
        """Where float32 sums of so many numbers are kept: beside the model if half the free memory there holds them."""
        device = self.causal.device
        if device.type != "cuda" or 4 * numel > torch.cuda.mem_get_info(device)[0] // 2:
            return torch.device("cpu")
        return device


class TensorWriter:
    """Writes whole tensors in the order of the shards."""

    def __init__(self, partial: PartialDirectory, shards: Sequence[ShardPlan]) -> None:
        self._completed = partial.completed()
        self._partial = partial
        self._places = {tensor.name: shard for shard in shards for tensor in shard.tensors}
        self._writers: dict[str, ShardWriter] = {}

    def holds(self, names: Sequence[str]) -> bool:
        """Whether an earlier run wrote all of ``names``."""
        return all(name in self._completed for name in names)

    def write(self, name: str, values: Tensor) -> None:
        """Write tensor ``name`` unless an earlier run did; RunError when it holds a value that is not finite."""
        if name in self._completed:
            return
        if not torch.isfinite(values).all():
            hint = "Squared gradients overflow float32: shorten the sequences with --max-length, or check the model."
            raise RunError("the sensitivity is not finite", where=name, hint=hint)
        shard = self._places[name]
        if shard.name not in self._writers:
            self._writers[shard.name] = self._partial.shard_writer(shard)
        self._writers[shard.name].write(name, values.cpu().contiguous().numpy())
        self._writers[shard.name].finish_tensor(name, {})
