"""Memory of merges in memory: nobody's is used again, and nobody else's is overwritten."""

import gc

import numpy as np

from rlmerge.merging.make import open_recipe
from rlmerge.options import Options
from rlmerge.progress import Quiet
from rlmerge.recipe import recipe_from_flags
from rlmerge.search.candidates import Maker, _Memory
from support.family import draw
from support.models import write_model


def test_memory_is_used_again_once_nobody_looks_at_it():
    pool = _Memory()
    first, second = pool.take(100), pool.take(100)
    assert first is not second
    address = first.ctypes.data
    view = first[10:12].view(np.uint16)
    view[:] = 7
    del first
    # A view keeps it in use, and the other is in use as well.
    third = pool.take(50)
    third[:] = 0
    assert view.tolist() == [7]
    del view
    again = pool.take(80)
    assert again.ctypes.data == address
    del again, second, third


def test_what_is_too_small_is_given_back_before_more_is_taken():
    pool = _Memory()
    pool.take(10)
    large = pool.take(1000)
    assert len(large) == 1000
    assert len(pool._held) == 1


def test_a_round_merges_into_the_memory_of_the_round_before(tmp_path):
    """Without waiting for a search for cyclic garbage; while a candidate is held, its weights stay as they are."""
    base, experts = draw(7, 2, {"w": (64, 48), "v": (48,)})
    names = [str(write_model(tmp_path / f"e{k}", expert, "bfloat16")) for k, expert in enumerate(experts)]
    at = str(write_model(tmp_path / "base", base, "bfloat16"))

    def recipe(weight):
        return recipe_from_flags("task_arithmetic", at, names, {"weight": weight})

    options = Options(workers=1, cache=False)
    maker = Maker(open_recipe(recipe(1.0), options), options, 2**20, tmp_path, True, Quiet(), sampled=True)
    gc.disable()
    try:
        first = maker.make({"a": recipe(0.5), "b": recipe(1.0)})
        held = first.pop("b")
        weights = {name: values.copy() for name, values in held.weights().items()}
        first["a"].discard()
        second = maker.make({"c": recipe(0.25), "d": recipe(0.75)})
        assert len(maker._memory._held) == 3
        assert all(np.array_equal(values, weights[name]) for name, values in held.weights().items())
        assert not np.array_equal(second["c"].weights()["w"], second["d"].weights()["w"])
    finally:
        gc.enable()
