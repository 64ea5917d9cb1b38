"""Four Linux calls that Python lacks, reached through ctypes, which releases the GIL; elsewhere they do nothing."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Any

MADV_WILLNEED = 3
MADV_DONTNEED = 4
MADV_POPULATE_READ = 22
_SYNC_FILE_RANGE_WRITE = 2
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _function(name: str, *arguments: Any) -> Any:
    found = getattr(_libc, name, None)
    if found is not None:
        found.argtypes, found.restype = arguments, ctypes.c_int
    return found


_madvise = _function("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_sync_file_range = _function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_renameat2 = _function(
    "renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
)  # fmt: skip
_statfs = _function("statfs", ctypes.c_char_p, ctypes.c_void_p)
_STATFS = 512
"""More bytes than the kernel fills in; the first word is the type."""


def madvise(address: int, length: int, advice: int) -> int:
    """Advise on the pages [address, address + length); returns 0 or the errno. Unlike mmap's own, holds no GIL."""
    if _madvise is None:
        return errno.ENOSYS
    return ctypes.get_errno() if _madvise(address, length, advice) else 0


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Have the kernel begin to write [offset, offset + length) to disk, so that a later fsync waits for little."""
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one atomic rename; False where the system or the file system cannot."""
    if _renameat2 is None:
        return False
    if _renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(second))


def file_system(path: Path) -> int:
    """The magic number of the file system that ``path`` is on; 0 where that cannot be told."""
    if _statfs is None or sys.platform != "linux":
        return 0
    found = (ctypes.c_long * (_STATFS // ctypes.sizeof(ctypes.c_long)))()
    return found[0] if _statfs(os.fsencode(path), found) == 0 else 0
