"""An identity of everything that decides the numbers of a merge, for what is kept from one run to the next."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from rlmerge import kernels, methods
from rlmerge._version import __version__


@cache
def code_digest() -> str:
    """Hex digest of the version, of ``kernels.ARITHMETIC``, and of the source of all kernels, methods and backends.

    The source itself, because a formula that is being worked on changes without a new version.
    """
    digest = hashlib.sha256(f"{__version__} {kernels.ARITHMETIC}".encode())
    for package in (kernels, methods):
        _add(digest, Path(package.__file__ or "").parent.glob("*.py"))
    _add(digest, Path(__file__).parent.glob("*.py"))
    return digest.hexdigest()


def digest_of(functions: Iterable[Callable[..., Any] | None]) -> str:
    """Hex digest of the source of ``functions``: a method may come from any package, or a notebook.

    Of our own methods the names will do: their source is in ``code_digest``.
    """
    digest = hashlib.sha256()
    for function in functions:
        if function is None:
            continue
        digest.update(f"{function.__module__}.{getattr(function, '__qualname__', '')}".encode())
        if function.__module__.startswith(f"{methods.__name__}."):
            continue
        try:
            digest.update(inspect.getsource(inspect.unwrap(function)).encode())
        except (OSError, TypeError):
            code = getattr(function, "__code__", None)
            digest.update(b"" if code is None else code.co_code)
    return digest.hexdigest()


def _add(digest: Any, files: Iterable[Path]) -> None:
    for file in sorted(files):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
