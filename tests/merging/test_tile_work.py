"""Tiles merged a block at a time straight from files: as from arrays, and what is wrong with a file is said."""

import os

import numpy as np
import pytest

import rlmerge
from rlmerge.errors import CheckpointError, RequestError, RlmergeError, RunError
from rlmerge.kernels import blocks
from rlmerge.merging import reading, tile_work
from rlmerge.merging.tile_work import REGION, SAMPLE, TileMerge, TileWork
from rlmerge.merging.tiles import Tile
from support.family import draw, merge, recipe
from support.models import read_model, write_model

SHAPES = {"large.weight": (520, 700), "small.weight": (64,), "scalar": ()}


@pytest.fixture
def folder(tmp_path):
    """base and e0 … e2, of 364,000 entries: five blocks and a part of one."""
    base, experts = draw(7, 3, SHAPES)
    for name, tensors in (("base", base), *((f"e{k}", each) for k, each in enumerate(experts))):
        write_model(tmp_path / name, tensors, "bfloat16")
    return tmp_path


@pytest.fixture
def read_by_blocks(monkeypatch):
    """Tiles of each tensor that were read by blocks."""
    seen = []
    original = TileWork._by_blocks
    monkeypatch.setattr(
        TileWork, "_by_blocks", lambda self, tile, outs: seen.append(tile) or original(self, tile, outs)
    )
    return seen


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


PARAMETERS = {"della": {"density": 0.5, "epsilon": 0.1}, "della_linear": {"density": 0.5, "rank_nonzero": False}}


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_ties", "linear", "ram", *PARAMETERS])
def test_files_give_the_bytes_that_arrays_give(folder, read_by_blocks, monkeypatch, method):
    """DELLA's scalar is a row too short to be ranked by machine code, and is read as an array."""
    asked = recipe(folder, method, base=method != "linear", **PARAMETERS.get(method, {}))
    merge(asked, folder / "blocks")
    assert {tile.job.name for tile in read_by_blocks} == set(SHAPES) - ({"scalar"} if method in PARAMETERS else set())
    # Without the library's function for digests, tiles are read as a whole, by way of a mapping.
    monkeypatch.setattr(tile_work, "xxh3", lambda: None)
    read_by_blocks.clear()
    merge(asked, folder / "mapped")
    assert not read_by_blocks
    blocks_, mapped = contents(folder / "blocks"), contents(folder / "mapped")
    assert blocks_.keys() == mapped.keys()
    assert [name for name in blocks_ if blocks_[name] != mapped[name]] == []


def test_rows_that_numpy_works_on_are_not_read_by_blocks(folder, read_by_blocks):
    merge(recipe(folder, "cabs", density=0.5), folder / "rows")
    assert "large.weight" not in {tile.job.name for tile in read_by_blocks}


@pytest.mark.parametrize("policy", ["keep", "zero"])
def test_rows_with_nan_are_ranked_as_without_blocks(folder, read_by_blocks, monkeypatch, policy):
    """NaN has no rank by machine code; where it counts as 0, it has."""
    tensors = {name: values.astype(np.float32) for name, values in read_model(folder / "e1").items()}
    tensors["large.weight"][3, [5, 77]] = np.nan, np.inf
    write_model(folder / "e1", tensors, "bfloat16")
    asked = recipe(folder, "della", density=0.5, epsilon=0.1)
    merge(asked, folder / "blocks", on_nonfinite=policy)
    assert "large.weight" in {tile.job.name for tile in read_by_blocks}
    monkeypatch.setattr(tile_work, "xxh3", lambda: None)
    merge(asked, folder / "mapped", on_nonfinite=policy)
    weights = [read_model(folder / out)["large.weight"].view(np.uint16) for out in ("blocks", "mapped")]
    assert np.array_equal(*weights)


def test_a_state_dict_is_merged_by_blocks_too(folder, read_by_blocks):
    states = [read_model(folder / name) for name in ("base", "e0", "e1", "e2")]
    merged = rlmerge.merge_state_dicts(states[0], states[1:], "task_arithmetic", weight=0.5)
    assert read_by_blocks
    rlmerge.merge(recipe(folder, "task_arithmetic", weight=0.5), folder / "out")
    found = read_model(folder / "out")
    assert all(np.array_equal(merged[name].view(np.uint16), found[name].view(np.uint16)) for name in SHAPES)


@pytest.mark.parametrize("entry", [3, 300_000])
def test_what_is_not_finite_is_refused_by_name(folder, entry):
    tensors = {name: values.astype(np.float32) for name, values in read_model(folder / "e1").items()}
    tensors["large.weight"].reshape(-1)[entry] = np.inf
    write_model(folder / "e1", tensors, "bfloat16")
    with pytest.raises(RequestError, match=r"large\.weight"):
        merge(recipe(folder, "task_arithmetic"), folder / "out")
    assert not (folder / "out").exists()


def test_a_file_that_is_cut_off_while_it_is_merged(folder, monkeypatch):
    original = reading.run_blocks

    def cut(*arguments):
        os.truncate(folder / "e2" / "model.safetensors", 4096)
        return original(*arguments)

    monkeypatch.setattr(reading, "run_blocks", cut)
    with pytest.raises(RunError, match="has changed since it was opened"):
        merge(recipe(folder, "task_arithmetic"), folder / "out")
    assert not (folder / "out").exists()


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_a_read_that_fails_after_a_while_is_made_up_for(folder, monkeypatch, method):
    """What was counted until then, sums and histograms, does not count twice."""
    asked = recipe(folder, method, **({"density": 0.4} if method == "ties" else {}))
    merge(asked, folder / "expected", cache=False)
    original, failed = reading.run_blocks, []

    def fails(calls, inputs, *more, **named):
        found = original(calls, inputs, *more, **named)
        if any(place.fd >= 0 for place in inputs):
            failed.append(True)
            return None
        return found

    monkeypatch.setattr(reading, "run_blocks", fails)
    merge(asked, folder / "out", cache=False)
    assert len(failed) >= len(SHAPES)
    assert contents(folder / "out")["model.safetensors"] == contents(folder / "expected")["model.safetensors"]


def test_a_disk_that_fails_is_an_error_that_names_the_file(folder, monkeypatch):
    monkeypatch.setattr(reading, "run_blocks", lambda *_: None)
    monkeypatch.setattr("rlmerge.checkpoint.syscalls.madvise", lambda address, length, advice: 5 if advice == 22 else 0)
    with pytest.raises(RlmergeError, match="can no longer be read") as error:
        merge(recipe(folder, "task_arithmetic"), folder / "out")
    assert isinstance(error.value, CheckpointError | RunError)
    assert "model.safetensors" in str(error.value)


def test_blocks_are_those_of_the_digests():
    assert reading.run_blocks is blocks.run_blocks
    assert tile_work.SAMPLE % tile_work.BLOCK == 0 and tile_work.REGION % tile_work.BLOCK == 0


@pytest.mark.parametrize(
    ("start", "stop", "ranges"),
    [
        (0, REGION, [(0, SAMPLE)]),
        (SAMPLE // 2, REGION, [(0, SAMPLE // 2)]),
        (SAMPLE, REGION, []),
        (0, SAMPLE // 2, [(0, SAMPLE // 2)]),
        (REGION - 5, 2 * REGION + 7, [(5, 5 + SAMPLE), (REGION + 5, REGION + 12)]),
        (REGION, REGION, []),
    ],
)
def test_a_sampled_account_is_of_the_beginnings_of_regions_whatever_the_tiles(start, stop, ranges):
    merge = TileMerge(None, None, quiet=object())
    tile = Tile(None, start, stop)
    assert merge.ranges(tile) == ranges
    assert merge.accounted(tile) == sum(last - first for first, last in ranges)
    told = [any(first <= offset < last for first, last in ranges) for offset in range(0, tile.count, SAMPLE // 4)]
    assert [merge.tells(tile, offset) for offset in range(0, tile.count, SAMPLE // 4)] == told
