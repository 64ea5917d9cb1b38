"""The factors of several updates of one module, joined into one pair of factors or brought to a smaller rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from rlmerge.adapters.lowrank import Truncated, triangle, truncate
from rlmerge.adapters.result import ModuleResult
from rlmerge.checkpoint.formats.adapter_products import Update
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import decode

_CHUNK = 1 << 18
"""Numbers of a factor that are held at once."""


class Product:
    """Σ c·s·B·A over updates of one module, as factors A [experts·R, in] and B [out, R·experts] in PEFT's layout.

    R is the sum of the updates' ranks, or ``rank`` where that is smaller; scales and coefficients go into B.
    """

    def __init__(self, name: str, terms: Sequence[tuple[float, Update]], rank: int | None = None) -> None:
        self.name = name
        self.terms = tuple(terms)
        self.like = self.terms[0][1]
        self.experts = self.like.experts
        self.inputs = self.like.a.numel // (self.like.rank * self.experts)
        self.outputs = self.like.b.numel // (self.like.rank * self.experts)
        self.exact_rank = sum(update.rank for _, update in self.terms)
        self.rank = self.exact_rank if rank is None else min(rank, self.exact_rank)

    @property
    def a_shape(self) -> tuple[int, ...]:
        return (self.rank * self.experts, *self.like.a.shape[1:])

    @property
    def b_shape(self) -> tuple[int, ...]:
        return (self.outputs, self.rank * self.experts, *self.like.b.shape[2:])

    def a_pieces(self) -> Iterator[np.ndarray]:
        """The values of A in order."""
        for expert in range(self.experts):
            if self.rank < self.exact_rank:
                yield self._smaller_a(expert)
                continue
            for _, update in self.terms:
                first, last = (n * update.rank * self.inputs for n in (expert, expert + 1))
                for begin in range(first, last, _CHUNK):
                    yield _values(update.a, begin, min(begin + _CHUNK, last))

    def b_pieces(self) -> Iterator[np.ndarray]:
        """The values of B in order."""
        for rows in self._row_pieces():
            if self.rank < self.exact_rank:
                parts = [rows[:, :, expert] @ found.outer for expert, found in enumerate(self._truncated)]
                yield np.stack(parts, axis=2)
            else:
                yield rows

    def result(self, measure: bool) -> ModuleResult:
        """What is lost; the update's norm only with ``measure``, as it takes reading the factors."""
        lost = sum(found.lost for found in self._truncated) if measure and self.rank < self.exact_rank else 0.0
        total = sum(found.total for found in self._truncated) if measure else 0.0
        return ModuleResult(self.name, self.rank, self.exact_rank, lost, total)

    @cached_property
    def _truncated(self) -> list[Truncated]:
        """For each expert how its factors become smaller."""
        width = self.exact_rank
        inner = [triangle((piece.T for piece in self._column_pieces(e)), width) for e in range(self.experts)]
        outer = [np.zeros((0, width))] * self.experts
        for rows in self._row_pieces():
            outer = [triangle((found, rows[:, :, e]), width) for e, found in enumerate(outer)]
        return [truncate(b, a, self.rank) for b, a in zip(outer, inner, strict=True)]

    def _smaller_a(self, expert: int) -> np.ndarray:
        pieces = [self._truncated[expert].inner @ piece for piece in self._column_pieces(expert)]
        return np.concatenate(pieces, axis=1)

    def _row_pieces(self) -> Iterator[np.ndarray]:
        """[n, R, experts] of scaled rows of B."""
        step = max(1, _CHUNK // (self.exact_rank * self.experts))
        for first in range(0, self.outputs, step):
            last = min(first + step, self.outputs)
            parts: list[np.ndarray] = []
            for coefficient, update in self.terms:
                width = update.rank * self.experts
                values = _values(update.b, first * width, last * width).reshape(-1, update.rank, self.experts)
                parts.append(coefficient * update.scale * values)
            yield np.concatenate(parts, axis=1)

    def _column_pieces(self, expert: int) -> Iterator[np.ndarray]:
        """[R, n] of columns of A."""
        step = max(1, _CHUNK // self.exact_rank)
        for first in range(0, self.inputs, step):
            last = min(first + step, self.inputs)
            rows: list[np.ndarray] = []
            for _, update in self.terms:
                starts = range(expert * update.rank, (expert + 1) * update.rank)
                rows += [_values(update.a, row * self.inputs + first, row * self.inputs + last) for row in starts]
            yield np.stack(rows)


def _values(source: Source, start: int, stop: int) -> np.ndarray:
    """A range as float64; CheckpointError if a value is not finite."""
    values = decode(source.read(start, stop), source.dtype).astype(np.float64)
    if not np.isfinite(values).all():
        raise CheckpointError("holds a value that is not finite", where=source.where, hint="Use another checkpoint.")
    return values
