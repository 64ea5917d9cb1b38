"""PEFT LoRA and DoRA adapters, opened as the model that they make of their base.

Follows PEFT 0.21: what each tensor means, which patterns apply, what a live adapter computes. Where PEFT's own merge
differs from its live adapter (tied embeddings), the live adapter counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlmerge.checkpoint.config import with_tied
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats import ADAPTER, Format, Opened
from rlmerge.checkpoint.formats.adapter_config import NAME, AdapterConfig, read_adapter_config
from rlmerge.checkpoint.formats.adapter_keys import Module, group
from rlmerge.checkpoint.formats.adapter_names import BaseNames
from rlmerge.checkpoint.formats.adapter_products import Update
from rlmerge.checkpoint.formats.adapter_sources import Changed, Replaced, Shifted, TiedRows, TrainedRows, Untied
from rlmerge.checkpoint.formats.adapter_updates import Factors, expert_tensors, layer_tensor
from rlmerge.checkpoint.formats.torch_bin import read_tensors
from rlmerge.checkpoint.header import read_header
from rlmerge.checkpoint.paths import inside
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import MERGEABLE

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"


def is_adapter(root: Path, names: Sequence[str]) -> bool:
    """Whether a directory holds an adapter, by the names of its files."""
    return NAME in names or WEIGHTS in names or PICKLED in names


def named_base(root: Path, names: Sequence[str]) -> str | None:
    """The model that an adapter says it was trained on, as its author called it; CheckpointError as for opening."""
    return read_adapter_config(root).base if NAME in names else None


def open_adapter(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    """The base's tensors as the adapter in ``root`` changes them; see ``apply_adapter``."""
    assert base is not None
    if NAME not in names:
        hint = f"Copy {NAME} beside it; without it the scale of the updates is unknown."
        raise CheckpointError(f"holds adapter weights but no {NAME}", where=str(root), hint=hint)
    return apply_adapter(_weights(root, names), str(root), read_adapter_config(root), base)


def _weights(root: Path, names: Sequence[str]) -> Mapping[str, Source]:
    """The adapter's tensors by name."""
    if WEIGHTS in names:
        return read_header(inside(root, WEIGHTS)).tensors
    if PICKLED in names:
        return read_tensors(InputFile(inside(root, PICKLED)))
    hint = f"Download {WEIGHTS}, or save the adapter again."
    raise CheckpointError(f"has {NAME} but no weights", where=str(root), hint=hint)


def apply_adapter(tensors: Mapping[str, Source], where: str, config: AdapterConfig, base: Checkpoint) -> Opened:
    """The tensors of ``base`` as those of an adapter change them, all others as they are.

    CheckpointError if a tensor of the adapter has no known meaning, changes something that the base lacks or that has
    another shape, or fits more than one reading.
    """
    if not tensors:
        raise CheckpointError("holds no tensors", where=where, hint="Save or download the adapter again.")
    odd = next((source for source in tensors.values() if source.dtype not in MERGEABLE), None)
    if odd is not None:
        hint = "Merge the adapter into its base with the program that wrote it."
        raise CheckpointError(f"is {odd.dtype.name}, not a float type", where=odd.where, hint=hint)
    assembly = _Assembly(where, config, base)
    for module in group(tensors, where):
        assembly.add(module)
    changed, settings, warnings = assembly.finish()
    found = {name: changed.get(name, source) for name, source in base.tensors.items()}
    found |= {name: source for name, source in changed.items() if name not in found}
    return Opened(ADAPTER, found, tuple(warnings), base.side_root, settings)


class _Assembly:
    """The changed tensors of one base, module by module."""

    def __init__(self, where: str, config: AdapterConfig, base: Checkpoint) -> None:
        self._where = where
        self._config = config
        self._base = base
        self._names = BaseNames(base, where)
        self._is_tied = base.tied_embeddings and self._names.embedding is not None
        self._changed: dict[str, Changed] = {}
        self._experts: dict[str, list[Factors]] = {}

    def add(self, module: Module) -> None:
        """Explain every tensor of ``module``."""
        for part, source in list(module.parts.items()):
            if part.startswith("whole."):
                self._replace(module, part.removeprefix("whole."), module.parts.pop(part), source.name)
        for parameter in ("bias", "weight"):
            stored = module.take(f"stored.{parameter}")
            if stored is not None:
                self._replace(module, parameter, stored, stored.name)
        self._add_rows(module)
        self._add_product(module, "lora_A.weight", "lora_B.weight", is_embedding=False)
        self._add_product(module, "lora_embedding_A", "lora_embedding_B", is_embedding=True)
        left = next(iter(module.parts.values()), None)
        if left is not None:
            hint = "Save or download the adapter again; a part of it is missing."
            raise CheckpointError(f"{left.name!r} has no counterpart", where=self._where, hint=hint)

    def finish(self) -> tuple[Mapping[str, Changed], Mapping[str, Any] | None, list[str]]:
        """All changed tensors, the configuration, and warnings."""
        self._add_experts()
        warnings = self._other_base()
        embedding, head = self._names.embedding, self._names.head
        settings = self._base.config
        if self._is_tied and embedding is not None and {embedding, head} & self._changed.keys():
            rows = self._changed.get(embedding)
            if isinstance(rows, TrainedRows) and head not in self._changed:
                # PEFT trains the same rows of both tables of a tied pair.
                if head in self._base.tensors:
                    table = self._base.tensors[head]
                    self._changed[head] = TiedRows(head, rows.path, table, table, rows.indices, rows.value)
            elif isinstance(rows, TrainedRows) and not isinstance(self._changed[head], TrainedRows):
                # PEFT wraps the trained rows around the head's update, which then has no effect; nobody wants that.
                what = "trains single rows of the embedding and an update of the head that is tied to it"
                hint = "Train both in one way, or give a base whose head is its own."
                raise CheckpointError(what, where=self._where, hint=hint)
            else:
                if head not in self._changed and head not in self._base.tensors:
                    table = self._table(head)
                    self._changed[head] = Untied(head, head, table, table)
                settings = None if settings is None else with_tied(settings, False)
                warnings.append(
                    f"{self._where} trained the two tied embeddings apart, so the result stores {head} of its own"
                    " (tie_word_embeddings: false)"
                )
        return self._changed, settings, warnings

    def _other_base(self) -> list[str]:
        named = self._config.base
        base = self._base
        if named is None or Path(named).name == Path(base.reference.partition("@")[0]).name or named == str(base.path):
            return []
        return [f"{self._where} was trained on {named}, and is applied to {base.reference}"]

    def _table(self, name: str) -> Source:
        """The base tensor ``name``, or what is tied to it."""
        tensors = self._base.tensors
        return tensors[name] if name in tensors else tensors[self._names.embedding or ""]

    def _find(self, name: str, key: str) -> tuple[str, Source]:
        """The base's name and tensor that an adapter calls ``name``."""
        found = self._names.find(name)
        if found is None and self._is_tied and self._names.is_head(name):
            found = self._names.head
        if found is None:
            raise self._names.unknown(name, key)
        return found, self._table(found)

    def _put(self, changed: Changed, key: str) -> None:
        earlier = self._changed.get(changed.name)
        if earlier is not None and changed.ground is not earlier:
            what = f"{key!r} and {earlier.where} both change {changed.name}"
            hint = "Which of them counts is not recorded; save the adapter again."
            raise CheckpointError(what, where=self._where, hint=hint)
        table = self._table(changed.name)
        if table.dtype not in MERGEABLE:
            hint = "Give the base in a float type, such as bfloat16."
            raise CheckpointError(f"is {table.dtype.name}, which no adapter can change", where=table.where, hint=hint)
        self._changed[changed.name] = changed

    def _ground(self, name: str, tensor: Source) -> Source:
        """What an update of ``name`` is added to: the layer's own copy where the adapter holds one."""
        earlier = self._changed.get(name)
        return earlier if isinstance(earlier, Replaced) else tensor

    def _replace(self, module: Module, parameter: str, value: Source, key: str) -> None:
        path = f"{module.name}.{parameter}"
        name, tensor = self._find(path, key)
        if value.shape != tensor.shape:
            raise self._misfit(key, value.shape, name, tensor)
        self._put(Replaced(name, path, tensor, value), key)

    def _add_rows(self, module: Module) -> None:
        value = module.take("rows")
        if value is None:
            return
        path = f"{module.name}.weight"
        name, tensor = self._find(path, value.name)
        rows = self._config.rows(module.name)
        if not rows or len(tensor.shape) != 2 or value.shape != (len(rows), tensor.columns) or max(rows) >= tensor.rows:
            raise self._misfit(f"{value.name} (rows {list(rows)[:5]})", value.shape, name, tensor)
        self._put(TrainedRows(name, path, tensor, self._ground(name, tensor), rows, value), value.name)

    def _add_product(self, module: Module, first: str, second: str, *, is_embedding: bool) -> None:
        if first not in module.parts or second not in module.parts:
            return
        a, b = module.parts.pop(first), module.parts.pop(second)
        magnitude, bias = module.take("magnitude"), module.take("lora_B.bias")
        rank = self._rank(a, b)
        if (magnitude is not None) != self._config.dora:
            what = "use_dora is set, but it has no magnitude" if magnitude is None else "use_dora is not set for it"
            raise CheckpointError(f"{a.name}: {what}", where=self._where, hint="Save the adapter again.")
        weight = f"{module.name}.weight"
        is_known = self._names.find(weight) is not None or (self._is_tied and self._names.is_head(weight))
        if not is_known and not is_embedding and len(a.shape) == len(b.shape) == 2:
            inner = module.name
            while inner.endswith(".base_layer"):
                inner = inner.removesuffix(".base_layer")
            self._experts.setdefault(inner, []).append(Factors(module.name, a, b))
            return
        name, tensor = self._find(weight, a.name)
        pattern_name = weight if self._config.is_parameter(weight) else module.name
        scale = self._config.scale(pattern_name, rank)
        parameter = weight if self._config.is_parameter(weight) else None
        update = Update(module.name, a, b, scale, rank, is_embedding, 1, parameter, magnitude)
        ground = self._ground(name, tensor)
        changed = layer_tensor(name, tensor, ground, update, self._config.fan_in_fan_out)
        if changed is None:
            raise self._misfit(a.name, (_outer(b), _inner(a)), name, tensor)
        self._put(changed, a.name)
        if bias is not None:
            self._shift(module, bias, scale)

    def _shift(self, module: Module, bias: Source, scale: float) -> None:
        path = f"{module.name}.bias"
        name = self._names.find(path)
        if name is None:
            hint = "Merge it with PEFT, into a model that has a place for the bias."
            what = f"{bias.name!r} adds a bias (lora_bias) to {module.name}, which has none in the base"
            raise CheckpointError(what, where=self._where, hint=hint)
        tensor = self._base.tensors[name]
        if bias.numel != tensor.numel:
            raise self._misfit(bias.name, bias.shape, name, tensor)
        self._put(Shifted(name, path, tensor, self._ground(name, tensor), bias, scale), bias.name)

    def _add_experts(self) -> None:
        for module, factors in self._experts.items():
            named = (f"{module}.{target.rpartition('.')[2]}" for target in self._config.parameters)
            stacks = [self._names.stack(name) for name in dict.fromkeys(named) if self._config.is_parameter(name)]
            known = [stack for stack in stacks if stack is not None]
            if not known:
                raise self._names.unknown(f"{module}.weight", factors[0].a.name)
            for changed in expert_tensors(factors, known, self._config, self._where):
                self._put(changed, changed.update.a.name)

    def _rank(self, a: Source, b: Source) -> int:
        """Rows of A, all experts' together; CheckpointError unless B has as many columns."""
        if len(a.shape) < 2 or len(b.shape) < 2 or 0 in a.shape or 0 in b.shape or a.shape[0] != b.shape[1]:
            hint = "It may have been saved from a sharded model; gather its parameters and save it again."
            what = f"A {list(a.shape)} and B {list(b.shape)} are no factors of one product"
            raise CheckpointError(what, where=a.where, hint=hint)
        return a.shape[0]

    def _misfit(self, key: str, shape: Sequence[int], name: str, tensor: Source) -> CheckpointError:
        what = f"{key} makes {list(shape)} of {name}, which is {list(tensor.shape)} in the base"
        named = f" It was trained on {self._config.base}." if self._config.base else ""
        hint = f"Give the model it was trained on as base, with as many tokens.{named}"
        return CheckpointError(what, where=self._where, hint=hint)


def _inner(a: Source) -> int:
    """Inputs of an update: columns of A, over all places of a convolution's kernel."""
    return math.prod(a.shape[1:])


def _outer(b: Source) -> int:
    return b.shape[0] if math.prod(b.shape[2:]) == 1 else -1


FORMATS = (Format(ADAPTER, is_adapter, open_adapter, needs_base=True, is_safetensors=True),)
