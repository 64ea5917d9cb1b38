"""Tiles through threads: in order, bounded in flight, read ahead, and given back."""

import threading
import time
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

import rlmerge
from rlmerge.api import run_plan
from rlmerge.checkpoint import Extent
from rlmerge.merging import stream
from rlmerge.merging.sinks import ShardSink
from rlmerge.merging.stream import Workers
from support.models import write_model


class Ranges:
    """A source that notes what is asked of it."""

    def __init__(self):
        self.calls = []

    def read(self, start=0, stop=None):
        self.calls.append(("read", start))
        return np.arange(start, stop)

    def prefetch(self, start=0, stop=None):
        self.calls.append(("prefetch", start))

    def release(self, start=0, stop=None):
        self.calls.append(("release", start))


def tiles(source, count, nbytes=8):
    """Tiles of four entries of one input."""
    job = SimpleNamespace(sources=[source], extras={})
    return [
        SimpleNamespace(
            start=4 * i,
            stop=4 * i + 4,
            nbytes=nbytes,
            inputs=[source],
            job=job,
            span=lambda source, i=i: (4 * i, 4 * i + 4),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_come_in_order_and_few_are_in_flight(threads):
    source, lock, flying, most = Ranges(), threading.Lock(), [0], [0]

    def work(tile, inputs):
        with lock:
            flying[0] += 1
        time.sleep(0.001 * (tile.start % 3))
        return int(inputs[0].sum())

    found = []
    with Workers(threads) as workers:
        for tile, total in workers.map(iter(tiles(source, 40)), work):
            with lock:
                most[0] = max(most[0], flying[0] - len(found))
            found.append((tile.start, total))
    assert found == [(4 * i, sum(range(4 * i, 4 * i + 4))) for i in range(40)]
    assert most[0] <= 2 * threads + 1
    assert sorted(start for call, start in source.calls if call == "release") == list(range(0, 160, 4))


def test_every_range_is_asked_for_before_it_is_read(monkeypatch):
    monkeypatch.setattr(stream, "PREFETCH_BYTES", 30)
    source = Ranges()
    with Workers(1) as workers:
        handed = []
        for tile in workers.prefetched(iter(tiles(source, 9))):
            asked = len(source.calls)
            handed.append((tile.start, asked))
    # 30 bytes hold three tiles of eight and the one that is handed out.
    assert handed == [(4 * i, min(9, i + 4)) for i in range(9)]


def test_an_error_in_a_thread_is_raised_and_the_rest_is_dropped():
    source = Ranges()

    def work(tile, inputs):
        if tile.start == 20:
            raise ValueError("the sixth")
        return tile.start

    seen = []
    with pytest.raises(ValueError, match="the sixth"), Workers(2) as workers:
        for tile, _ in workers.map(iter(tiles(source, 50)), work):
            seen.append(tile.start)
    assert seen == [0, 4, 8, 12, 16]
    assert len([call for call in source.calls if call[0] == "read"]) < 20


def test_the_next_shard_is_asked_for_before_the_last_is_finished(tmp_path, monkeypatch):
    """So that a link, or a disk, is not idle between shards."""
    rng, names = np.random.default_rng(0), [f"model.layers.{n}.w" for n in range(4)]
    for model in ("base", "e0"):
        write_model(tmp_path / model, {name: rng.standard_normal((64, 64)) for name in names}, "bfloat16")
    seen = []
    ask, finish = Extent.prefetch, ShardSink.finish

    def asked(self, *span):
        seen.append(("asked", self.name))
        ask(self, *span)

    def finished(self, job, stats):
        seen.append(("done", job.name))
        finish(self, job, stats)

    models = [{"model": str(tmp_path / "e0")}]
    recipe = {"merge_method": "task_arithmetic", "base_model": str(tmp_path / "base"), "models": models}
    plan = rlmerge.plan(recipe, tmp_path / "out", shard_size=16_384)
    assert len(plan.shards) == 2, "two tensors of 8 KiB each"
    monkeypatch.setattr(Extent, "prefetch", asked)
    monkeypatch.setattr(ShardSink, "finish", finished)
    monkeypatch.setattr(import_module("rlmerge.merging.run"), "check_base", lambda plan: [])
    run_plan(plan, tmp_path / "out")
    assert seen.index(("asked", "model.layers.2.w")) < seen.index(("done", "model.layers.1.w"))
