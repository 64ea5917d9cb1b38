"""What types a merge's tensors are stored as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from rlmerge.checkpoint import Checkpoint, Source
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import FLOAT32, FLOAT64, DType

from .matching import widest

if TYPE_CHECKING:
    from rlmerge.checkpoint.formats.quantised_encode import Encoder


@frozen
class Wish:
    """What the request says of types: ``dtype`` and ``out_dtype``, None where it does not, and float64 arithmetic.

    ``encoders``, if not None, write the tensors that the base quantises; others are then stored as the base's are.
    """

    dtype: DType | None
    out_dtype: DType | None
    wide: bool
    encoders: Mapping[str, Encoder] | None = None


class OutputTypes:
    """Types by ``wish`` for the tensors of models like ``first``; ``kept_wide`` names those that were not narrowed."""

    def __init__(self, wish: Wish, first: Checkpoint) -> None:
        self._wish, self._first = wish, first
        self.kept_wide: list[str] = []

    def of(self, name: str, sources: Sequence[Source]) -> DType:
        """What a merged tensor is stored as: what was asked for, else the widest of its models' types.

        A tensor that all models keep in float32 is not narrowed by ``dtype``, only by ``out_dtype``.
        """
        if self._wish.encoders is not None:
            return sources[0].nominal
        if self._wish.out_dtype is not None:
            return self._wish.out_dtype
        own = widest([source.nominal for source in sources])
        asked = self._wish.dtype
        if asked is None:
            return own
        narrow = asked.itemsize < own.itemsize and own in (FLOAT32, FLOAT64)
        if narrow and own is FLOAT32 and self._is_mixed and all(s.nominal is FLOAT32 for s in sources):
            self.kept_wide.append(name)
            return own
        return asked

    @cached_property
    def _is_mixed(self) -> bool:
        """Whether the first model stores most of its weights in 16 bits, so that float32 is a choice."""
        sizes = [(s.nominal.itemsize, s.numel) for s in self._first.tensors.values() if s.dtype.is_float]
        return 2 * sum(n for size, n in sizes if size == 2) > sum(n for _, n in sizes)
