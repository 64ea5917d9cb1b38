"""The passes of a measurement over its sequences, and what each of them writes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from rlmerge.checkpoint.layout import OutputTensor, ShardPlan
from rlmerge.checkpoint.partial import PartialDirectory
from rlmerge.checkpoint.sensitivity_record import GRAM
from rlmerge.checkpoint.shard_writer import ShardWriter
from rlmerge.errors import RequestError, RunError
from rlmerge.kernels.dtypes import FLOAT32
from rlmerge.language.model import Causal
from rlmerge.language.tokens import TokenSequence
from rlmerge.progress import Progress
from rlmerge.sensitivity.gram import accumulate_grams, linear_layers, shared_inputs
from rlmerge.sensitivity.options import SensitivityOptions
from rlmerge.sensitivity.squares import accumulate_squares

_LAYER = re.compile(r"^(?:.*?\.)?\d+(?=\.)")


class Passes:
    """The passes over the sequences, one for each group of tensors; ``parameters`` of the model by tensor name."""

    def __init__(
        self,
        causal: Causal,
        parameters: Mapping[str, Parameter],
        sequences: Sequence[TokenSequence],
        options: SensitivityOptions,
        progress: Progress,
    ) -> None:
        self.causal, self.parameters, self.sequences = causal, parameters, sequences
        self.options, self.progress = options, progress
        self.groups = layer_groups(parameters, stream=options.stream_layers)
        self.linears = linear_layers(causal.model, parameters) if options.gram else {}
        self.owners = shared_inputs(causal.model, self.linears, self.sequences[0]) if options.gram else {}
        self.warnings: list[str] = []

    @property
    def outputs(self) -> list[OutputTensor]:
        """What is written, in order: all sensitivities, then all Gram matrices."""
        tensors = [(name, tuple(self.parameters[name].shape)) for group in self.groups for name in group]
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
                self.progress.done()
        for number, group in enumerate(self.groups, 1):
            owned = self._owned(group)
            if not writer.holds([name + GRAM for name in owned]):
                self._start("Gram", number)
                self._write_grams(owned, writer)
                self.progress.done()

    def _start(self, phase: str, number: int) -> None:
        many = len(self.groups) > 1
        name = f"{phase} {number}/{len(self.groups)}" if many else phase
        self.progress.start(name, len(self.sequences), "sequences")

    def _write_squares(self, group: Sequence[str], writer: TensorWriter) -> None:
        parameters = [self.parameters[name] for name in group]
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


def layer_groups(parameters: Mapping[str, Parameter], *, stream: bool) -> list[list[str]]:
    """Tensor names by pass: all at once, or packed so that no group is larger than the largest layer (or tensor).

    What lies outside the layers (embedding, final norm, head) counts as a layer of its own.
    """
    if not stream:
        return [list(parameters)]
    units: dict[str, list[str]] = {}
    for name in parameters:
        layer = _LAYER.match(name)
        units.setdefault(layer.group() if layer else name, []).append(name)
    sizes = {unit: sum(parameters[name].numel() for name in names) for unit, names in units.items()}
    groups: list[list[str]] = []
    room = 0
    for unit, names in units.items():
        if sizes[unit] > room:
            groups.append([])
            room = max(sizes.values())
        groups[-1].extend(names)
        room -= sizes[unit]
    return groups


def enable_checkpointing(model: Any) -> None:
    """Turn on gradient checkpointing without the rest of training mode, so that dropout stays off."""
    if not model.supports_gradient_checkpointing:
        hint = "Leave --gradient-checkpointing out; --stream-layers saves memory too."
        raise RequestError(f"{type(model).__name__} does not support gradient checkpointing", hint=hint)
    # Re-entrant checkpointing runs one backward per layer and would square a tied weight's gradient in parts.
    kwargs = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # its name since transformers 5
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
            for name, value in vars(module).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(module, name, 0.0)
