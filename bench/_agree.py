"""Compare two bfloat16 model directories entry by entry, in steps of the type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlmerge.checkpoint.model import Checkpoint, open_checkpoint
from rlmerge.checkpoint.source import Source
from rlmerge.kernels.dtypes import BFLOAT16, decode

Excuse = Callable[[str], np.ndarray]
"""Which entries [n] of the tensor of that name may differ, because the outcome there is a matter of choice."""


@dataclass(frozen=True)
class Agreement:
    """Counts of entries: equal (±0 alike), one step apart, and further apart with and without an excuse."""

    equal: int = 0
    one_step: int = 0
    excused: int = 0
    wrong: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def compare(ours: Path, theirs: Path, excuse: Excuse | None = None) -> Agreement:
    """Compare all tensors; SystemExit when names, shapes or types differ."""
    left, right = open_checkpoint(ours), open_checkpoint(theirs)
    if described(left) != described(right):
        odd = sorted(described(left).items() ^ described(right).items())
        raise SystemExit(f"{ours} and {theirs} hold different tensors: {odd[:4]}")
    total = Agreement()
    for name, info in left.tensors.items():
        apart = steps(info.read(), right.tensors[name].read())
        far = apart > 1
        excused = far & excuse(name) if excuse and far.any() else np.zeros_like(far)
        total += Agreement(
            equal=int((apart == 0).sum()),
            one_step=int((apart == 1).sum()),
            excused=int(excused.sum()),
            wrong=int((far & ~excused).sum()),
        )
    return total


def described(checkpoint: Checkpoint) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor; SystemExit unless all are bfloat16."""
    found = {name: (info.dtype.name, info.shape) for name, info in checkpoint.tensors.items()}
    if any(dtype != "bfloat16" for dtype, _ in found.values()):
        raise SystemExit(f"{checkpoint.path} is not a bfloat16 model")
    return found


def steps(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many bfloat16 values lie between two arrays of bits [n] of uint16, plus one where they differ."""
    return np.abs(_ordered(left) - _ordered(right))


def _ordered(bits: np.ndarray) -> np.ndarray:
    """Integers in the order of the values, both zeros at 0."""
    magnitude = (bits & 0x7FFF).astype(np.int32)
    return np.where(bits & 0x8000, -magnitude, magnitude)


def threshold_ties(base: Path, experts: Sequence[Path], density: float) -> Excuse:
    """Entries where some expert's change is exactly as large as the smallest kept one at this density.

    mergekit keeps a fixed number of entries and picks among equals by the order its sort leaves them in; rlmerge keeps
    all equals.
    """
    models = [open_checkpoint(path) for path in (base, *experts)]

    def excuse(name: str) -> np.ndarray:
        start, *others = (_floats(model.tensors[name]) for model in models)
        tied = np.zeros(start.shape, bool)
        for other in others:
            size = np.abs(other - start)
            kept = max(1, int(density * len(size)))
            threshold = np.partition(size, len(size) - kept)[len(size) - kept]
            tied |= (size == threshold) & (size > 0)
        return tied

    return excuse


def changed_share(base: Path, merged: Path) -> float:
    """Share of entries in which a merged model differs from its base."""
    left, right = open_checkpoint(base), open_checkpoint(merged)
    changed = sum(int((t.read() != right.tensors[n].read()).sum()) for n, t in left.tensors.items())
    return changed / sum(info.numel for info in left.tensors.values())


def _floats(info: Source) -> np.ndarray:
    return decode(info.read(), BFLOAT16)
