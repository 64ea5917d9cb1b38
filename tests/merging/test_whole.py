"""Methods that see a tensor in one piece, in its own shape."""

import numpy as np
import pytest

from rlmerge import merge_state_dicts, methods
from rlmerge.errors import RequestError
from rlmerge.merging import make_plan, run
from rlmerge.methods import Method, Parameter
from rlmerge.options import Options
from rlmerge.recipe import recipe_from_flags
from support.examples import fine_tunes
from support.interpret import interpret
from support.models import read_model, write_model


def leading_part(xp, base, tau, *, rank, weight, uniform):
    """Base plus the leading singular directions of the weighted sum, and nothing of the draws."""
    total = (weight * tau).sum(0) + 0 * uniform[0]
    if total.ndim < 2:
        return base + total
    left, sizes, right = np.linalg.svd(total, full_matrices=False)
    keep = int(rank)
    return base + (left[..., :keep] * sizes[..., None, :keep]) @ right[..., :keep, :]


LEADING = Method(
    "leading_part",
    leading_part,
    "Leading singular directions of the summed changes.",
    "none",
    "exact",
    (Parameter("rank", 2.0, "How many."), Parameter("weight", 1.0, "Weight.", per="expert")),
    whole=True,
)
SHAPES = {"matrix": (300, 260), "vector": (70_001,), "number": (), "empty": (0, 3), "cube": (3, 4, 5)}


@pytest.fixture
def models(monkeypatch, tmp_path):
    methods.names()
    monkeypatch.setattr(methods, "_registry", {**methods._registry, "leading_part": LEADING})
    found = {name: fine_tunes(3, 2, shape) for name, shape in SHAPES.items()}
    base = {name: start for name, (start, _) in found.items()}
    experts = [{name: each[k] for name, (_, each) in found.items()} for k in range(2)]
    return base, experts


def merge(folder, models, **options):
    """Every tensor of a merge from bfloat16 files to float32 ones."""
    base, experts = models
    paths = [str(write_model(folder / f"e{k}", x, "bfloat16")) for k, x in enumerate(experts)]
    start = str(write_model(folder / "base", base, "bfloat16"))
    recipe = recipe_from_flags("leading_part", start, paths, {"weight": "1,0.5"}, out_dtype="float32")
    result = run(make_plan(recipe, folder / "out", Options(cache=False, **options)), folder / "out")
    return read_model(folder / "out"), result


def test_the_formula_sees_shapes_and_results_are_stored_whole(models, tmp_path):
    base, experts = models
    merged, result = merge(tmp_path, models)
    for name, shape in SHAPES.items():
        assert merged[name].shape == shape
        if 0 not in shape:
            expected = interpret(LEADING, base[name], [x[name] for x in experts], real=np.float32, weight=[1, 0.5])
            # The same LAPACK calls on the same numbers, up to its choice of threads.
            np.testing.assert_allclose(merged[name], expected, rtol=0, atol=1e-6)
    untouched = (experts[0]["matrix"] == base["matrix"]) & (experts[1]["matrix"] == base["matrix"])
    np.testing.assert_array_equal(merged["matrix"][untouched], base["matrix"][untouched])
    changed = sum(np.count_nonzero(experts[0][name] != base[name]) for name in SHAPES)
    assert result.experts[0].changed == changed


def test_state_dicts_merge_alike(models, tmp_path):
    base, experts = models
    merged, _ = merge(tmp_path, models)
    found = merge_state_dicts(base, experts, "leading_part", weight=[1, 0.5])
    for name in SHAPES:
        np.testing.assert_array_equal(found[name], merged[name])


def test_stochastic_rounding_does_not_depend_on_workers(models, tmp_path):
    base, experts = models
    options = {"weight": [1, 0.5], "rounding": "stochastic", "out_dtype": "float16"}
    once, again = (merge_state_dicts(base, experts, "leading_part", workers=n, **options) for n in (1, 2))
    for name in SHAPES:
        assert once[name].tobytes() == again[name].tobytes()


def test_a_tensor_too_large_for_the_budget_is_refused_before_anything_is_read(models, tmp_path):
    base, *experts = (str(write_model(tmp_path / name, {"w": np.zeros((1500, 1500))}, "bfloat16")) for name in "abc")
    with pytest.raises(RequestError, match=r"about \d+ MiB, but the budget is 32 MiB\n  Give --memory \d+MiB"):
        make_plan(recipe_from_flags("leading_part", base, experts), None, Options(memory=32 * 2**20))
