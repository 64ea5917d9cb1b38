"""Kernels: compiled programs, their numbers, and calls of them on NumPy arrays, without the interpreter lock.

Kernels are compiled in milliseconds, once per process and program; their machine code is kept for later processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlmerge.frozen import frozen

from .calls import CALL, FUNCTION, address
from .compiler import compile_kernel, find_host
from .dtypes import FLOAT16, DType, decode
from .emit import LANES
from .histogram import BINS, held_words
from .loops import Program, module, streams
from .sinks import MASK_BITS, Reduce, Write
from .trace import UntraceableError

BLOCK = 1 << 16
"""Elements per block of a statistic's sum; tiles of elementwise methods start at multiples of it."""

ACCOUNT_BLOCK = 1 << 14
"""Elements per block of the sums that account for a merge."""

_own = threading.local()


@frozen
class Selection:
    """Which words a histogram pass looks at, and at which of their bits; see ``rlmerge.kernels.select``.

    ``windows`` are ranges [first, last) of words, one a value. ``histograms`` int64 [M, 65536] and ``side`` (words with
    low bits, [M, capacity]) are added to; ``side_counts`` int64 [M] goes on counting when ``side`` is full.
    """

    shift: int
    bin_mask: int
    low_mask: int
    windows: Sequence[tuple[int, int]]
    histograms: np.ndarray
    side: np.ndarray
    side_counts: np.ndarray


@frozen
class Counts:
    """What one call accumulated: ``sums`` float64 [blocks, S], ``counts`` int64 [C], and non-finite flags."""

    sums: np.ndarray
    counts: np.ndarray
    nonfinite_in: bool
    nonfinite_out: bool


@frozen
class Call:
    """A kernel on one tile, made by ``Bound.call``: its arguments in ``words``, and what it adds up."""

    kernel: Kernel
    words: list[int]
    sums: np.ndarray
    counts: np.ndarray
    largest: np.ndarray
    out: np.ndarray | None
    selection: Selection | None
    kept: Sequence[Any]
    """What the addresses in ``words`` are of."""

    def restart(self) -> None:
        """Forget what a run that did not end has counted."""
        if self.selection is not None:
            self.selection.histograms[...] = 0
            self.selection.side_counts[...] = 0

    def found(self, inputs: Callable[[], Sequence[np.ndarray]]) -> Counts:
        """What was accumulated; ``inputs`` gives the arrays again should the results not tell whether those are
        finite."""
        # ``reduce`` itself: what arrays offer is Python around it.
        counts = np.add.reduce(self.counts) if len(self.counts) > 1 else self.counts[0]
        infinite = 0x7F800000 if self.kernel.real == np.float32 else 0x7FF0000000000000
        odd_in, odd_out = (np.maximum.reduce(self.largest) >= infinite).tolist()
        program = self.kernel.program
        if not program.sums_tell and not program.results_tell:
            return Counts(self.sums, counts, odd_in, odd_out)
        if not odd_in and not odd_out and np.logical_and.reduce(np.isfinite(self.sums), axis=None):
            return Counts(self.sums, counts, False, False)
        return Counts(self.sums, counts, *self.kernel.nonfinite(inputs(), self.out))


class Bound:
    """A kernel with the numbers that are the same for all tiles of a tensor; see ``Kernel.bind``."""

    def __init__(
        self,
        kernel: Kernel,
        params: Sequence[float] | np.ndarray,
        rows: np.ndarray | None,
        keys: Sequence[tuple[int, int]],
        columns: int,
    ) -> None:
        self.kernel = kernel
        self.columns = columns
        self._scalars = np.asarray(params, kernel.real)
        self._keys = np.asarray(keys, np.uint32).reshape(-1)
        self._table = None if rows is None else np.ascontiguousarray(rows, kernel.real)
        self._stride = 0 if self._table is None else self._table.shape[1]
        numbers = len(self._scalars), 0 if self._table is None else len(self._table)
        if len(keys) != kernel.streams or numbers != kernel.numbers:
            raise ValueError("a kernel takes as many parameters, row-wise values and random keys as its formula")
        self._places = [address(array) for array in (self._scalars, self._table, self._keys)]

    def call(
        self,
        count: int,
        start: int,
        out: np.ndarray | None,
        block: int,
        step: int | None = None,
        selection: Selection | None = None,
        *,
        again: bool = False,
    ) -> Call:
        """The kernel on ``count`` elements from flat index ``start`` on, ``step`` at a time.

        Sums are those of every ``block`` of a step, whose last one may be shorter. ``out`` [count] is written; with
        ``again`` it has the size of a step, and each step writes it anew. Belongs to this thread, for one run.
        """
        kernel = self.kernel
        step = step or max(count, 1)
        sums, totals, steps = kernel.slots.sums, kernel.slots.counts, max(1, -(-count // step))
        inner = -(-step // block)
        blocks = (count // step) * inner + -(-(count % step) // block)
        if self._table is not None and self._stride * self.columns < start + count:
            raise ValueError(f"{self._stride} rows of {self.columns} columns end before the tile does")
        kernel.check_outputs(step if again else count, out, selection)
        # One allocation for all that is added up, in words of eight bytes.
        added = np.zeros(blocks * sums + steps * (totals + 2), np.int64)
        first, second = blocks * sums, blocks * sums + steps * totals
        place = address(added)
        # A block keeps a word a vector; the last group of words is padded.
        stride = (min(count, block) + 64) // MASK_BITS
        masks = _scratch("masks", 2 * kernel.slots.masks * stride)
        held = _scratch("held", 8 * held_words(kernel.selected, LANES))
        chosen = _selection_words(selection)
        params, rows, keys = self._places
        words = [
            kernel.address,
            block,
            self.columns,
            address(out),
            params,
            rows,
            self._stride,
            keys,
            place,
            place + 8 * first,
            place + 8 * second,
            *map(address, _arrays(selection)),
            0 if selection is None else selection.side.shape[1],
            address(chosen),
            address(masks),
            stride,
            address(held),
            0 if out is None or again else step * out.itemsize,
            8 * sums * inner,
            8 * totals,
            16,
        ]
        return Call(
            kernel,
            words,
            added[:first].view(np.float64).reshape(blocks, sums),
            added[first:second].reshape(steps, totals),
            added[second:].view(np.uint64).reshape(steps, 2),
            out,
            selection,
            (self, added, masks, held, chosen),
        )


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
        self.program = program
        self.numbers = len(program.used("param")), len(program.used("row"))
        self._engine, self.address = compile_kernel(text, host)
        self._function = FUNCTION(self.address)

    def bind(
        self,
        params: Sequence[float] | np.ndarray = (),
        rows: np.ndarray | None = None,
        keys: Sequence[tuple[int, int]] = (),
        columns: int = 1,
    ) -> Bound:
        """The kernel with its numbers: ``rows`` [R, all rows of the tensor] holds the row-wise values, ``columns`` the
        tensor's last dimension."""
        return Bound(self, params, rows, keys, columns)

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
        """Run over flat storage arrays [n] of one tile that starts at flat index ``start`` of its tensor."""
        return self.run(self.bind(params, rows, keys, columns), inputs, start, out, block, selection)

    def run(
        self,
        bound: Bound,
        inputs: Sequence[np.ndarray],
        start: int = 0,
        out: np.ndarray | None = None,
        block: int = BLOCK,
        selection: Selection | None = None,
    ) -> Counts:
        """The same with numbers that were bound before."""
        n = len(inputs[0])
        self.check_inputs(inputs, n)
        call = bound.call(n, start, out, block, selection=selection)
        pointers = np.array([address(x) for x in inputs], np.uint64)
        self._function(n, start, *call.words[1:3], address(pointers), *call.words[3 : len(CALL)])
        return call.found(lambda: inputs)

    def nonfinite(self, inputs: Sequence[np.ndarray], out: np.ndarray | None) -> tuple[bool, bool]:
        """Whether inputs and output, if any, hold NaN or infinity."""
        found = any(
            not np.isfinite(decode(x, dtype)).all() for x, dtype in zip(inputs, self.program.inputs, strict=True)
        )
        sink = self.program.sink
        if not isinstance(sink, Write):
            return found, False
        assert out is not None, "it was written"
        return found, not np.isfinite(decode(out, sink.dtype)).all()

    def check_inputs(self, inputs: Sequence[np.ndarray], n: int) -> None:
        """Refuse arrays that the compiled code would read out of bounds."""
        _check(inputs, self.program.inputs, n)

    def check_outputs(self, n: int, out: np.ndarray | None, selection: Selection | None) -> None:
        """Refuse arrays that the compiled code would write out of bounds."""
        sink = self.program.sink
        if isinstance(sink, Write):
            if out is None:
                raise ValueError("a kernel that writes needs 'out'")
            _check([out], [sink.dtype], n)
        elif sink.values and (selection is None or len(selection.windows) != len(sink.values)):
            raise ValueError(f"a kernel that selects needs a selection of {len(sink.values)} values")


def _check(arrays: Sequence[np.ndarray], dtypes: Sequence[DType], n: int) -> None:
    if len(arrays) != len(dtypes) or any(x.shape != (n,) or not x.flags.c_contiguous for x in arrays):
        raise ValueError(f"a kernel takes {len(dtypes)} contiguous arrays of the same length")
    if any(x.dtype != dtype.storage for x, dtype in zip(arrays, dtypes, strict=True)):
        raise ValueError(f"a kernel takes arrays of {', '.join(str(dtype.storage) for dtype in dtypes)}")


def _arrays(selection: Selection | None) -> tuple[np.ndarray | None, ...]:
    return (None, None, None) if selection is None else (selection.histograms, selection.side, selection.side_counts)


def _scratch(name: str, nbytes: int) -> np.ndarray:
    """Memory of this thread for what a kernel needs while it runs."""
    held: np.ndarray | None = getattr(_own, name, None)
    if held is None or len(held) < nbytes:
        held = np.empty(nbytes, np.uint8)
        setattr(_own, name, held)
    return held


def _selection_words(selection: Selection | None) -> np.ndarray | None:
    if selection is None:
        return None
    if selection.histograms.shape != (len(selection.windows), BINS):
        raise ValueError("one histogram of 65536 bins for each value")
    words = [selection.shift, selection.bin_mask, selection.low_mask]
    for first, last in selection.windows:
        words += [first, last - first, last]
    return np.array(words, np.uint64)
