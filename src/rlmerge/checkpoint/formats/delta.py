"""A sparse delta over its base: the directory that ``rlmerge delta extract`` writes, opened as the expert's model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats import Format, Opened
from rlmerge.checkpoint.formats.delta_file import BLOCK, DENSE, FILE, SAME, Contents, Entry, read_contents
from rlmerge.checkpoint.header import Header, read_header
from rlmerge.checkpoint.paths import inside
from rlmerge.checkpoint.source import Extent, Scratch, Source, blocks
from rlmerge.errors import CheckpointError
from rlmerge.kernels import bitmaps

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

NAME = "a sparse delta"
_BITS = BLOCK // 8
_AGAIN = "The delta is damaged; make or download it again."


def open_contents(root: Path) -> tuple[Header, Contents]:
    """The header of a delta's file and its metadata; CheckpointError if they are malformed or do not fit each other."""
    header = read_header(inside(root, FILE))
    contents = read_contents(header.metadata, str(header.file))
    due = {part.name: (part.dtype, part.shape) for part in contents.parts()}
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in header.tensors.items()}
    wrong = next((name for name in sorted({*due, *found}) if due.get(name) != found.get(name)), None)
    if wrong is not None:
        what = f"tensor {wrong!r} is not what the metadata says"
        raise CheckpointError(what, where=str(header.file), hint=_AGAIN)
    return header, contents


def named_base(root: Path, names: Sequence[str]) -> str | None:
    """The Hub id of the base, where the delta names one."""
    return open_contents(root)[1].base_model if FILE in names else None


class DeltaSource(Source):
    """A tensor of the base with some elements replaced: a bitmap of these, their counts by block, and their values."""

    def __init__(self, name: str, entry: Entry, base: Source, header: Header) -> None:
        self.name = name
        self.dtype = entry.dtype
        self.shape = entry.shape
        self.base = base
        self._bitmap, self._counts, self._values = (header.tensors[part.name] for part in entry.parts(name))
        self._lock = threading.Lock()
        self._begins: np.ndarray | None = None

    @property
    def where(self) -> str:
        return f"{self._bitmap.file}: {self.name}"

    @property
    def scratch(self) -> Scratch:
        # The tile; a block's mask and the places of its changes.
        return Scratch(self.base.scratch.fixed + BLOCK * 10, self.base.scratch.per_element + self.dtype.itemsize)

    @property
    def files(self) -> tuple[InputFile, ...]:
        return (*self.base.files, self._bitmap.file)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        out = np.array(self.base.read(start, stop))
        if start < stop:
            self._replace(out, start, stop)
        out.flags.writeable = False
        return out

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        start, stop = self.span(start, stop)
        self.base.prefetch(start, stop)
        for part, first, last in self._stored(start, stop):
            part.prefetch(first, last)

    def release(self, start: int = 0, stop: int | None = None) -> None:
        start, stop = self.span(start, stop)
        self.base.release(start, stop)
        for part, first, last in self._stored(start, stop):
            part.release(first, last)

    def fingerprint(self, whole: bool) -> bytes:
        """That of the same values in a file of their own: caches and locks take a delta and its model for one."""
        digest = xxhash.xxh3_128()
        size = self.dtype.itemsize
        for offset, length in blocks(self.nbytes, whole):
            first = offset // size
            octets = self.read(first, -(-(offset + length) // size)).view(np.uint8)
            digest.update(octets[offset - first * size :][:length].data)
        return digest.digest()

    def _replace(self, out: np.ndarray, start: int, stop: int) -> None:
        """Put the new values of [start, stop) into ``out``."""
        (bitmap, *span), (values, *places) = self._stored(start, stop)
        first, last = start // BLOCK, -(-stop // BLOCK)
        begins = self._offsets()[first : last + 1] - places[0]
        bits, changed = bitmap.read(*span), values.read(*places)
        self._check(bits, begins, first)
        low, high = -(-start // BLOCK), last if stop == self.numel else stop // BLOCK
        if low < high:
            target = out[low * BLOCK - start : min(high * BLOCK, stop) - start]
            octets = bits[(low - first) * _BITS : (high - first) * _BITS]
            bitmaps.scatter_words(target, octets, changed[begins[low - first] : begins[high - first]])
        for block in sorted({first, last - 1}.difference(range(low, high))):
            begin = block * BLOCK
            octets = bits[(block - first) * _BITS :][:_BITS]
            mask = bitmaps.unpack(octets, min(BLOCK, self.numel - begin))
            inside = slice(max(start, begin) - begin, min(stop, begin + BLOCK) - begin)
            before = begins[block - first] + np.count_nonzero(mask[: inside.start])
            new = changed[before : before + np.count_nonzero(mask[inside])]
            bitmaps.scatter(out[inside.start + begin - start : inside.stop + begin - start], mask[inside], new)

    def _check(self, bits: np.ndarray, begins: np.ndarray, first: int) -> None:
        """CheckpointError unless each block of ``bits`` has as many set as are counted, and none after the tensor."""
        words = bits.view(np.uint64)
        found = np.add.reduceat(np.bitwise_count(words), range(0, len(words), BLOCK // 64), dtype=np.int64)
        wrong = np.flatnonzero(found != np.diff(begins))
        beyond = self.numel - (first * BLOCK + len(words) * 64)
        if -64 < beyond < 0 and int(words[-1]) >> (64 + beyond):
            wrong = np.array([len(found) - 1])
        if len(wrong):
            due = int(np.diff(begins)[wrong[0]])
            what = f"block {first + int(wrong[0])} of the bitmap does not have the {due} changes that are counted"
            raise CheckpointError(what, where=self.where, hint=_AGAIN)

    def _stored(self, start: int, stop: int) -> tuple[tuple[Extent, int, int], tuple[Extent, int, int]]:
        """The ranges of bitmap and values that whole blocks around [start, stop) take."""
        first, last = start // BLOCK, -(-stop // BLOCK)
        begins = self._offsets()
        octets = self._bitmap, first * _BITS, min(last * _BITS, self._bitmap.numel)
        return octets, (self._values, int(begins[first]), int(begins[last]))

    def _offsets(self) -> np.ndarray:
        """Where each block's values begin, int64 [blocks + 1]."""
        with self._lock:
            if self._begins is None:
                counts = self._counts.read().astype(np.int64)
                if counts.size and (int(counts.max()) > BLOCK or int(counts.sum()) != self._values.numel):
                    what = f"its counts do not add up to {self._values.numel} changes"
                    raise CheckpointError(what, where=self.where, hint=_AGAIN)
                self._begins = np.concatenate([[0], np.cumsum(counts)])
            return self._begins


def sources(root: Path, base: Checkpoint) -> dict[str, Source]:
    """The tensors of the expert; CheckpointError if ``base`` is another model than the delta's."""
    header, contents = open_contents(root)
    if base.fingerprint() != contents.base:
        named = f" ({contents.base_model})" if contents.base_model else ""
        what = f"is a delta of another model{named} than {base.reference}"
        hint = f"It belongs to the base with fingerprint {contents.base}; this one has {base.fingerprint()}."
        raise CheckpointError(what, where=str(root), hint=hint)
    found: dict[str, Source] = {}
    for name, entry in contents.tensors.items():
        if entry.kind == DENSE:
            found[name] = replace(header.tensors[f"{DENSE}/{name}"], name=name)
            continue
        below = base.tensors.get(name)
        if below is None or (below.dtype, below.shape) != (entry.dtype, entry.shape):
            what = f"tensor {name!r} of the base is not the {entry.dtype.name} {list(entry.shape)} that is changed"
            raise CheckpointError(what, where=str(root), hint=_AGAIN)
        found[name] = below if entry.kind == SAME else DeltaSource(name, entry, below, header)
    return found


def _recognises(root: Path, names: Sequence[str]) -> bool:
    return FILE in names


def _open(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    assert base is not None
    return Opened(NAME, sources(root, base))


FORMATS = (Format(NAME, _recognises, _open, needs_base=True),)
