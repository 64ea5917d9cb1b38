"""Formulas on torch tensors, tile by tile on any device; models may lie there already, or stream through it from files.

Arithmetic, order and random numbers equal the NumPy reference's; division and square root are IEEE on the CPU and on
CUDA, so results agree bit for bit unless a backend flushes subnormals. Functions of whole rows or tensors run on NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xxhash

from rlmerge.checkpoint import InputFile, Source
from rlmerge.kernels import random
from rlmerge.kernels.dtypes import BFLOAT16, BY_NAME, FLOAT16, DType
from rlmerge.kernels.histogram import BINS
from rlmerge.kernels.jit import Selection
from rlmerge.kernels.program import is_traceable
from rlmerge.kernels.random import HIGH_WORD, MIXER
from rlmerge.kernels.rounding import encode
from rlmerge.kernels.select import Selector, Tally
from rlmerge.kernels.values import Extra, RowField, Uniform, on_tile

from .backend import Binding, Merger, Numbers, Reducer, Storing, together
from .on_numpy import NumpyBackend, NumpyFormula, NumpyReducer
from .tiles import Tile


class TorchNamespace:
    """``xp`` on torch tensors; see ``rlmerge.kernels.namespace``."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._like = torch.zeros((), dtype=dtype, device=device)

    sqrt = staticmethod(torch.sqrt)

    def abs(self, x: Any) -> torch.Tensor:
        return torch.abs(self._tensor(x))

    def isfinite(self, x: Any) -> torch.Tensor:
        return torch.isfinite(self._tensor(x))

    def sign(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.isnan(), x, torch.sign(x))

    def minimum(self, x: Any, y: Any) -> torch.Tensor:
        return torch.minimum(self._tensor(x), self._tensor(y))

    def maximum(self, x: Any, y: Any) -> torch.Tensor:
        return torch.maximum(self._tensor(x), self._tensor(y))

    def where(self, condition: Any, x: Any, y: Any) -> torch.Tensor:
        if not isinstance(condition, torch.Tensor):
            condition = torch.tensor(bool(condition), device=self._like.device)
        return torch.where(condition, self._tensor(x), self._tensor(y))

    def sum(self, x: Any) -> Any:
        total = x[0]
        for row in x[1:]:
            total = total + row
        return total

    def count(self, mask: Any) -> torch.Tensor:
        return self.sum([row.to(self._like.dtype) for row in mask])

    def any(self, mask: Any) -> torch.Tensor:
        return _stack(mask).any(dim=0)

    def all(self, mask: Any) -> torch.Tensor:
        return _stack(mask).all(dim=0)

    def max(self, x: Any) -> torch.Tensor:
        return _stack(x).amax(dim=0)

    def min(self, x: Any) -> torch.Tensor:
        return _stack(x).amin(dim=0)

    def _tensor(self, x: Any) -> torch.Tensor:
        return x if isinstance(x, torch.Tensor) else torch.full_like(self._like, float(x))


class TorchSource(Source):
    """A tensor in memory on some device; ``tensor`` is flat, and ``label`` names its model."""

    def __init__(self, name: str, tensor: torch.Tensor, label: str) -> None:
        self.name = name
        self.dtype = BY_NAME[str(tensor.dtype).removeprefix("torch.")]
        self.shape = tuple(tensor.shape)
        self.label = label
        self.tensor = tensor.detach().contiguous().reshape(-1)

    @property
    def where(self) -> str:
        return f"{self.label}: {self.name}"

    @property
    def files(self) -> tuple[InputFile, ...]:
        return ()

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        return _to_numpy(self.tensor[start:stop])

    def fingerprint(self, whole: bool) -> bytes:
        return xxhash.xxh3_128_digest(self.read().tobytes())


class _Formula:
    """A bound formula on tensors of one device."""

    def __init__(self, binding: Binding, device: torch.device) -> None:
        self.binding = binding
        self.device = device
        self.real = torch.float64 if binding.real == np.float64 else torch.float32
        self.host = NumpyFormula(binding)

    def groups(self, tile: Tile, inputs: Sequence[torch.Tensor]) -> Iterator[tuple[Tile, Sequence[torch.Tensor]]]:
        """The tile, or with a field its groups of rows, the field computed by NumPy."""
        if self.host.field is None:
            yield tile, inputs
            return
        stored = [_to_numpy(x) for x in inputs]
        for group, arrays in self.host.groups(tile, stored):
            yield group, [_to_torch(x, self.device) for x in arrays]

    def decode(
        self, inputs: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | None, bool]:
        """Base, what the formula gets as its third argument, task vectors, and whether all was finite."""
        operands = self.binding.operands
        weights = [x.to(self.real) for x in inputs[: len(operands.inputs)]]
        finite = all(bool(w.isfinite().all()) for w in weights)
        if self.binding.zero and not finite:
            weights = [torch.where(w.isfinite(), w, torch.zeros_like(w)) for w in weights]
        base = weights.pop(0) if operands.base is not None else None
        theta = torch.stack(weights)
        deltas = None if base is None else theta - base
        if deltas is not None and operands.same_is_zero:
            deltas = torch.where(theta == base, torch.zeros_like(deltas), deltas)
        return base, deltas if operands.deltas and deltas is not None else theta, deltas, finite

    def run(self, tile: Tile, base: torch.Tensor | None, stack: torch.Tensor, further: Sequence[torch.Tensor]) -> Any:
        """The formula on one decoded tile."""
        count, real = tile.count, self.binding.real
        values: dict[str, Any] = {
            name: torch.as_tensor(np.array(value), device=self.device) if isinstance(value, np.ndarray | np.generic)
            else value
            for name, value in on_tile(self.host.values, real, tile.start, count, self.host.columns).items()
        }  # fmt: skip
        rest = list(further)
        for name, value in sorted(self.host.values.items()):
            if isinstance(value, Extra):
                values[name] = torch.stack([x.to(self.real) for x in rest[: len(value.dtypes)]])
                rest = rest[len(value.dtypes) :]
            elif isinstance(value, Uniform):
                keys = self.binding.keys[: value.count]
                draws = [random_bits(key, tile.start, count, self.device) >> 8 for key in keys]
                values[name] = torch.stack([x.to(self.real) * 2.0**-24 for x in draws])
        return self.binding.formula(TorchNamespace(self.real, self.device), base, stack, **values)


class _TorchMerger(_Formula):
    def __init__(self, binding: Binding, storing: Storing, device: torch.device) -> None:
        super().__init__(binding, device)
        self.storing = storing

    def __call__(self, tile: Tile, inputs: Sequence[torch.Tensor], out: Any) -> Numbers:
        parts: list[Numbers] = []
        for group, arrays in self.groups(tile, inputs):
            stored, numbers = self._merge(group, arrays)
            place = slice(group.start - tile.start, group.stop - tile.start)
            if isinstance(out, torch.Tensor):
                out[place] = stored
            else:
                out[place] = _to_numpy(stored)
            parts.append(numbers)
        return together(parts)

    def _merge(self, tile: Tile, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, Numbers]:
        base, stack, deltas, finite = self.decode(inputs)
        merged = self.run(tile, base, stack, inputs[len(self.binding.operands.inputs) :])
        merged = torch.as_tensor(merged, dtype=self.real, device=self.device)
        merged = (merged[0] if merged.ndim > 1 else merged).expand(tile.count)
        if base is not None and deltas is not None and self.storing.keeps_base:
            merged = torch.where((deltas != 0).any(dim=0), merged, base)
        stored = self._encode(merged, tile.start, self.storing.rounding == "stochastic")
        overflow = not bool(stored.isfinite().all())
        if base is None or deltas is None:
            return stored, Numbers(np.zeros((1, 0)), np.zeros(0, np.int64), not finite, overflow)
        counts, sums = self._account(base, deltas, merged, stored)
        return stored, Numbers(sums[None], counts, not finite, overflow)

    def _encode(self, merged: torch.Tensor, start: int, stochastic: bool = False) -> torch.Tensor:
        """Rounded to the output type, like ``rlmerge.kernels.rounding.encode``."""
        dtype = self.storing.dtype
        if stochastic or (merged.dtype == torch.float64 and dtype in (BFLOAT16, FLOAT16)):
            bits = random.bits(self.binding.keys[-1], start, merged.numel()) if stochastic else None
            stored = encode(merged.cpu().numpy(), dtype, "stochastic" if stochastic else "nearest", bits)
            return _to_torch(stored, self.device, dtype)
        return merged.to(torch_dtype(dtype))

    def _account(
        self, base: torch.Tensor, deltas: torch.Tensor, merged: torch.Tensor, stored: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """The counts and sums of ``rlmerge.kernels.account.account``."""
        final = stored.to(self.real)
        survived = final != self._encode(base, 0).to(self.real)
        erased = ~survived & (merged != base)
        changed = deltas != 0
        times = changed.sum(dim=0)
        wide = deltas.double()
        asked, moved = merged.double() - base, final.double() - base
        counts = [(times > 0).sum(), ((times > 0) & survived).sum()]
        sums: list[torch.Tensor] = []
        for mask, delta in zip(changed, wide, strict=True):
            unique = mask & (times == 1)
            counts += [x.sum() for x in (mask, mask & survived, unique, mask & erased)]
            product, square = moved * delta, delta * delta
            sums += [(asked * delta)[unique].sum(), product[unique].sum(), square[unique].sum()]
            sums += [product.sum(), square.sum()]
        return torch.stack(counts).cpu().numpy(), torch.stack(sums).cpu().numpy()


class _TorchReducer(_Formula):
    reads = False

    def __init__(self, binding: Binding, device: torch.device) -> None:
        super().__init__(binding, device)
        self.on_host = NumpyReducer(binding)

    @property
    def selected(self) -> int:
        return self.on_host.selected

    def sums(self, tile: Tile, inputs: Sequence[torch.Tensor]) -> tuple[np.ndarray, bool]:
        found, bad = self._results(tile, inputs)
        return np.array([[float(row.double().sum()) for row in rows] for rows in found]), bad

    def counts(self, tile: Tile, inputs: Sequence[torch.Tensor]) -> tuple[np.ndarray, bool]:
        found, bad = self._results(tile, inputs)
        return np.sum([[int(row.count_nonzero()) for row in rows] for rows in found], axis=0), bad

    def sample(self, selector: Selector, tile: Tile) -> tuple[Selection, np.ndarray] | None:
        return None

    def rows(self, tile: Tile, inputs: Sequence[torch.Tensor]) -> tuple[np.ndarray, bool]:
        return self.on_host.rows(tile, [_to_numpy(x) for x in inputs])

    def matrix(self, tile: Tile, inputs: Sequence[torch.Tensor]) -> tuple[np.ndarray, bool]:
        return self.on_host.matrix(tile, [_to_numpy(x) for x in inputs])

    def tally(self, selector: Selector, tile: Tile, inputs: Sequence[torch.Tensor]) -> tuple[Tally, bool]:
        found, bad = self._results(tile, inputs)
        total = selector.tally_of([])
        for rows in found:
            total.add(self._tally(selector, rows))
        return total, bad

    def _tally(self, selector: Selector, rows: Sequence[torch.Tensor]) -> Tally:
        asked, spans = selector.selection(0), selector.spans()
        histograms: list[np.ndarray] = []
        side: list[list[np.ndarray] | None] = []
        counts = np.zeros((2, len(rows)), np.int64)
        for index, (row, (first, last)) in enumerate(zip(rows, asked.windows, strict=True)):
            words = row.to(self.real).contiguous().view(torch.int32 if self.real == torch.float32 else torch.int64)
            # The last word of a window may be beyond what an integer with a sign can be.
            above = words > last - 1
            counts[:, index] = int(torch.count_nonzero(words)), int(torch.count_nonzero(above))
            chosen = words[(words >= first) & ~above]
            bins = (chosen >> asked.shift) & asked.bin_mask
            histograms.append(torch.bincount(bins, minlength=BINS).cpu().numpy()[spans[index]])
            listed = chosen[(chosen & asked.low_mask) != 0].cpu().numpy().view(np.uint32) if asked.low_mask else None
            side.append(None if listed is None else [listed])
        return Tally(histograms, side, counts[0], counts[1], spans)

    def _results(self, tile: Tile, inputs: Sequence[torch.Tensor]) -> tuple[list[list[torch.Tensor]], bool]:
        found: list[list[torch.Tensor]] = []
        bad = False
        for group, arrays in self.groups(tile, inputs):
            base, stack, _, finite = self.decode(arrays)
            result = self.run(group, base, stack, arrays[len(self.binding.operands.inputs) :])
            rows = list(result) if isinstance(result, list | tuple) or result.ndim > 1 else [result]
            found.append([torch.as_tensor(row).expand(group.count) for row in rows])
            bad |= not finite
        return found, bad


class _OnHost:
    """A merger on NumPy between tensors of a device: of whole tensors, or of formulas that call NumPy."""

    def __init__(self, merger: Merger, device: torch.device) -> None:
        self.merger = merger
        self.device = device

    def __call__(self, tile: Tile, inputs: Sequence[torch.Tensor], out: Any) -> Numbers:
        dtype = tile.job.output.dtype
        stored = np.empty(tile.count, dtype.storage) if isinstance(out, torch.Tensor) else out
        found = self.merger(tile, [_to_numpy(x) for x in inputs], stored)
        if isinstance(out, torch.Tensor):
            out.copy_(_to_torch(stored, self.device, dtype))
        return found


class _ReducedOnHost(NumpyReducer):
    """A reducer on NumPy of tensors of a device."""

    def groups(self, tile: Tile, inputs: Sequence[Any]) -> Iterator[tuple[Tile, Sequence[np.ndarray]]]:
        return super().groups(tile, [_to_numpy(x) for x in inputs])

    def matrix(self, tile: Tile, inputs: Sequence[Any]) -> tuple[np.ndarray, bool]:
        return super().matrix(tile, [_to_numpy(x) for x in inputs])


class TorchBackend(NumpyBackend):
    """Formulas on one torch device."""

    name = "torch"

    def __init__(self, device: str | torch.device) -> None:
        self.device = torch.device(device)

    def load(self, source: Source, start: int, stop: int) -> Any:
        """A range of a tensor on the device, or one that is moved there."""
        if isinstance(source, TorchSource):
            return source.tensor[start:stop].to(self.device)
        return _to_torch(source.read(start, stop), self.device, source.dtype)

    def merger(self, binding: Binding, storing: Storing) -> Merger:
        """What merges tiles, or a whole tensor."""
        if binding.whole or not _runs_on_torch(binding):
            return _OnHost(super().merger(binding, storing), self.device)
        return _TorchMerger(binding, storing, self.device)

    def reducer(self, binding: Binding, reduce: str) -> Reducer:
        """A reducer of any kind."""
        if reduce in ("rows", "matrix") or not _runs_on_torch(binding):
            return _ReducedOnHost(binding)
        return _TorchReducer(binding, self.device)


def _runs_on_torch(binding: Binding) -> bool:
    """Whether the formula keeps to the operations of ``xp``; functions of rows may call NumPy as they like."""
    values = {n: v.extra(binding.real) if isinstance(v, RowField) else v for n, v in binding.values.items()}
    return is_traceable(binding.formula, binding.operands, values)


def random_bits(key: tuple[int, int], start: int, count: int, device: torch.device) -> torch.Tensor:
    """Random 32-bit words as int64 [count]; equals ``rlmerge.kernels.random.bits``."""
    index = torch.arange(start, start + count, dtype=torch.int64, device=device)
    first = _mix((index & 0xFFFFFFFF) ^ key[0])
    return _mix(first ^ ((((index >> 32) * HIGH_WORD) + key[1]) & 0xFFFFFFFF))


def _mix(word: torch.Tensor) -> torch.Tensor:
    for shift, multiplier in MIXER:
        word = word ^ (word >> shift)
        if multiplier is not None:
            # 32 x 32 bits overflow int64's sign, but the lower 32 bits, all that is kept, come out right.
            word = (word * multiplier) & 0xFFFFFFFF
    return word


def torch_dtype(dtype: DType) -> torch.dtype:
    """torch's name of an element type."""
    return getattr(torch, dtype.name)


def _stack(x: Any) -> torch.Tensor:
    return x if isinstance(x, torch.Tensor) else torch.stack(list(x))


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Storage values [n] on the host."""
    host = tensor.detach().cpu()
    return host.view(torch.int16).numpy().view(np.uint16) if host.dtype == torch.bfloat16 else host.numpy()


def _to_torch(array: np.ndarray, device: torch.device, dtype: DType | None = None) -> torch.Tensor:
    """A tensor of storage values on ``device``; uint16 is bfloat16 unless ``dtype`` says otherwise."""
    bfloat16 = dtype is BFLOAT16 or (dtype is None and array.dtype == np.uint16)
    copied = np.array(array.view(np.int16) if bfloat16 else array)  # mapped files are read-only, which torch warns of
    made = torch.from_numpy(copied).to(device)
    return made.view(torch.bfloat16) if bfloat16 else made
