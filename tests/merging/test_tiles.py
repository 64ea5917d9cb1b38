"""How tensors are cut."""

import math
from dataclasses import replace

import numpy as np
import pytest

import rlmerge
from rlmerge.kernels.jit import BLOCK
from rlmerge.merging.tiles import cut
from support.models import write_model


@pytest.fixture(scope="module")
def tensor(tmp_path_factory):
    """A planned tensor of any shape, for none is read."""
    folder = tmp_path_factory.mktemp("tiles")
    for name in ("base", "e0"):
        write_model(folder / name, {"w": np.zeros(1)})
    recipe = {"merge_method": "ties", "base_model": str(folder / "base"), "models": [{"model": str(folder / "e0")}]}
    planned = rlmerge.plan(recipe).jobs["w"]
    return lambda *shape: replace(planned, output=replace(planned.output, shape=shape))


SHAPES = [(), (1,), (0,), (3, 0), (BLOCK,), (BLOCK + 1,), (7, 100_003), (1000, 1000), (3, 200_000), (5, 4, 30_000)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, BLOCK, 3 * BLOCK, 2**20])
def test_flat_tiles_cover_a_tensor_once_from_block_to_block(tensor, shape, size):
    tiles = list(cut(tensor(*shape), size))
    assert [(tile.start, tile.stop) for tile in tiles] == spans(tiles, math.prod(shape))
    assert all(tile.start % BLOCK == 0 and 0 < tile.count <= max(size, BLOCK) for tile in tiles)


def test_flat_tiles_are_no_more_than_need_be_and_of_about_one_length(tensor):
    tiles = list(cut(tensor(9 * BLOCK + 1), 8 * BLOCK))
    assert [tile.count for tile in tiles] == [5 * BLOCK, 4 * BLOCK + 1]
    assert [tile.count for tile in cut(tensor(8 * BLOCK + 1), 8 * BLOCK + 1)] == [8 * BLOCK + 1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, BLOCK, 3 * BLOCK, 2**20])
def test_tiles_by_rows_hold_whole_rows_and_blocks_that_only_the_shape_decides(tensor, shape, size):
    tiles = list(cut(tensor(*shape), size, by_rows=True))
    columns = shape[-1] if shape else 1
    assert [(tile.start, tile.stop) for tile in tiles] == spans(tiles, math.prod(shape))
    for tile in tiles:
        assert tile.start % columns == tile.stop % columns == 0
        assert tile.start % tile.block == 0
        assert tile.block == columns * max(1, BLOCK // columns)
        assert tile.count <= max(size, tile.block)


def spans(tiles, total):
    """Consecutive ranges from 0 to ``total`` at the tiles' starts."""
    starts = [tile.start for tile in tiles]
    assert starts == sorted(set(starts))
    assert starts[:1] == ([0] if total else [])
    return list(zip(starts, [*starts[1:], total], strict=True)) if total else []
