"""What training changed of a base, tensor by tensor, and rows of the difference of one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from rlmerge.adapters.dense import is_equal
from rlmerge.checkpoint.formats.adapter_names import BaseNames
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import MERGEABLE, decode
from rlmerge.progress import Progress

_CHUNK = 1 << 20
"""Entries of a difference that are held at once."""

_EXPERT = re.compile(r"(.*\.experts)\.\d+\..*")


@frozen(eq=False)
class Difference:
    """The tensor ``name`` of a base before and after training; of a tied embedding ``head`` names the other table."""

    name: str
    before: Source
    after: Source
    head: str | None = None

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def nbytes(self) -> int:
        """Bytes that one pass over both reads."""
        return self.before.nbytes + self.after.nbytes

    def rows(self, progress: Progress) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, float64 [n, columns]) of after − before; CheckpointError if a value is not finite."""
        rows, columns = self.before.shape
        step = max(1, _CHUNK // columns)
        for first in range(0, rows, step):
            start, stop = first * columns, min(first + step, rows) * columns
            after, before = (self._values(source, start, stop) for source in (self.after, self.before))
            yield first, (after - before).reshape(-1, columns)
            progress.advance((stop - start) * (self.after.dtype.itemsize + self.before.dtype.itemsize))

    @staticmethod
    def _values(source: Source, start: int, stop: int) -> np.ndarray:
        values = decode(source.read(start, stop), source.dtype).astype(np.float64)
        source.release(start, stop)
        if not np.isfinite(values).all():
            hint = "Use another checkpoint."
            raise CheckpointError("holds a value that is not finite", where=source.where, hint=hint)
        return values


def differences(base: Checkpoint, expert: Checkpoint) -> list[Difference]:
    """Every tensor of ``base`` that ``expert`` changed, and unchanged experts of a layer of which one changed.

    RequestError if the two differ in tensors, shapes, or in what cannot be subtracted.
    """
    found = list(_paired(base, expert))
    changed = [pair for pair in found if not is_equal(pair.after, pair.before)]
    # PEFT reads the experts of a layer together, so that none may be missing.
    layers = {match[1] for pair in changed if (match := _EXPERT.fullmatch(pair.name))}
    names = {pair.name for pair in changed}
    return [p for p in found if p.name in names or ((match := _EXPERT.fullmatch(p.name)) and match[1] in layers)]


def _paired(base: Checkpoint, expert: Checkpoint) -> Iterator[Difference]:
    names = BaseNames(base, base.reference)
    embedding, head = names.embedding, names.head
    is_tied = base.tied_embeddings and embedding is not None and head not in base.tensors
    extra = sorted(expert.tensors.keys() - base.tensors.keys() - ({head} if is_tied else set()))
    if extra:
        hint = "Check that base and expert are the models you mean."
        what = f"has {len(extra)} tensors that the base has not, such as {extra[0]!r}"
        raise RequestError(what, where=expert.reference, hint=hint)
    for name, before in base.tensors.items():
        after = expert.tensors.get(name)
        if after is None and name == head and embedding is not None and expert.tied_embeddings:
            after = expert.tensors.get(embedding)
        shared = head if is_tied and name == embedding and head not in expert.tensors else None
        yield _pair(name, before, after, expert, shared)
    if is_tied and head in expert.tensors:
        yield _pair(head, base.tensors[embedding or ""], expert.tensors[head], expert, None)


def _pair(name: str, before: Source, after: Source | None, expert: Checkpoint, head: str | None) -> Difference:
    if after is None:
        hint = "Check that base and expert are the models you mean."
        raise RequestError(f"lacks tensor {name!r} of the base", where=expert.reference, hint=hint)
    if after.shape != before.shape:
        what = f"is {list(after.shape)}, but {list(before.shape)} in the base"
        hint = "An adapter cannot change shapes; where tokens were added, resize the base's embeddings first."
        raise RequestError(what, where=after.where, hint=hint)
    for source in (before, after):
        if source.dtype not in MERGEABLE and before.dtype is not after.dtype:
            hint = "Give both models in a float type."
            raise RequestError(f"is {source.dtype.name}, which cannot be subtracted", where=source.where, hint=hint)
    return Difference(name, before, after, head)
