"""Compiles kernels with LLVM and calls them on NumPy arrays, without the interpreter lock.

Kernels are compiled in milliseconds, once per process and program; their machine code is kept for later processes.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import __version__ as llvmlite_version

from . import code_cache
from .dtypes import FLOAT16, decode
from .histogram import BINS, held_words
from .loops import LANES, Program, module, streams
from .sinks import MASK_BITS, Reduce, Write
from .trace import UntraceableError

BLOCK = 1 << 16
"""Elements per block of a statistic's sum; tiles of elementwise methods start at multiples of it."""

ACCOUNT_BLOCK = 1 << 14
"""Elements per block of the sums that account for a merge."""

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64
_TILE = (*([_INT] * 4), *([_POINTER] * 4), _INT)
_RESULTS = (*([_POINTER] * 7), _INT, *([_POINTER] * 2), _INT, _POINTER)
_FUNCTION = ctypes.CFUNCTYPE(None, *_TILE, *_RESULTS)
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
    """A compiled program. Calls are thread-safe and release the interpreter lock.

    ``streams`` random keys go in; ``selected`` values are histogrammed.
    """

    def __init__(self, program: Program) -> None:
        host = find_host()
        if FLOAT16 in (*program.inputs, getattr(program.sink, "dtype", None)) and not host.converts_float16:
            raise UntraceableError("this processor cannot convert float16 to float32 by itself")
        text, self.slots = module(program, host.packs)
        self.streams = streams(program)
        self.selected = len(program.sink.values) if isinstance(program.sink, Reduce) else 0
        self.real = np.dtype(np.float32 if program.real == "float" else np.float64)
        self._program = program
        self._numbers = len(program.used("param")), len(program.used("row"))
        self._engine, address = compile_kernel(text, host)
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
        sums = np.zeros((-(-n // block), self.slots.sums))
        counts = np.zeros(self.slots.counts, np.int64)
        largest = np.zeros(2, np.uint64)
        pointers = np.array([x.ctypes.data for x in inputs], np.uint64)
        scalars = np.asarray(params, self.real)
        words = np.asarray(keys, np.uint32).reshape(-1)
        table = None if rows is None else np.ascontiguousarray(rows, self.real)
        chosen = _selection_words(selection)
        # A block keeps a word a vector; the last group of words is padded.
        stride = (min(n, block) + 64) // MASK_BITS
        masks = np.empty(self.slots.masks * stride, np.uint16)
        held = np.empty(held_words(self.selected, LANES), np.uint64)
        self._check(inputs, out, selection)
        numbers = len(scalars), 0 if table is None else len(table)
        if len(keys) != self.streams or numbers != self._numbers:
            raise ValueError("a kernel takes as many parameters, row-wise values and random keys as its formula")
        if table is not None and table.shape[1] * columns < start + n:
            raise ValueError(f"{table.shape[1]} rows of {columns} columns end before the tile does")
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
            *map(_address, (chosen, masks)),
            stride,
            _address(held),
        )
        if self._program.sums_tell:
            return Counts(sums, counts, *self._nonfinite(inputs, out, sums))
        infinite = np.uint64(0x7F800000 if self.real == np.float32 else 0x7FF0000000000000)
        return Counts(sums, counts, bool(largest[0] >= infinite), bool(largest[1] >= infinite))

    def _nonfinite(self, inputs: Sequence[np.ndarray], out: np.ndarray | None, sums: np.ndarray) -> tuple[bool, bool]:
        """Whether inputs and output hold NaN or infinity; sums that are finite say that they do not."""
        if np.isfinite(sums).all():
            return False, False
        found = [not np.isfinite(decode(x, dtype)).all() for x, dtype in zip(inputs, self._program.inputs, strict=True)]
        assert out is not None and isinstance(self._program.sink, Write)
        return any(found), not np.isfinite(decode(out, self._program.sink.dtype)).all()

    def _check(self, inputs: Sequence[np.ndarray], out: np.ndarray | None, selection: Selection | None) -> None:
        """Refuse arrays that the compiled code would read or write out of bounds."""
        sink, n = self._program.sink, len(inputs[0])
        arrays, dtypes = list(inputs), list(self._program.inputs)
        if isinstance(sink, Write):
            if out is None:
                raise ValueError("a kernel that writes needs 'out'")
            arrays, dtypes = [*arrays, out], [*dtypes, sink.dtype]
        elif sink.values and (selection is None or len(selection.prefixes) != len(sink.values)):
            raise ValueError(f"a kernel that selects needs a selection of {len(sink.values)} values")
        if len(arrays) != len(dtypes) or any(x.shape != (n,) or not x.flags.c_contiguous for x in arrays):
            raise ValueError(f"a kernel takes {len(dtypes)} contiguous arrays of the same length")
        if any(x.dtype != dtype.storage for x, dtype in zip(arrays, dtypes, strict=True)):
            raise ValueError(f"a kernel takes arrays of {', '.join(str(dtype.storage) for dtype in dtypes)}")


def _address(array: Any) -> int | None:
    return None if array is None else array.ctypes.data


def _selection_words(selection: Selection | None) -> np.ndarray | None:
    if selection is None:
        return None
    if selection.histograms.shape != (len(selection.prefixes), BINS):
        raise ValueError("one histogram of 65536 bins for each value")
    fixed = (selection.shift, selection.bin_mask, selection.low_mask, selection.prefix_shift)
    return np.array([*fixed, *selection.prefixes], np.uint64)


@dataclass(frozen=True)
class Host:
    """The processor to compile for: LLVM's name of it and the features it has.

    ``packs`` says that it moves chosen lanes of 512 bits together.
    """

    cpu: str
    features: str
    converts_float16: bool
    packs: bool = False


def find_host() -> Host:
    """The processor this process runs on."""
    features = llvm.get_host_cpu_features()
    native = not llvm.get_process_triple().startswith(("x86", "i386", "i686")) or bool(features.get("f16c"))
    return Host(llvm.get_host_cpu_name(), features.flatten(), native, bool(features.get("avx512f")))


_PIPELINE = "1: sroa, instcombine, simplifycfg; opt 2"
"""What is done to the IR; code of another pipeline is not ours."""


def compile_kernel(text: str, host: Host) -> tuple[llvm.ExecutionEngine, int]:
    """Machine code for ``@kernel``. The IR is vectorised already: it needs registers for its slots and a clean-up."""
    with _lock:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(cpu=host.cpu, features=host.features, opt=2, jit=True)
        version = ".".join(map(str, llvm.llvm_version_info))
        name = code_cache.key(_PIPELINE, llvmlite_version, version, machine.triple, host.cpu, host.features, text)
        code = code_cache.load(name)
        # Code that is there already takes the place of what a module of nothing would be compiled to.
        module = llvm.parse_assembly("") if code else _optimized(text, machine)
        engine = llvm.create_mcjit_compiler(module, machine)
        made: list[bytes] = []
        engine.set_object_cache(lambda _, built: made.append(built), lambda _: code)
        engine.finalize_object()
        address = engine.get_function_address("kernel")
    if made:
        code_cache.save(name, made[0])
    return engine, address


def _optimized(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    parsed = llvm.parse_assembly(text)
    parsed.verify()
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    passes.run(parsed.get_function("kernel"), builder)
    return parsed
