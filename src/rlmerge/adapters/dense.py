"""Sums of updates that have no factors, value by value."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rlmerge.checkpoint.formats.adapter_sources import TrainedRows
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import decode

_CHUNK = 1 << 18


@frozen
class DenseSum:
    """``table`` + Σ c·(value − table), to be stored as ``name``."""

    name: str
    table: Source
    terms: tuple[tuple[float, Source], ...]


@frozen
class RowSum:
    """The same of the rows ``indices`` of an embedding, each changed by those terms that trained it."""

    module: str
    table: Source
    terms: tuple[tuple[float, TrainedRows], ...]

    @property
    def indices(self) -> tuple[int, ...]:
        """Every row that a term trained, in order."""
        return tuple(sorted({row for _, source in self.terms for row in source.indices}))


def sum_pieces(dense: DenseSum) -> Iterator[np.ndarray]:
    """The values of a sum in order, float64 by pieces; CheckpointError if one is not finite."""
    for start in range(0, dense.table.numel, _CHUNK):
        yield _sum(dense.table, dense.terms, start, min(start + _CHUNK, dense.table.numel))


def row_pieces(rows: RowSum) -> Iterator[np.ndarray]:
    """The values of the rows in order; CheckpointError if one is not finite."""
    columns = rows.table.columns
    for row in rows.indices:
        yield _sum(rows.table, rows.terms, row * columns, (row + 1) * columns)


def is_equal(one: Source, other: Source) -> bool:
    """Whether two sources of one shape hold the same numbers."""
    spans = ((start, min(start + _CHUNK, one.numel)) for start in range(0, one.numel, _CHUNK))
    return all(np.array_equal(_read(one, *span), _read(other, *span)) for span in spans)


def squared_distance(one: Source, other: Source) -> float:
    """Σ (one − other)² over two sources of one shape; CheckpointError if it is not finite."""
    total = 0.0
    for start in range(0, one.numel, _CHUNK):
        stop = min(start + _CHUNK, one.numel)
        total += float(np.square(_read(one, start, stop) - _read(other, start, stop)).sum())
    if not np.isfinite(total):
        where = f"{one.where}, {other.where}"
        raise CheckpointError("hold a value that is not finite", where=where, hint="Use another checkpoint.")
    return total


def _sum(table: Source, terms: tuple[tuple[float, Source], ...], start: int, stop: int) -> np.ndarray:
    base = _read(table, start, stop)
    total = base.copy()
    for coefficient, source in terms:
        total += coefficient * (_read(source, start, stop) - base)
    if not np.isfinite(total).all():
        where = ", ".join(source.where for _, source in terms) or table.where
        raise CheckpointError("gives a value that is not finite", where=where, hint="Use another checkpoint.")
    return total


def _read(source: Source, start: int, stop: int) -> np.ndarray:
    values = decode(source.read(start, stop), source.dtype).astype(np.float64)
    source.release(start, stop)
    return values
