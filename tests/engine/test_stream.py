"""Tiles through threads: in order, bounded in flight, read ahead, and given back."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from rlmerge.engine import stream
from rlmerge.engine.stream import Workers


class Ranges:
    """A reader that notes what is asked of it."""

    def __init__(self):
        self.calls, self.closed = [], False

    def read(self, info, start=0, stop=None):
        self.calls.append(("read", start))
        return np.arange(start, stop)

    def prefetch(self, info, start=0, stop=None):
        self.calls.append(("prefetch", start))

    def release(self, info, start=0, stop=None):
        self.calls.append(("release", start))

    def close(self):
        self.closed = True


def tiles(count, nbytes=8):
    """Tiles of four entries of one input."""
    tensor = SimpleNamespace(sources=["input"], extras={})
    return [
        SimpleNamespace(
            start=4 * i,
            stop=4 * i + 4,
            nbytes=nbytes,
            inputs=["input"],
            tensor=tensor,
            span=lambda info, i=i: (4 * i, 4 * i + 4),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_come_in_order_and_few_are_in_flight(threads):
    reader, lock, flying, most = Ranges(), threading.Lock(), [0], [0]

    def work(tile, inputs):
        with lock:
            flying[0] += 1
        time.sleep(0.001 * (tile.start % 3))
        return int(inputs[0].sum())

    found = []
    with Workers(threads, reader) as workers:
        for tile, total in workers.map(iter(tiles(40)), work):
            with lock:
                most[0] = max(most[0], flying[0] - len(found))
            found.append((tile.start, total))
    assert found == [(4 * i, sum(range(4 * i, 4 * i + 4))) for i in range(40)]
    assert most[0] <= 2 * threads + 1
    assert reader.closed
    assert sorted(start for call, start in reader.calls if call == "release") == list(range(0, 160, 4))


def test_every_range_is_asked_for_before_it_is_read(monkeypatch):
    monkeypatch.setattr(stream, "PREFETCH_BYTES", 30)
    reader = Ranges()
    with Workers(1, reader) as workers:
        handed = []
        for tile in workers.prefetched(iter(tiles(9))):
            asked = len(reader.calls)
            handed.append((tile.start, asked))
    # 30 bytes hold three tiles of eight and the one that is handed out.
    assert handed == [(4 * i, min(9, i + 4)) for i in range(9)]


def test_an_error_in_a_thread_is_raised_and_the_rest_is_dropped():
    reader = Ranges()

    def work(tile, inputs):
        if tile.start == 20:
            raise ValueError("the sixth")
        return tile.start

    seen = []
    with pytest.raises(ValueError, match="the sixth"), Workers(2, reader) as workers:
        for tile, _ in workers.map(iter(tiles(50)), work):
            seen.append(tile.start)
    assert seen == [0, 4, 8, 12, 16]
    assert reader.closed
    assert len([call for call in reader.calls if call[0] == "read"]) < 20
