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
from rlmerge.report.console import duration_text, size_text
from rlmerge.text import indented

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
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichBars

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[so_far]}"))
        bars = RichBars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        with _unheard:
            bars.start()
        try:
            yield Bars(bars)
        finally:
            with _unheard:
                bars.stop()


_unheard = contextlib.suppress(OSError, ValueError)
"""A stream that is closed, full or a terminal that has gone away never stops a run."""


class Bars:
    """One bar per phase with how much is done, how fast, and the time left."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._task = None
        self._unit = ""

    def start(self, phase: str, total: int, unit: str = "") -> None:
        self.done()
        self._unit = unit
        with _unheard:
            self._task = self._bars.add_task(phase, total=total, so_far="")

    def advance(self, amount: int) -> None:
        task = next((task for task in self._bars.tasks if task.id == self._task), None)
        if task is not None:
            with _unheard:
                self._bars.advance(task.id, amount)
                so_far = _so_far(int(task.completed), int(task.total or 0), self._unit, task.elapsed or 0.0)
                self._bars.update(task.id, so_far=so_far)

    def done(self) -> None:
        if self._task is not None:
            with _unheard:
                self._bars.remove_task(self._task)
            self._task = None

    def message(self, text: str) -> None:
        with _unheard:
            self._bars.console.print(indented(text), markup=False, highlight=False)


class Lines:
    """A line at the start and end of a phase and every ten seconds between."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = Lock()
        self._phase = self._unit = ""
        self._total = self._done = 0
        self._started = self._spoke = 0.0

    def start(self, phase: str, total: int, unit: str = "") -> None:
        with self._lock:
            self._phase, self._total, self._done, self._unit = phase, total, 0, unit
            self._started = self._spoke = self._clock()
        self.message(f"{phase}: {_amount(total, unit)}" if total else phase)

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount
            now = self._clock()
            if now - self._spoke < INTERVAL:
                return
            self._spoke = now
            seconds = now - self._started
            text = f"{self._phase}: {_so_far(self._done, self._total, self._unit, seconds)}"
            rate = self._done / seconds
            left = (self._total - self._done) / rate if rate else 0.0
        self.message(f"{text}, {duration_text(left)} left" if left > 0 else text)

    def done(self) -> None:
        with self._lock:
            seconds = self._clock() - self._started
            text = f"{self._phase}: done in {duration_text(seconds)}"
        self.message(text)

    def message(self, text: str) -> None:
        with _unheard:
            print(indented(text), file=self._stream, flush=True)


def _amount(amount: int, unit: str) -> str:
    return f"{amount:,} {unit}" if unit else size_text(amount)


def _so_far(done: int, total: int, unit: str, seconds: float) -> str:
    """How much of how much; of bytes also the rate, which says what the disk and the formula give."""
    if unit:
        return f"{done:,} of {_amount(total, unit)}"
    rate = f", {size_text(round(done / seconds))}/s" if seconds > 0 else ""
    return f"{size_text(done)} of {size_text(total)}{rate}"
