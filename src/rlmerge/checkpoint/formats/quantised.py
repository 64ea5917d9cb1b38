"""Quantised weights of a safetensors directory, recognised by their names and types and decoded as they are read.

Read: FP8 with scales for blocks, rows or the whole tensor (``weight_scale_inv``, ``weight_scale``); int8, packed int8
and packed int4 of compressed-tensors; MXFP4 as gpt-oss (``_blocks``, ``_scales``) and compressed-tensors store it. What
else is recognised is refused with the name of a program that converts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint.formats import Opened
from rlmerge.checkpoint.formats.quantised_codes import ByteCodes, Floats, Fp4Codes, Integers, WordCodes
from rlmerge.checkpoint.formats.quantised_config import (
    CONVERTERS,
    GROUP,
    Block,
    Quantisation,
    foreign,
    plain_config,
    read_quantisation,
    refuse_foreign,
)
from rlmerge.checkpoint.formats.quantised_source import (
    EXPONENTS,
    LikeBlocks,
    PackedGrid,
    ScaledBlocks,
    StoredGrid,
    TransposedBlocks,
    grid_of,
)
from rlmerge.checkpoint.header import LaidOut
from rlmerge.checkpoint.source import Extent, Source
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BY_NAME, MERGEABLE
from rlmerge.kernels.float8 import E4M3, E5M2

_AGAIN = "Weights and scales do not belong together, or one of them is damaged; download or save the model again."
_FLOAT8 = {BY_NAME["float8_e4m3fn"]: Floats(E4M3), BY_NAME["float8_e5m2"]: Floats(E5M2)}
_INT8, _UINT8, _INT32 = BY_NAME["int8"], BY_NAME["uint8"], BY_NAME["int32"]
_EXPONENTS = tuple(BY_NAME[name] for name in EXPONENTS)

_PACKED = {BY_NAME[name] for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32")} | set(_FLOAT8)

_SCALE = ("_scale", "_scale_inv", ".scale", "_scales", "_zero_point")
_LEFT = ("_scale_inv", "weight_scale", "weight_zero_point", "weight_shape", "_scales")
_ACTIVATION = re.compile(r"(^|[._])(input|output|activation|[qkv]|kv_cache|prob)_(scale|scale_inv|zero_point)$")


def decode_quantised(tensors: Mapping[str, Source], config: Mapping[str, Any] | None, root: Path) -> Opened | None:
    """The same model with every quantised weight as a source of float32 values; None if nothing is quantised.

    ``tensors`` are those of the files, ``config`` the content of config.json; the new one has no quantization_config.
    CheckpointError if weights are quantised in a way that is not decoded here, the method is unknown, or scales are
    missing or of the wrong shape.
    """
    quantisation = read_quantisation(config, root)
    refuse_foreign(tensors, quantisation, root)
    packed = any(tensor.dtype in _PACKED and len(tensor.shape) > 1 for tensor in tensors.values())
    if quantisation is not None and packed and quantisation.method in CONVERTERS:
        raise foreign(quantisation.method, root)
    found = _Collector(tensors, quantisation, root).collect()
    if found.decoded:
        kinds = " and ".join(sorted(found.kinds))
        return Opened(f"{kinds} weights", found.result(), found.warnings(), config=plain_config(config))
    if quantisation is None:
        return None
    method = repr(quantisation.method) if quantisation.method else "which names no method"
    if packed:
        what = f"holds integer codes that its quantization_config ({method}) does not explain"
        raise CheckpointError(what, where=str(root), hint=_AGAIN)
    warning = f"{root}: config.json has a quantization_config ({method}), but the weights are plain; it is left out"
    return Opened("safetensors", tensors, (warning,), config=plain_config(config))


def decoded_like(earlier: Opened, tensors: LaidOut) -> Opened | None:
    """What ``decode_quantised`` makes of ``tensors``, which have the names, types and shapes of those of ``earlier``.

    None where that also depends on what is stored, or has more parts than codes and scales.
    """
    found: dict[str, Source] = {}
    for name, source in earlier.tensors.items():
        if isinstance(source, ScaledBlocks) and source.is_simple:
            found[name] = LikeBlocks(source, tensors)
        elif isinstance(source, Extent):
            found[name] = tensors[name]
        else:
            return None
    return replace(earlier, tensors=found)


class _Collector:
    """Pairs codes with their scales; ``decoded`` by the name of the codes."""

    def __init__(self, tensors: Mapping[str, Source], quantisation: Quantisation | None, root: Path) -> None:
        self.tensors = tensors
        self.quantisation = quantisation
        self.root = root
        self.decoded: dict[str, ScaledBlocks | TransposedBlocks] = {}
        self.kinds: set[str] = set()
        self.used: set[str] = set()
        self.activations: list[str] = []
        self.sizes: dict[tuple[object, ...], tuple[tuple[int, int], tuple[int, int]]] = {}

    def collect(self) -> _Collector:
        for name, tensor in self.tensors.items():
            dtype = tensor.dtype
            if dtype in _FLOAT8 and not name.endswith(_SCALE):
                self._float8(name, tensor)
            elif dtype is _INT8 and name.endswith(".weight"):
                self._int8(name, tensor)
            elif name.endswith("_packed") and dtype in (_INT32, _UINT8):
                self._packed(name, tensor)
            elif name.endswith("_blocks") and dtype is _UINT8:
                self._mxfp4(name, tensor)
        if self.decoded:
            self._set_activations_apart()
        if self.decoded or self.quantisation is not None:
            self._check_left()
        return self

    def result(self) -> dict[str, Source]:
        """All tensors of the plain model, each in the place of its codes."""
        found: dict[str, Source] = {}
        for name, tensor in self.tensors.items():
            source = self.decoded.get(name) or (None if name in self.used or name in self.activations else tensor)
            if source is not None:
                found[source.name] = source
        return found

    def warnings(self) -> tuple[str, ...]:
        if not self.activations:
            return ()
        count, first = len(self.activations), self.activations[0]
        what = f"{count} scales of activations, such as {first!r}, have no use beside plain weights"
        return (f"{self.root}: {what}; only --out-dtype like-base keeps a base's",)

    def _add(self, kind: str, codes: str, source: ScaledBlocks | TransposedBlocks, *parts: str) -> None:
        if source.name != codes and source.name in self.tensors:
            raise self._wrong(codes, f"is there beside {source.name!r}; which of them counts is undefined")
        self.decoded[codes] = source
        self.kinds.add(kind)
        self.used.add(codes)
        self.used.update(parts)

    def _set_activations_apart(self) -> None:
        """Scales of activations go with the weight beside them, in case it is written as it is stored."""
        modules = {codes.rpartition(".")[0]: source for codes, source in reversed(self.decoded.items())}
        for name, tensor in self.tensors.items():
            if name in self.used or not _ACTIVATION.search(name) or len(tensor.shape) > 1:
                continue
            self.activations.append(name)
            module = name.rpartition(".")[0]
            below = (source for beside, source in modules.items() if beside.startswith(f"{module}."))
            source = modules.get(module) or next(below, None)
            if source is not None:
                owner = source.stored if isinstance(source, TransposedBlocks) else source
                owner.beside = (*owner.beside, tensor)

    def _float8(self, name: str, tensor: Source) -> None:
        scale = self._scale_of(name, ("_scale_inv", "_scale"))
        codes = ByteCodes(tensor, tensor.rows, tensor.columns, _FLOAT8[tensor.dtype])
        blocks = (GROUP,) if scale.dtype in _EXPONENTS and self._blocks_unknown() else ()
        source = ScaledBlocks(name, tensor.shape, codes, self._grid(tensor.shape, scale, blocks))
        self._add("FP8", name, source, scale.name)

    def _int8(self, name: str, tensor: Source) -> None:
        if self.quantisation is not None and self.quantisation.method not in ("compressed-tensors", None):
            method = self.quantisation.method
            raise self._wrong(name, f"holds int8 codes, which {method!r} does not explain", CONVERTERS["nvfp4"])
        scale = self._scale_of(name, ("_scale",))
        zero = self.tensors.get(f"{name}_zero_point")
        codes = ByteCodes(tensor, tensor.rows, tensor.columns, Integers(8, raised=False))
        grid = self._grid(tensor.shape, scale)
        zeros = None
        if zero is not None:
            if zero.dtype is not _INT8 or zero.shape != scale.shape:
                raise self._wrong(
                    zero.name, f"is {_kind(zero)}; zero points of int8 weights are int8 {list(scale.shape)}"
                )
            zeros = replace(grid, part=zero)
        source = ScaledBlocks(name, tensor.shape, codes, grid, zeros)
        self._add("int8", name, source, scale.name, f"{name}_zero_point")

    def _packed(self, name: str, tensor: Source) -> None:
        stem = name.removesuffix("_packed")
        scale = self._scale_of(stem, ("_scale",), name)
        if tensor.dtype is _UINT8:
            self._fp4(name, stem, tensor, scale)
            return
        m, n = self._shape_of(stem, tensor)
        options = (4, 8) if self.quantisation is None else self.quantisation.bits
        bits = next((bits for bits in options if tensor.shape[1] == -(-n * bits // 32)), None)
        if tensor.shape[0] != m or bits is None:
            raise self._wrong(name, f"is {_kind(tensor)}, which cannot hold 4 or 8 bits for each of [{m}, {n}]")
        if scale.shape != (m, scale.columns) or n % max(1, scale.columns):
            raise self._wrong(scale.name, f"is {_kind(scale)}; scales of [{m}, {n}] have {m} rows of equal groups")
        block = 1, n // max(1, scale.columns)
        allowed = [(1, columns or n) for _, columns in self._blocks(scale.name)] if self._groups_stated() else [block]
        if block not in allowed:
            raise self._wrong(scale.name, f"gives groups of {block[1]}, but config.json states {allowed[0][1]}")
        groups = self._order(stem, n, scale.columns)
        grid = StoredGrid(scale, (m, n), block, groups)
        zeros = self._packed_zeros(stem, grid, bits)
        source = ScaledBlocks(stem, (m, n), WordCodes(tensor, m, n, Integers(bits, raised=True), bits), grid, zeros)
        source.beside = [self.tensors[x] for x in (f"{stem}_shape", f"{stem}_g_idx") if x in self.tensors]
        self._add(f"int{bits}", name, source, *(f"{stem}_{part}" for part in ("scale", "shape", "zero_point", "g_idx")))

    def _fp4(self, name: str, stem: str, tensor: Source, scale: Source) -> None:
        shape = (*tensor.shape[:-1], tensor.columns * 2)
        if scale.dtype not in _EXPONENTS or len(shape) < 2:
            raise self._wrong(name, f"with scales of {scale.dtype.name} is no MXFP4 weight", CONVERTERS["nvfp4"])
        grid = self._grid(shape, scale, (GROUP,))
        source = ScaledBlocks(stem, shape, Fp4Codes(tensor, tensor.rows, shape[-1]), grid)
        self._add("MXFP4", name, source, scale.name)

    def _mxfp4(self, name: str, tensor: Source) -> None:
        stem = name.removesuffix("_blocks")
        scale = self.tensors.get(f"{stem}_scales")
        if len(tensor.shape) not in (3, 4) or tensor.columns != 16:
            raise self._wrong(name, f"is {_kind(tensor)}; MXFP4 blocks are uint8 [..., groups of 32, 16]")
        if scale is None:
            raise self._wrong(name, f"has no scales: {stem}_scales is missing")
        shape = (*tensor.shape[:-2], tensor.shape[-2] * 32)
        if scale.dtype not in _EXPONENTS or scale.shape != tensor.shape[:-1]:
            raise self._wrong(scale.name, f"is {_kind(scale)}; scales here are uint8 {list(tensor.shape[:-1])}")
        matrix = shape[-2], shape[-1]
        codes = Fp4Codes(tensor, tensor.rows // tensor.shape[-2], shape[-1])
        # Blocks of a single matrix belong to a linear layer. A stack of them is a parameter of gpt-oss's experts, which
        # transformers keeps with inputs first once it is unpacked.
        stacked = len(shape) == 3
        source = ScaledBlocks(stem if stacked else f"{stem}.weight", shape, codes, StoredGrid(scale, matrix, GROUP))
        self._add("MXFP4", name, TransposedBlocks(stem, source) if stacked else source, scale.name)

    def _scale_of(self, name: str, endings: tuple[str, ...], codes: str = "") -> Source:
        found = None
        for ending in endings:
            if (found := self.tensors.get(name + ending)) is not None:
                break
        if found is None and name.endswith(".weight"):
            found = self.tensors.get(f"{name.removesuffix('.weight')}.scale")
        if found is None:
            raise self._wrong(codes or name, f"has no scales: {name}{endings[0]} is missing")
        if not found.dtype.is_float and found.dtype not in _EXPONENTS:
            raise self._wrong(found.name, f"is {_kind(found)}, which cannot be scales")
        return found

    def _grid(self, shape: tuple[int, ...], scale: Source, first: tuple[Block, ...] = ()) -> StoredGrid:
        """The scales as blocks of a matrix of ``shape``, by the first kind of block that their shape fits."""
        key = shape, scale.shape, first, scale.name.endswith("_inv")
        if key not in self.sizes:
            self.sizes[key] = self._sizes(shape, scale, first)
        return StoredGrid(scale, *self.sizes[key])

    def _sizes(
        self, shape: tuple[int, ...], scale: Source, first: tuple[Block, ...]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Matrix and block of a grid; like ``Quantisation.blocks`` they ask no more of a scale's name than its end."""
        matrix = (shape[-2] if len(shape) > 1 else 1), shape[-1] if shape else 1
        stack = shape[:-2]
        blocks = (*first, *self._blocks(scale.name))
        sizes = [(block[0] or max(1, matrix[0]), block[1] or max(1, matrix[1])) for block in blocks]
        for size in sizes:
            if scale.shape in _spellings(stack, grid_of(matrix, size)):
                return matrix, size
        wanted = [*stack, *grid_of(matrix, sizes[0])]
        raise self._wrong(scale.name, f"is {_kind(scale)}, but scales of {list(shape)} here have the shape {wanted}")

    def _blocks(self, scale: str) -> tuple[Block, ...]:
        return (self.quantisation or Quantisation(None, {})).blocks(scale)

    def _blocks_unknown(self) -> bool:
        return self.quantisation is None or "weight_block_size" not in self.quantisation.entry

    def _groups_stated(self) -> bool:
        return self.quantisation is not None and bool(self.quantisation.groups())

    def _shape_of(self, stem: str, tensor: Source) -> tuple[int, int]:
        stated = self.tensors.get(f"{stem}_shape")
        if stated is None or stated.numel != 2 or stated.dtype.storage.kind not in "iu" or len(tensor.shape) != 2:
            raise self._wrong(tensor.name, f"needs {stem}_shape, two integers, to be unpacked")
        m, n = (int(size) for size in stated.read())
        if not (0 < m < 1 << 31 and 0 < n < 1 << 31):
            raise self._wrong(stated.name, f"states the shape [{m}, {n}]")
        return m, n

    def _order(self, stem: str, columns: int, groups: int) -> np.ndarray | None:
        index = self.tensors.get(f"{stem}_g_idx")
        if index is None:
            return None
        if index.dtype is not _INT32 or index.shape != (columns,):
            raise self._wrong(index.name, f"is {_kind(index)}; the group of every column is int32 [{columns}]")
        order = index.read().astype(np.int64)
        if order.min() < 0 or order.max() >= groups:
            raise self._wrong(index.name, f"names a group outside 0 … {groups - 1}")
        return order

    def _packed_zeros(self, stem: str, scales: StoredGrid, bits: int) -> PackedGrid | None:
        zero = self.tensors.get(f"{stem}_zero_point")
        if zero is None:
            return None
        shape = -(-scales.matrix[0] * bits // 32), scales.part.columns
        if zero.dtype is not _INT32 or zero.shape != shape:
            raise self._wrong(zero.name, f"is {_kind(zero)}; zero points here are int32 {list(shape)}")
        return PackedGrid(zero, scales.matrix, scales.block, Integers(bits, raised=True), scales.groups)

    def _check_left(self) -> None:
        """CheckpointError if scales are left whose weight is plain or missing: nobody knows what they are for."""
        for name in self.tensors:
            if name in self.used or name in self.activations or not name.endswith(_LEFT):
                continue
            weight = re.sub(r"(_scale_inv|_scale|_scales|_zero_point|_shape)$", "", name)
            other = self.tensors.get(weight)
            if other is None:
                raise self._wrong(name, "is there without the weight that it belongs to")
            if other.dtype in MERGEABLE:
                raise self._wrong(name, f"is there, but {weight!r} is plain {other.dtype.name}, not codes to scale")

    def _wrong(self, name: str, what: str, converter: str | None = None) -> CheckpointError:
        tensor = self.tensors.get(name)
        where = tensor.where if tensor is not None else f"{self.root}: {name}"
        hint = f"Convert it first with {converter}." if converter else _AGAIN
        return CheckpointError(what, where=where, hint=hint)


def _kind(tensor: Source) -> str:
    return f"{tensor.dtype.name} {list(tensor.shape)}"


def _spellings(stack: tuple[int, ...], grid: tuple[int, int]) -> list[tuple[int, ...]]:
    """The shapes in which scales of one grid are stored: ones at the end may be left out."""
    spelt: list[tuple[int, ...]] = [(*stack, *grid)]
    if grid[1] == 1:
        spelt.append((*stack, grid[0]))
    if grid == (1, 1):
        spelt.append(stack)
    return spelt
