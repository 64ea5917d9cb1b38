"""Progress on stderr: bars on a terminal, a line every ten seconds elsewhere, nothing when asked for quiet."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, TextIO

from rlmerge.progress import Progress, Quiet
from rlmerge.report.terminal import duration_text, size_text

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars

INTERVAL = 10.0
"""Seconds between two lines of plain progress."""


@contextmanager
def show_progress(quiet: bool) -> Generator[Progress]:
    """The progress that suits stderr, cleared away at the end."""
    if quiet:
        yield Quiet()
    elif not sys.stderr.isatty():
        yield Lines(sys.stderr)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as RichBars

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with RichBars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
            yield Bars(bars)


class Bars:
    """One bar per phase with bytes a second and the time left."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._task = None

    def start(self, phase: str, total_bytes: int) -> None:
        self.done()
        self._task = self._bars.add_task(phase, total=total_bytes)

    def advance(self, nbytes: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, nbytes)

    def done(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def message(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


class Lines:
    """A line at the start and end of a phase and every ten seconds between. A closed stream never stops a run."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = Lock()
        self._phase = ""
        self._total = self._bytes = 0
        self._started = self._spoke = 0.0

    def start(self, phase: str, total_bytes: int) -> None:
        with self._lock:
            self._phase, self._total, self._bytes = phase, total_bytes, 0
            self._started = self._spoke = self._clock()
        self.message(f"{phase}: {size_text(total_bytes)}" if total_bytes else phase)

    def advance(self, nbytes: int) -> None:
        with self._lock:
            self._bytes += nbytes
            now = self._clock()
            if now - self._spoke < INTERVAL:
                return
            self._spoke = now
            text = self._so_far(now - self._started)
        self.message(text)

    def done(self) -> None:
        with self._lock:
            seconds = self._clock() - self._started
            text = f"{self._phase}: done in {duration_text(seconds)}"
        self.message(text)

    def message(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=self._stream, flush=True)

    def _so_far(self, seconds: float) -> str:
        rate = self._bytes / seconds
        text = f"{self._phase}: {size_text(self._bytes)} of {size_text(self._total)}, {size_text(round(rate))}/s"
        left = (self._total - self._bytes) / rate if rate else 0.0
        return f"{text}, {duration_text(left)} left" if left > 0 else text
