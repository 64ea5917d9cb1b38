"""Results that many threads ask for at about the same time, each made once and kept while it is likely needed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Result = TypeVar("Result")


class Latest:
    """The ``count`` results that were asked for last."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: OrderedDict[Hashable, Any] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """The result under ``key``; the first to ask makes it, while others who ask for it wait."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
            lock = self._making.setdefault(key, threading.Lock())
        with lock:
            with self._lock:
                if key in self._found:
                    return self._found[key]
            result = make()
            with self._lock:
                self._found[key] = result
                self._making.pop(key, None)
                while len(self._found) > self._count:
                    self._found.popitem(last=False)
            return result
