"""Statistics before a formula: how often the inputs are read, and what is known without reading."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.kernels.dtypes import FLOAT32
from rlmerge.kernels.histogram import BINS
from rlmerge.kernels.program import Operands, reduce_kernel
from rlmerge.kernels.select import SAMPLE, Selector
from rlmerge.merging import on_llvm, statistics
from rlmerge.merging.reading import read_sample
from rlmerge.merging.stream import Workers
from rlmerge.merging.tiles import Tile
from support.family import draw, merge, recipe, tree
from support.models import write_model


@pytest.fixture
def reads(monkeypatch):
    """[bytes handed to kernels] of everything that runs."""
    total = [0]
    original = Workers.submit

    def counted(self, tile, work, **more):
        total[0] += tile.nbytes
        return original(self, tile, work, **more)

    monkeypatch.setattr(Workers, "submit", counted)
    return total


@pytest.mark.parametrize(
    ("method", "parameters", "passes"),
    [
        ("task_arithmetic", {}, 1),
        ("dare_ties", {"density": 0.5}, 1),
        ("ram", {}, 1),
        ("ties", {"density": 1.0}, 1),
        ("ties", {"density": 1.0, "scope": "global"}, 1),
        ("ties", {"density": 0.5}, 2),
        ("ties", {"density": 0.5, "scope": "global"}, 2),
        ("ram_plus", {}, 2),
        ("ram_plus", {"r": 0.0}, 1),
        ("ram_percentile", {}, 3),
        ("dare_linear", {"density": 0.5, "rescale": "l1"}, 2),
        # The smallest and the largest magnitude that are kept are read off one count of them.
        ("breadcrumbs", {"density": 0.5, "gamma": 0.01}, 2),
    ],
    ids=lambda value: "-".join(f"{k}{v}" for k, v in value.items()) if isinstance(value, dict) else str(value),
)
def test_passes_over_the_inputs(family, tmp_path, reads, method, parameters, passes):
    """One for the merge, and one for every stage of statistics that is not known beforehand."""
    result = merge(recipe(family, method, **parameters), tmp_path / "out", cache=False)
    copied = 4 * 7 * 8  # the integers, read once whatever the method
    assert reads[0] == copied + passes * (result.bytes_read - copied)


def test_a_kept_scan_saves_its_pass(family, tmp_path, reads):
    asked = recipe(family, "ties", density=0.5)
    merge(asked, tmp_path / "one")
    first, reads[0] = reads[0], 0
    result = merge(asked, tmp_path / "two")
    assert reads[0] == result.bytes_read < first


MANY = {f"model.layers.{k}.mlp.{name}_proj.weight": (48, 40) for k in range(3) for name in ("up", "down")}
"""Tensors that differ in their layer alone, of each of two kinds."""


@pytest.mark.parametrize(
    ("method", "parameters", "options", "mergers"),
    [
        ("task_arithmetic", {"lambda": 0.7}, {}, 2),
        ("linear", {"weight": [0.5, 0.2, 0.3]}, {}, 2),
        ("ram", {"r": 0.0}, {}, 2),
        ("ties", {"density": 1.0}, {}, 2),
        # A filter looks at names.
        ("task_arithmetic", {"lambda": [{"filter": "layers.1", "value": 0.2}, {"value": 0.7}]}, {}, 6),
        # Thresholds are those of one tensor, and random numbers depend on its name.
        ("ties", {"density": 0.5}, {}, 6),
        ("dare_ties", {"density": 0.5}, {}, 6),
        ("task_arithmetic", {}, {"rounding": "stochastic"}, 6),
    ],
    ids=["alike", "no base", "no scan", "thresholds of 0", "a filter", "thresholds", "random", "stochastic rounding"],
)
def test_tensors_that_are_alike_share_what_merges_them(tmp_path, monkeypatch, method, parameters, options, mergers):
    base, experts = draw(6, 3, MANY)
    for name, tensors in (("base", base), *((f"e{k}", each) for k, each in enumerate(experts))):
        write_model(tmp_path / name, tensors, "bfloat16")
    made = []
    original = on_llvm.LlvmBackend.merger

    def counted(self, binding, storing):
        made.append(binding.name)
        return original(self, binding, storing)

    monkeypatch.setattr(on_llvm.LlvmBackend, "merger", counted)
    asked = recipe(tmp_path, method, base=method != "linear", **(parameters if method == "linear" else {}))
    if method != "linear":
        asked["parameters"] = parameters
    merge(asked, tmp_path / "shared", cache=False, **options)
    assert len(made) == mergers
    monkeypatch.setattr(statistics.Statistics, "_for_all_alike", lambda self, job, what, make: make()[1])
    merge(asked, tmp_path / "each", cache=False, **options)
    assert len(made) == mergers + len(MANY)
    assert tree(tmp_path / "shared") == tree(tmp_path / "each")


LARGE = {"model.embed_tokens.weight": (1 << 10, 1 << 10), "model.layers.0.mlp.up_proj.weight": (1500, 1021)}
"""Tensors of which a sample is taken before they are scanned."""


@pytest.fixture
def expected(monkeypatch):
    """The windows that scans were narrowed down to."""
    seen = []
    original = Selector.expect

    def spied(self, *arguments):
        original(self, *arguments)
        seen.extend(self.selection(0).windows)

    monkeypatch.setattr(Selector, "expect", spied)
    return seen


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("ties", {"density": 0.1}),
        ("ties", {"density": 0.9}),
        ("breadcrumbs", {"density": 0.1, "gamma": 0.01}),
        ("breadcrumbs", {"density": 0.5, "gamma": 0.05, "rank_nonzero": True}),
    ],
)
@pytest.mark.parametrize(("stored", "arithmetic"), [("bfloat16", "float32"), ("float16", "float64")])
def test_a_sampled_scan_gives_what_a_full_one_gives(
    tmp_path, monkeypatch, expected, method, parameters, stored, arithmetic
):
    base, experts = draw(3, 3, LARGE)
    for name, tensors in (("base", base), *((f"e{k}", each) for k, each in enumerate(experts))):
        write_model(tmp_path / name, tensors, stored)
    asked = {**recipe(tmp_path, method, **parameters), "dtype": arithmetic}
    merge(asked, tmp_path / "sampled", cache=False)
    assert len(expected) == 2 * 3
    limit = 1 << (31 if arithmetic == "float32" else 63)
    assert all(first > 1 or last < limit for first, last in expected)
    monkeypatch.setattr(on_llvm, "SAMPLED_FROM", 1 << 40)
    merge(asked, tmp_path / "full", cache=False)
    assert len(expected) == 2 * 3
    assert tree(tmp_path / "sampled") == tree(tmp_path / "full")


def test_a_sample_that_misleads_costs_a_pass(tmp_path, monkeypatch, reads):
    """Every piece of the sample lies where the largest changes are."""
    base, experts = draw(4, 2, {"w": (1 << 10, 1 << 10)})
    for tensors in experts:
        tensors["w"] = base["w"] * np.where(np.arange(1 << 10)[:, None] < 64, np.float32(1.5), np.float32(1.01))
    for name, tensors in (("base", base), *((f"e{k}", each) for k, each in enumerate(experts))):
        write_model(tmp_path / name, tensors, "bfloat16")
    asked = recipe(tmp_path, "ties", 2, density=0.5)

    def beginning(tile, calls, pieces, step):
        return original(dataclasses.replace(tile, stop=tile.start + pieces * step), calls, pieces, step)

    original = on_llvm.read_sample
    monkeypatch.setattr(on_llvm, "read_sample", beginning)
    result = merge(asked, tmp_path / "misled", cache=False)
    assert reads[0] == 3 * result.bytes_read
    monkeypatch.setattr(on_llvm, "SAMPLED_FROM", 1 << 40)
    merge(asked, tmp_path / "full", cache=False)
    assert tree(tmp_path / "misled") == tree(tmp_path / "full")


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(64, 16 * SAMPLE // on_llvm.PIECES), (1, 1 << 21), (4, 1 << 19)],
    ids=["pieces a number of rows apart would show the same columns", "a vector", "few long rows"],
)
def test_pieces_of_a_sample_see_every_column(tmp_path, rows, columns):
    """Entries are the eighth of the row that they lie in."""
    values = np.tile(np.arange(columns) // (columns // 8), (rows, 1)).astype(np.float32)
    write_model(tmp_path / "m", {"w": values}, "float32")
    kernel = reduce_kernel(_itself, Operands(None, (FLOAT32,), False), {}, "kth")
    seen = np.zeros((1, BINS), np.int64)
    selection = dataclasses.replace(Selector(np.dtype(np.float32), 1).selection(SAMPLE), histograms=seen)
    step = SAMPLE // on_llvm.PIECES
    call = kernel.bind().call(SAMPLE, 0, None, step, step, selection)
    source = open_checkpoint(tmp_path / "m").tensors["w"]
    job = SimpleNamespace(inputs=(source,), columns=columns, output=SimpleNamespace(numel=values.size))
    assert read_sample(Tile(job, 0, values.size), [call], on_llvm.PIECES, step)
    found = {float(np.uint32(index << 15).view(np.float32)) for index in np.flatnonzero(seen[0])}
    assert found == {1, 2, 3, 4, 5, 6, 7}


def _itself(xp, base, weights):
    return weights
