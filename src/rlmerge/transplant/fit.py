"""New tokens as sums of shared ones, found where both have rows and applied where only the shared have.

Rows of two models cannot be compared, but how a token relates to others can be carried over: what is a weighted sum of
some rows in the donor becomes the same sum of the model's own rows. Orthogonal matching pursuit (Pati, Rezaiifar and
Krishnaprasad 1993; for tokenizers: Goddard and Fernandes Neto 2025, arXiv 2506.06607) takes the row most like what is
left to explain, fits all taken rows again, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from rlmerge.checkpoint.picked_rows import PickedRows, Rows
from rlmerge.checkpoint.source import Source
from rlmerge.kernels.dtypes import decode

CANDIDATES = 512
"""Shared rows, those most like a new one, among which a pursuit looks for its terms."""

_ELEMENTS = 1 << 21
"""Elements of a block of rows; blocks depend on the width alone, so that results do not depend on memory."""

_EXPLAINED = 1e-6
"""Share of a row's norm below which nothing is left to explain."""


def nearest(
    table: Source, shared: np.ndarray, new: np.ndarray, advance: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of the rows ``new`` of ``table`` the one of ``shared`` with the largest cosine, with weight 1.

    The result are ``start`` [new + 1], positions in ``shared`` and weights: row i is the weighted sum of the entries
    [start[i], start[i+1]).
    """
    found: list[np.ndarray] = []
    for batch in _batches(new, table):
        _, best = _most_alike(table, shared, gather(table, batch), 1, absolute=False)
        found.append(best[:, 0])
        advance(len(batch))
    positions = np.concatenate([np.zeros(0, int), *found])
    return np.arange(len(new) + 1), positions, np.ones(len(positions))


def pursue(
    table: Source, shared: np.ndarray, new: np.ndarray, terms: int, advance: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``nearest``, with up to ``terms`` rows a token by orthogonal matching pursuit."""
    positions: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for batch in _batches(new, table):
        targets = gather(table, batch)
        _, candidates = _most_alike(table, shared, targets, CANDIDATES, absolute=True)
        for target, near in zip(targets, np.sort(candidates, axis=1), strict=True):
            taken, weight = _pursuit(target.astype(np.float64), gather(table, shared[near]).astype(np.float64), terms)
            positions.append(near[taken])
            weights.append(weight)
            advance(1)
    start = np.cumsum([0, *(len(taken) for taken in positions)])
    return start, np.concatenate([np.zeros(0, int), *positions]), np.concatenate([np.zeros(0), *weights])


def gather(table: Source, rows: np.ndarray) -> np.ndarray:
    """Rows of a table in float32, [rows, width]; what is not finite counts as 0."""
    picked = PickedRows(table, [table], Rows(np.zeros(len(rows), np.int16), rows.astype(np.int32)))
    values = decode(picked.read(), picked.dtype).astype(np.float32, copy=False)
    picked.release()
    if not np.isfinite(values).all():
        values = np.where(np.isfinite(values), values, np.float32(0))
    return values.reshape(len(rows), -1)


def _batches(rows: np.ndarray, table: Source) -> Iterator[np.ndarray]:
    step = max(1, _ELEMENTS // table.columns)
    return (rows[begin : begin + step] for begin in range(0, len(rows), step))


def _most_alike(
    table: Source, shared: np.ndarray, targets: np.ndarray, count: int, *, absolute: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The largest cosines (or magnitudes of them) of each target with rows of ``shared``, and the rows' positions.

    Both are [targets, count], in any order, with fewer columns where fewer rows are shared.
    """
    targets = _directions(targets)
    value = np.zeros((len(targets), 0), np.float32)
    place = np.zeros((len(targets), 0), int)
    begin = 0
    for block in _batches(shared, table):
        cosine = targets @ _directions(gather(table, block)).T
        value = np.concatenate([value, np.abs(cosine) if absolute else cosine], axis=1)
        place = np.concatenate([place, np.broadcast_to(np.arange(begin, begin + len(block)), cosine.shape)], axis=1)
        begin += len(block)
        if value.shape[1] > count:
            kept = (
                np.argmax(value, axis=1)[:, None] if count == 1 else np.argpartition(-value, count, axis=1)[:, :count]
            )
            value, place = np.take_along_axis(value, kept, 1), np.take_along_axis(place, kept, 1)
    return value, place


def _directions(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def _pursuit(target: np.ndarray, atoms: np.ndarray, terms: int) -> tuple[np.ndarray, np.ndarray]:
    """Which ``atoms`` [n, width] to take for ``target`` [width], in order, and the weights that fit it best."""
    norms = np.linalg.norm(atoms, axis=1)
    usable = norms > 0
    taken: list[int] = []
    basis = np.zeros((0, len(target)))
    rest, enough = target.copy(), _EXPLAINED * np.linalg.norm(target)
    while len(taken) < min(terms, len(atoms), len(target)) and np.linalg.norm(rest) > enough and usable.any():
        likeness = np.divide(np.abs(atoms @ rest), norms, out=np.full(len(atoms), -1.0), where=usable)
        best = int(np.argmax(likeness))
        usable[best] = False
        direction = atoms[best] - basis.T @ (basis @ atoms[best])
        direction -= basis.T @ (basis @ direction)
        length = np.linalg.norm(direction)
        if length <= _EXPLAINED * norms[best]:
            continue
        taken.append(best)
        basis = np.concatenate([basis, direction[None] / length])
        rest = target - basis.T @ (basis @ target)
    if not taken:
        return np.zeros(0, int), np.zeros(0)
    weights = np.linalg.lstsq(atoms[taken].T, target, rcond=None)[0]
    return np.array(taken), weights
