"""Where every output byte will lie: tensors to shards, shards to headers and an index. Pure data, byte for byte."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from functools import cached_property

from rlmerge.checkpoint.directory import SINGLE
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import DType


@frozen(slots=True)
class OutputTensor:
    """A tensor to be written."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@frozen
class ShardPlan:
    """One file to be written: its name, its tensors in the order in which their bytes lie, and its metadata."""

    name: str
    tensors: tuple[OutputTensor, ...]
    metadata: Mapping[str, str] = field(default_factory=lambda: {"format": "pt"}, hash=False)

    @cached_property
    def header(self) -> bytes:
        """The file's first bytes: header length and JSON, padded so that the data begins at a multiple of 8."""
        content: dict[str, object] = {"__metadata__": dict(self.metadata)}
        offset = 0
        for tensor in self.tensors:
            offsets = [offset, offset + tensor.nbytes]
            content[tensor.name] = {"dtype": tensor.dtype.code, "shape": tensor.shape, "data_offsets": offsets}
            offset += tensor.nbytes
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)

    def places(self) -> Iterator[tuple[str, int]]:
        """The name of each tensor, and where in the file its bytes begin."""
        offset = len(self.header)
        for tensor in self.tensors:
            yield tensor.name, offset
            offset += tensor.nbytes


def plan_shards(tensors: Sequence[OutputTensor | tuple[OutputTensor, ...]], shard_size: int) -> tuple[ShardPlan, ...]:
    """Cut ``tensors``, in their order, into files of at most ``shard_size`` bytes of weights.

    A larger tensor gets a file of its own. Within a file, wider element types come first, so that each tensor begins at
    a multiple of its element size; otherwise the order is kept. A tuple of tensors stays together, in its own
    order, and comes after single ones; there sizes may be such that a tensor begins elsewhere.
    """
    if shard_size <= 0:
        raise RequestError(f"the shard size must be positive, not {shard_size}", hint="Give a size such as 5GB.")
    units = [tensor if isinstance(tensor, tuple) else (tensor,) for tensor in tensors]
    names = [tensor.name for unit in units for tensor in unit]
    if len(set(names)) < len(names):
        raise ValueError("output tensors must have distinct names")
    groups: list[list[tuple[OutputTensor, ...]]] = [[]]
    held = 0
    for unit in units:
        nbytes = sum(tensor.nbytes for tensor in unit)
        if groups[-1] and held + nbytes > shard_size:
            groups.append([])
            held = 0
        groups[-1].append(unit)
        held += nbytes
    count = len(groups)
    names = [SINGLE] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    ordered = (sorted(group, key=lambda unit: (len(unit) > 1, -unit[0].dtype.itemsize)) for group in groups)
    return tuple(
        ShardPlan(name, tuple(tensor for unit in group for tensor in unit))
        for name, group in zip(names, ordered, strict=True)
    )


def index_json(shards: Sequence[ShardPlan]) -> bytes:
    """The content of ``model.safetensors.index.json`` for several shards."""
    placed = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
    tensors = [tensor for shard in shards for tensor in shard.tensors]
    metadata = {
        "total_parameters": sum(tensor.numel for tensor in tensors),
        "total_size": sum(tensor.nbytes for tensor in tensors),
    }
    content = {"metadata": metadata, "weight_map": dict(sorted(placed.items()))}
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
