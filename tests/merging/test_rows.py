"""Functions of whole rows: whatever the tiles, every row is seen whole and every number arrives where it belongs."""

import numpy as np
import pytest

from rlmerge import methods
from rlmerge.checkpoint import ArraySource, OutputTensor
from rlmerge.kernels.dtypes import FLOAT64
from rlmerge.kernels.random import stream_key, uniform
from rlmerge.merging import Job, make_plan, run
from rlmerge.merging.backend import bind
from rlmerge.merging.on_numpy import NumpyReducer
from rlmerge.merging.tiles import Tile
from rlmerge.methods import Method, Parameter, Statistic
from rlmerge.options import Options
from rlmerge.recipe import recipe_from_flags
from support.examples import fine_tunes
from support.interpret import interpret
from support.models import read_model, write_model

SEED = 7


def test_numbers_experts_rows_and_draws_line_up_with_rows():
    seen = {}

    def function(xp, base, tau, *, one, each, row, uniform):
        seen.update(one=one, each=each, row=row, uniform=uniform, base=base, tau=tau)
        return tau.sum(-1)

    experts = np.arange(24.0).reshape(2, 12)
    base = ArraySource("w", FLOAT64, np.zeros((5, 4)), "base")
    sources = tuple(ArraySource("w", FLOAT64, np.zeros((5, 4)), f"e{k}") for k in range(2))
    method = Method("m", function, "", "", "exact", space="weights")
    values = {"one": 2.0, "each": np.array([5.0, 6.0]), "row": np.arange(10.0).reshape(2, 5), "experts": 2.0}
    job = Job(OutputTensor("w", FLOAT64, (5, 4)), method, base, sources, (0, 1), values)
    binding = bind(method, function, job, values, Options(seed=SEED))
    tile = Tile(job, 8, 20, block=20)
    found, bad = NumpyReducer(binding).rows(tile, [np.zeros(12), *experts])
    np.testing.assert_array_equal(found, [[6, 22, 38], [54, 70, 86]])
    assert not bad
    assert seen["base"].shape == (3, 4)
    assert seen["one"] == 2.0
    assert seen["each"].shape == (2, 1, 1)
    np.testing.assert_array_equal(seen["row"][:, :, 0], [[2, 3, 4], [7, 8, 9]])  # rows 2 to 4 of five
    np.testing.assert_array_equal(
        seen["uniform"][1].ravel(), uniform(stream_key(SEED, "uniform", 1, "w"), 8, 12, np.float64)
    )


def shares(xp, base, tau, *, uniform, power):
    """The share of an entry in its row's summed magnitude, with some noise."""
    size = np.abs(tau) ** power
    return size / np.maximum(size.sum(-1, keepdims=True), 1e-30) + uniform


def noisy_lengths(xp, base, tau, *, uniform):
    return np.sqrt((uniform * tau * tau).sum(-1))


def by_share(xp, base, tau, *, field, mass, lengths):
    return base + xp.sum(xp.where(field > 0.3, tau, 0.0)) * mass[0] + lengths[0] * tau[0]


def summed(xp, base, tau, *, field):
    return xp.where(field > 0.3, xp.abs(tau), 0.0)


def counted(xp, base, tau, *, field):
    return np.sign(field) > 0  # NumPy on an array: this one cannot be traced


ROW_METHOD = Method(
    "by_share",
    by_share,
    "Keep what is large in its row.",
    "none",
    "exact",
    (Parameter("power", 1.0, "Power.", per="expert"),),
    statistics=lambda experts, **_: (
        (Statistic("mass", summed, "sum", uses=("power",)), Statistic("lengths", noisy_lengths, "rows")),
        (Statistic("positive", counted, "count", uses=("power",)),),
    ),
    rows_field=shares,
)


@pytest.fixture
def registry(monkeypatch):
    methods.names()
    monkeypatch.setattr(methods, "_registry", {**methods._registry, "by_share": ROW_METHOD})


@pytest.mark.parametrize("shape", [(300, 700), (3, 70_001), (150_000,), (70_000, 2)])
def test_fields_do_not_depend_on_tiles_and_workers(registry, tmp_path, shape):
    base, experts = fine_tunes(0, 2, shape)
    expected = interpret(ROW_METHOD, base, experts, real=np.float32, power=[1.0, 2.0])
    paths = [str(write_model(tmp_path / f"e{k}", {"w": x}, "bfloat16")) for k, x in enumerate(experts)]
    start = str(write_model(tmp_path / "base", {"w": base}, "bfloat16"))
    recipe = recipe_from_flags("by_share", start, paths, {"power": "1,2"}, out_dtype="float32")
    results = []
    for number, (memory, workers) in enumerate([(512, 1), (96, 2)]):
        out = tmp_path / f"out{number}"
        options = Options(cache=False, memory=memory * 2**20, workers=workers)
        results.append(run(make_plan(recipe, out, options), out))
        # The sum over all entries closes its blocks elsewhere than the reference; it scales changes below 2^-7.
        np.testing.assert_allclose(read_model(out)["w"], expected, rtol=0, atol=2.0**-7 * 2.0**-23)
    assert read_model(tmp_path / "out0")["w"].tobytes() == read_model(tmp_path / "out1")["w"].tobytes()
    assert results[0].experts == results[1].experts
