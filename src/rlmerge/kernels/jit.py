"""Compiles kernels with LLVM and calls them on NumPy arrays, without the interpreter lock.

Kernels are compiled in milliseconds, once per process and program; nothing is cached on disk.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from .loops import Program, module, streams
from .sinks import BINS

BLOCK = 1 << 16
"""Elements per block of a statistic's sum; tiles of elementwise methods start at multiples of it."""

ACCOUNT_BLOCK = 1 << 14
"""Elements per block of the sums that account for a merge."""

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64
_FUNCTION = ctypes.CFUNCTYPE(None, *([_INT] * 4), *([_POINTER] * 4), _INT, *([_POINTER] * 7), _INT, _POINTER)
_lock = threading.Lock()


@dataclass(frozen=True)
class Selection:
    """Which leading bits a histogram pass looks at; see ``rlmerge.kernels.select``.

    ``histograms`` int64 [M, 65536] and ``side`` (words with low bits, [M, capacity]) are added to; ``side_counts``
    int64 [M] goes on counting when ``side`` is full.
    """

    shift: int
    bin_mask: int
    low_mask: int
    prefix_shift: int
    prefixes: Sequence[int]
    histograms: np.ndarray
    side: np.ndarray
    side_counts: np.ndarray


@dataclass(frozen=True)
class Counts:
    """What one call accumulated: ``sums`` float64 [blocks, S], ``counts`` int64 [C], and non-finite flags."""

    sums: np.ndarray
    counts: np.ndarray
    nonfinite_in: bool
    nonfinite_out: bool


class Kernel:
    """A compiled program. Calls are thread-safe and release the interpreter lock."""

    def __init__(self, program: Program) -> None:
        text, self.slots = module(program)
        self.streams = streams(program)
        self.real = np.dtype(np.float32 if program.real == "float" else np.float64)
        self._engine, address = _compile(text)
        self._function = _FUNCTION(address)

    def __call__(
        self,
        inputs: Sequence[np.ndarray],
        *,
        start: int = 0,
        out: np.ndarray | None = None,
        block: int = BLOCK,
        columns: int = 1,
        params: Sequence[float] | np.ndarray = (),
        rows: np.ndarray | None = None,
        keys: Sequence[tuple[int, int]] = (),
        selection: Selection | None = None,
    ) -> Counts:
        """Run over flat storage arrays [n] of one tile that starts at flat index ``start`` of its tensor.

        ``rows`` [R, all rows of the tensor] holds the row-wise values, ``columns`` the tensor's last dimension.
        """
        n = len(inputs[0])
        if any(len(x) != n or not x.flags.c_contiguous for x in inputs):
            raise ValueError("inputs of a kernel must be contiguous and equally long")
        if len(keys) != self.streams:
            raise ValueError(f"kernel takes {self.streams} random keys, got {len(keys)}")
        sums = np.zeros((-(-n // block), self.slots.sums))
        counts = np.zeros(self.slots.counts, np.int64)
        largest = np.zeros(2, np.uint64)
        pointers = np.array([x.ctypes.data for x in inputs], np.uint64)
        scalars = np.asarray(params, self.real)
        words = np.asarray(keys, np.uint32).reshape(-1)
        table = None if rows is None else np.ascontiguousarray(rows, self.real)
        chosen = _selection_words(selection)
        self._function(
            n,
            start,
            block,
            columns,
            *map(_address, (pointers, out, scalars, table)),
            0 if table is None else table.shape[1],
            *map(_address, (words, sums, counts, largest)),
            _address(selection and selection.histograms),
            _address(selection and selection.side),
            _address(selection and selection.side_counts),
            0 if selection is None else selection.side.shape[1],
            _address(chosen),
        )
        infinite = np.uint64(0x7F800000 if self.real == np.float32 else 0x7FF0000000000000)
        return Counts(sums, counts, bool(largest[0] >= infinite), bool(largest[1] >= infinite))


def _address(array: Any) -> int | None:
    return None if array is None else array.ctypes.data


def _selection_words(selection: Selection | None) -> np.ndarray | None:
    if selection is None:
        return None
    if selection.histograms.shape != (len(selection.prefixes), BINS):
        raise ValueError("one histogram of 65536 bins for each value")
    fixed = (selection.shift, selection.bin_mask, selection.low_mask, selection.prefix_shift)
    return np.array([*fixed, *selection.prefixes], np.uint64)


def _compile(text: str) -> tuple[llvm.ExecutionEngine, int]:
    with _lock:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, jit=True
        )
        parsed = llvm.parse_assembly(text)
        parsed.verify()
        passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
        passes.getModulePassManager().run(parsed, passes)
        engine = llvm.create_mcjit_compiler(parsed, machine)
        engine.finalize_object()
        return engine, engine.get_function_address("kernel")
