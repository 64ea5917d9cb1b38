"""Whether the models of a recipe fit together, from their headers."""

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import RecipeError, RequestError
from rlmerge.merging.matching import open_models, pair_tensors
from rlmerge.options import Options
from rlmerge.recipe import load_recipe
from support.models import write_model

BASE = {"a": np.zeros((2, 3)), "b": np.zeros(3), "steps": np.arange(2)}


def pair(folder, *experts, base=BASE, dtypes=(), recipe_dtype=None, **options):
    write_model(folder / "base", base)
    for k, expert in enumerate(experts):
        write_model(folder / f"e{k}", expert, dtypes[k] if dtypes else "float32")
    models = [{"model": str(folder / f"e{k}")} for k in range(len(experts))]
    recipe = load_recipe(
        {"merge_method": "ties", "base_model": str(folder / "base"), "models": models, "dtype": recipe_dtype}
    )
    opened = open_models(recipe)
    return pair_tensors(recipe, *opened, Options(**options))


def test_tensors_are_matched_by_name_in_the_order_of_the_base(tmp_path):
    pairs = pair(tmp_path, dict(reversed(BASE.items())), BASE)
    assert list(pairs.matched) == list(open_checkpoint(tmp_path / "base").tensors)
    for name, (base, experts) in pairs.matched.items():
        assert [info.name for info in (base, *experts)] == [name] * 3
        assert [info.file.path.parent.name for info in (base, *experts)] == ["base", "e0", "e1"]
    assert pairs.warnings == []


def test_all_mismatches_are_listed_and_many_are_counted(tmp_path):
    base = {f"w{index}": np.zeros(2) for index in range(9)}
    with pytest.raises(RecipeError) as caught:
        pair(tmp_path, {name: np.zeros(3) for name in base}, base=base)
    assert len(caught.value.problems) == 6
    assert caught.value.problems[-1].what == "and 4 more tensors that do not match"


@pytest.mark.parametrize("dtype", ["float32", None])
def test_mixed_element_types_need_a_dtype(tmp_path, dtype):
    if dtype:
        assert set(pair(tmp_path, BASE, dtypes=["bfloat16"], dtype=dtype).matched) == set(BASE)
        assert set(pair(tmp_path, BASE, dtypes=["bfloat16"], recipe_dtype=dtype).matched) == set(BASE)
    else:
        with pytest.raises(RecipeError, match=r"stored as bfloat16, but .* stores float32"):
            pair(tmp_path, BASE, dtypes=["bfloat16"])


def test_integers_where_floats_should_be(tmp_path):
    with pytest.raises(RecipeError, match="a: stored as int64, not float32\n  Convert quantised models"):
        pair(tmp_path, BASE | {"a": np.zeros((2, 3), int)})


def test_every_model_that_cannot_be_opened_is_named(tmp_path):
    write_model(tmp_path / "base", BASE)
    models = [{"model": str(tmp_path / name)} for name in ("one", "two", "one")]
    recipe = load_recipe({"merge_method": "ties", "base_model": str(tmp_path / "base"), "models": models})
    with pytest.raises(RecipeError) as caught:
        open_models(recipe)
    assert [problem.where for problem in caught.value.problems] == [str(tmp_path / "one"), str(tmp_path / "two")]


def test_a_model_named_twice_is_opened_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "base", BASE)
    models = [{"model": "base"}, {"model": str(tmp_path / "base")}, {"model": "./base"}]
    _, experts = open_models(load_recipe({"merge_method": "linear", "models": models}))
    assert len(experts) == 3
    assert len({id(expert) for expert in experts}) == 1


def test_packed_floats_are_refused(tmp_path):
    from safetensors import TensorSpec, serialize_file

    data = np.zeros(4, np.uint8)
    for name in ("base", "e0"):
        write_model(tmp_path / name, BASE)
        spec = TensorSpec(dtype="float8_e4m3fn", shape=[4], data_ptr=data.ctypes.data, data_len=4)
        serialize_file({"w": spec}, tmp_path / name / "model.safetensors", {"format": "pt"})
    recipe = load_recipe(
        {"merge_method": "ties", "base_model": str(tmp_path / "base"), "models": [{"model": str(tmp_path / "e0")}]}
    )
    with pytest.raises(RequestError, match="w: has no scales: w_scale_inv is missing"):
        pair_tensors(recipe, *open_models(recipe), Options())
