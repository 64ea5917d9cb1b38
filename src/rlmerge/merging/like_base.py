"""Merges written as their base stores its weights: ``--out-dtype like-base``.

A merged tensor that the base quantises is merged into float32 like any other. On its way to the shard it is encoded
unit by unit into several tensors, and the account of what survived is taken again on what the codes mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rlmerge.checkpoint import Checkpoint, Source
from rlmerge.checkpoint.formats.quantised_encode import Encoder, encoder_of, is_quantised
from rlmerge.errors import RequestError
from rlmerge.kernels.account import account
from rlmerge.kernels.dtypes import FLOAT32
from rlmerge.kernels.jit import BLOCK
from rlmerge.options import Options
from rlmerge.recipe import LIKE_BASE, Recipe

from .account import Account
from .job import Job
from .on_numpy import decode_tile

_BF16 = "Write bfloat16 (the default) and quantise the result."


def encoders(recipe: Recipe, base: Checkpoint | None, seen: Mapping[str, Source]) -> Mapping[str, Encoder]:
    """What writes each tensor that ``base`` quantises, by name; ``seen`` are its tensors as the merge sees them.

    RequestError if the recipe has no base or takes models apart, or if the base is not quantised or in a way that is
    only read.
    """
    where = recipe.origin or "recipe"
    if base is None:
        raise RequestError(f"{LIKE_BASE} needs a base", where=where, hint="Name a quantised base_model.")
    if not recipe.is_whole:
        what = f"{LIKE_BASE} writes whole models, not slices or modules"
        raise RequestError(what, where=where, hint=_BF16)
    found = {name: source for name, source in base.tensors.items() if is_quantised(source)}
    if not found:
        types = ", ".join(sorted({source.dtype.name for source in base.tensors.values()}))
        what = f"{LIKE_BASE} needs a quantised base; this one holds {types}"
        raise RequestError(what, where=base.reference, hint="Leave --out-dtype away, or name a type such as bfloat16.")
    moved = next((name for name, source in found.items() if seen.get(name) is not source), None)
    if moved is not None:
        what = f"'{moved}' is quantised, and its rows or its name change with the merge, which {LIKE_BASE} cannot write"
        raise RequestError(what, where=base.reference, hint=_BF16)
    made = {name: encoder_of(source) for name, source in found.items()}
    return {name: encoder for name, encoder in made.items() if encoder is not None}


def copied(base: Checkpoint) -> list[str]:
    """Identities of what the output takes from ``base`` though no value depends on it: scales of activations, …"""
    found = (x for source in base.tensors.values() if is_quantised(source) for x in source.beside)
    return [x.fingerprint(whole=True).hex() for x in found]


def encoding_memory(encoder: Encoder, experts: int) -> int:
    """Bytes that encoding one tensor takes: its largest unit, what is kept to the end, and the account of a block."""
    kept = sum(output.nbytes for output in encoder.outputs[1:])
    return 48 * encoder.largest + 2 * kept + 16 * 8 * (experts + 2) * BLOCK


class Encoding:
    """The tensor of one job on its way into codes: ``take`` its numbers in order, then what is ``left``."""

    def __init__(self, job: Job, options: Options) -> None:
        assert job.encoder is not None
        self.job = job
        self.encoder = job.encoder
        self.options = options
        self._units = self.encoder.units()
        self._start, self._stop = next(self._units, (0, 0))
        self._unit = np.empty(self.encoder.largest, np.float32)
        self._filled = 0
        self._left: list[list[np.ndarray]] = [[] for _ in self.encoder.outputs[1:]]
        self._counts: list[np.ndarray] = []
        self._sums: list[np.ndarray] = []

    def take(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """The codes of every unit that the next ``numbers``, float32 [n], complete."""
        while len(numbers):
            count = min(len(numbers), self._stop - self._start - self._filled)
            self._unit[self._filled : self._filled + count] = numbers[:count]
            self._filled += count
            numbers = numbers[count:]
            if self._start + self._filled == self._stop:
                yield self._encode()

    def left(self) -> Mapping[str, np.ndarray]:
        """Scales, and what is copied from the base, by output name; the codes must be complete."""
        names = (output.name for output in self.encoder.outputs[1:])
        return {name: np.concatenate(parts) for name, parts in zip(names, self._left, strict=True)}

    def stats(self, stats: Mapping[str, Any]) -> dict[str, Any]:
        """``stats`` of the merge in float32, with what survived encoding; those of a copy stay as they are."""
        if "counts" not in stats:
            return dict(stats)
        found = Account.stats(np.array(self._sums), np.sum(self._counts, axis=0), (), {})
        return {**stats, "counts": found["counts"], "sums": found["sums"]}

    def _encode(self) -> np.ndarray:
        merged = self._unit[: self._filled]
        encoded = self.encoder.encode(self._start, merged)
        codes, *rest = encoded.stored
        for parts, data in zip(self._left, rest, strict=True):
            parts.append(data)
        for first in range(0, len(merged), BLOCK):
            piece = slice(first, min(len(merged), first + BLOCK))
            self._add(self._start + piece.start, merged[piece], encoded.values[piece])
        for source in self.job.sources:
            source.release(self._start, self._stop)
        self._start, self._stop = next(self._units, (self._stop, self._stop))
        self._filled = 0
        return codes

    def _add(self, start: int, merged: np.ndarray, values: np.ndarray) -> None:
        """Account for a range of what was merged and the ``values`` that its codes mean."""
        policy = self.options.on_nonfinite
        operands = replace(self.job.operands, same_is_zero=policy == "keep")
        inputs = [source.read(start, start + len(merged)) for source in self.job.sources]
        read = decode_tile(inputs, operands, {}, policy == "zero", operands.real)
        if read.base is None or read.deltas is None:
            return
        with np.errstate(invalid="ignore"):
            counts, sums = account(read.base, list(read.deltas), merged, values, FLOAT32)
        self._counts.append(counts)
        self._sums.append(sums)
