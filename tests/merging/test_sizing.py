"""Tiles for every budget, and budgets for which there is none."""

import numpy as np
import pytest

import rlmerge
from rlmerge.errors import RequestError
from rlmerge.kernels.histogram import BINS
from rlmerge.kernels.jit import BLOCK
from rlmerge.kernels.select import SIDE_CAPACITY
from rlmerge.merging.sizing import LARGEST_TILE, Lanes, size_of
from support.family import recipe
from support.models import write_model

MIB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizing")
    for name in ("base", *(f"e{k}" for k in range(12))):
        write_model(folder / name, {"w": np.zeros((64, 3000)), "v": np.zeros(7)})
    return folder


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "ram_plus"])
@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("memory", [64 * MIB, 100 * MIB, 512 * MIB, 2048 * MIB])
def test_the_peak_stays_in_the_budget_and_more_memory_never_cuts_smaller(folder, method, count, workers, memory):
    asked = recipe(folder, method, count, **({"density": 0.5} if method == "ties" else {}))
    try:
        size = rlmerge.plan(asked, memory=memory, workers=workers).sizing
    except RequestError as error:
        assert "but the budget is" in error.what
        needed = int(error.what.split("about ")[1].split(" MiB")[0])
        assert needed * MIB > memory
        assert rlmerge.plan(asked, memory=needed * MIB, workers=workers).peak_memory <= needed * MIB
        return
    assert size.peak <= memory
    assert BLOCK <= size.tile <= LARGEST_TILE
    assert size.tile % BLOCK == 0
    # Each worker fills a tile while the writer is behind by at most a few.
    assert 1 <= size.threads <= workers
    assert size.buffers > size.threads
    more = rlmerge.plan(asked, memory=2 * memory, workers=workers).sizing
    assert (more.threads, more.tile) >= (size.threads, size.tile)


def test_elementwise_methods_fit_the_smallest_budget(folder):
    plan = rlmerge.plan(recipe(folder, "task_arithmetic"), memory=32 * MIB, workers=16)
    assert plan.peak_memory <= 32 * MIB


def test_rows_and_whole_tensors_are_counted(folder):
    flat = rlmerge.plan(recipe(folder, "nuslerp", 2), workers=1).peak_memory
    rows = rlmerge.plan(recipe(folder, "nuslerp", 2, nuslerp_flatten=False), workers=1).peak_memory
    assert rows > flat


def test_every_further_thread_counts_a_histogram_for_each_selection(tmp_path):
    """Each tile that is under way keeps a histogram of 64-bit counts for each expert's threshold."""
    for name in ("base", "e0", "e1", "e2"):
        write_model(tmp_path / name, {"w": np.zeros((4096, 2048))})
    # As many tiles of 2^22 elements as there are: two.
    asked = recipe(tmp_path, "ties", 3, density=0.5)
    peaks = [rlmerge.plan(asked, memory=8 * 2**30, workers=workers).peak_memory for workers in (1, 2)]
    assert peaks[1] - peaks[0] >= 3 * 4 * SIDE_CAPACITY
    # Without a threshold to select there are neither histograms nor lists.
    plain = rlmerge.plan(recipe(tmp_path, "task_arithmetic", 3), memory=8 * 2**30, workers=1).peak_memory
    assert peaks[0] - plain >= 3 * 2 * 8 * BINS


def test_every_further_thread_counts_a_tile(tmp_path):
    """A worker holds one output tile of float32 beside those that wait for the writer."""
    for name in ("base", "e0"):
        write_model(tmp_path / name, {"w": np.zeros((4096, 2048))}, "float32")
    asked = recipe(tmp_path, "task_arithmetic", 1)
    sizes = [rlmerge.plan(asked, memory=8 * 2**30, workers=workers).sizing for workers in (1, 4)]
    assert [size.threads for size in sizes] == [1, 4]
    assert sizes[1].peak - sizes[0].peak >= 3 * 4 * LARGEST_TILE


def test_recipes_side_by_side_stay_in_the_budget_and_share_what_they_can(folder):
    plan = rlmerge.plan(recipe(folder, "ties", 3, density=0.5), memory=64 * MIB, workers=2)
    jobs = list(plan.jobs.values())
    one = size_of(jobs, plan.options)
    assert (one.threads, one.tile, one.peak) == (plan.sizing.threads, plan.sizing.tile, plan.sizing.peak)
    kept = size_of(jobs, plan.options, Lanes(32, in_place=True))
    assert kept.buffers == 0
    assert kept.peak <= 64 * MIB
    # What is merged where it stays takes no buffers, and one count of magnitudes serves all densities.
    assert (kept.threads, kept.tile) == (one.threads, one.tile)
    written = size_of(jobs, plan.options, Lanes(32))
    assert written.peak <= 64 * MIB
    assert kept.peak - one.peak < written.peak
    more_kinds = size_of(jobs, plan.options, Lanes(32, kinds=2, in_place=True))
    assert more_kinds.peak > kept.peak or more_kinds.tile < kept.tile


def test_recipes_that_need_memory_of_their_own_side_by_side_count_it_each(folder):
    plan = rlmerge.plan(recipe(folder, "della", 2), memory=512 * MIB, workers=1)
    jobs = list(plan.jobs.values())
    two, four = (size_of(jobs, plan.options, Lanes(count, in_place=True)).peak for count in (2, 4))
    rows = 8 * 10 * 3 * 3000  # float64 arrays, for each of three models, as large as a row at least
    assert four - two > 2 * rows
