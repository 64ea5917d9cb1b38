"""Flat ranges of tensors as read-only arrays over mapped files: no copies, and finished pages are given back."""

from __future__ import annotations

import errno
import mmap
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlmerge.checkpoint import syscalls
from rlmerge.checkpoint.header import TensorInfo
from rlmerge.checkpoint.paths import unreadable
from rlmerge.errors import CheckpointError

_MAX_OPEN = 128
"""Files kept mapped; each holds a descriptor, and 1024 is a common limit for a process."""

_WOULD_FAULT = (errno.EFAULT, errno.EIO)


@dataclass(frozen=True, slots=True)
class _Mapping:
    data: np.ndarray
    address: int


class TensorReader:
    """Reads ranges of tensors from many files; one reader is shared by all threads.

    The caller moves through a tensor in three steps: ``prefetch`` a range it will need, ``read`` it, ``release`` it.
    Only ``read`` is required; the others keep the disk busy ahead of the work and the resident set small behind it.
    """

    def __init__(self) -> None:
        self._mappings: OrderedDict[Path, _Mapping] = OrderedDict()
        self._lock = threading.Lock()
        self._can_populate = sys.platform == "linux"

    def read(self, info: TensorInfo, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Elements [start, stop) of the flattened tensor, [stop - start] in its storage type, aligned and read-only.

        A view of the mapped file that stays valid as long as it is referenced; a copy only where a foreign writer
        placed the tensor at an offset its type cannot be loaded from. CheckpointError if the file is gone, has shrunk,
        or the disk fails.
        """
        first, last = _byte_range(info, start, stop)
        storage = info.dtype.storage
        if first == last:
            return np.empty(0, storage)
        mapping = self._mapping(info)
        if self._can_populate:
            # Faulting the range in here turns a truncated file or a failing disk, otherwise a fatal SIGBUS in the
            # middle of a kernel, into an error code; it is also cheaper than one page fault after the other.
            code = self._advise(mapping, first, last, syscalls.MADV_POPULATE_READ)
            if code in _WOULD_FAULT:
                hint = "It changed or its disk failed while it was read; check the file, then run again."
                raise CheckpointError("the bytes can no longer be read", where=f"{info.file}: {info.name}", hint=hint)
            self._can_populate = code == 0
        view = mapping.data[first:last]
        if first % storage.itemsize:
            view = view.copy()
            view.flags.writeable = False
        return view.view(storage)

    def prefetch(self, info: TensorInfo, start: int = 0, stop: int | None = None) -> None:
        """Have the kernel start to read a range that will be needed; returns without waiting for it."""
        first, last = _byte_range(info, start, stop)
        if first < last:
            self._advise(self._mapping(info), first, last, syscalls.MADV_WILLNEED)

    def release(self, info: TensorInfo, start: int = 0, stop: int | None = None) -> None:
        """Give the pages of a finished range back: they leave this process but stay in the file cache."""
        first, last = _byte_range(info, start, stop)
        with self._lock:
            mapping = self._mappings.get(info.file)
        if mapping is not None and first < last:
            self._advise(mapping, first, last, syscalls.MADV_DONTNEED)

    def close(self) -> None:
        """Forget all mappings; each is unmapped when the last array over it is gone."""
        with self._lock:
            self._mappings.clear()

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mapping(self, info: TensorInfo) -> _Mapping:
        with self._lock:
            mapping = self._mappings.get(info.file) or _map(info.file)
            self._mappings[info.file] = mapping
            self._mappings.move_to_end(info.file)
            if len(self._mappings) > _MAX_OPEN:
                self._mappings.popitem(last=False)
        if info.stop > len(mapping.data):
            hint = "It has changed since its header was read; run again once it is complete."
            raise CheckpointError(f"ends before tensor {info.name!r} does", where=str(info.file), hint=hint)
        return mapping

    @staticmethod
    def _advise(mapping: _Mapping, first: int, last: int, advice: int) -> int:
        # Rounded outwards to pages. For DONTNEED a neighbour still in use just faults its page in again.
        begin = first - first % mmap.PAGESIZE
        return syscalls.madvise(mapping.address + begin, last - begin, advice)


def _byte_range(info: TensorInfo, start: int, stop: int | None) -> tuple[int, int]:
    stop = info.numel if stop is None else stop
    if not 0 <= start <= stop <= info.numel:
        raise ValueError(f"[{start}, {stop}) is not a range of the {info.numel} elements of {info.name}")
    return info.start + start * info.dtype.itemsize, info.start + stop * info.dtype.itemsize


def _map(file: Path) -> _Mapping:
    try:
        with file.open("rb") as handle:
            mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        cause = error if isinstance(error, OSError) else OSError(errno.ENODATA, "the file is empty")
        raise unreadable(file, cause) from error
    if hasattr(mmap, "MADV_SEQUENTIAL"):
        mapped.madvise(mmap.MADV_SEQUENTIAL)
    data = np.frombuffer(mapped, np.uint8)
    return _Mapping(data, data.ctypes.data)
