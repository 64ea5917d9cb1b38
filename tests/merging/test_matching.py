"""Whether the models of a recipe fit together, from their headers."""

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import RecipeError, RequestError
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
from rlmerge.merging.matching import pair_tensors, see, widest
from rlmerge.merging.opening import open_models
from rlmerge.recipe import load_recipe
from support.models import write_model

BASE = {"a": np.zeros((2, 3)), "b": np.zeros(3), "steps": np.arange(2)}


def pair(folder, *experts, base=BASE, dtypes=(), promote=True):
    write_model(folder / "base", base)
    for k, expert in enumerate(experts):
        write_model(folder / f"e{k}", expert, dtypes[k] if dtypes else "float32")
    first = open_checkpoint(folder / "base")
    others = [open_checkpoint(folder / f"e{k}") for k in range(len(experts))]
    seen = see([first, *others], lambda model: model.tensors, [])
    return pair_tensors(first, others, seen, promote=promote)


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


def test_mixed_element_types_are_widened_with_a_warning(tmp_path):
    pairs = pair(tmp_path, BASE, dtypes=["bfloat16"])
    assert set(pairs.matched) == set(BASE)
    assert pairs.warnings == [
        "models store 2 tensors ('a', 'b') as bfloat16 and float32; merged tensors get the widest of these types. "
        "Set out_dtype for another"
    ]
    assert pair(tmp_path, BASE, dtypes=["bfloat16"], promote=False).warnings == []


def test_the_widest_type_holds_all_values():
    assert widest([BFLOAT16, BFLOAT16]) is BFLOAT16
    assert widest([BFLOAT16, FLOAT16]) is FLOAT32
    assert widest([FLOAT16, FLOAT64]) is FLOAT64


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
    experts = open_models(load_recipe({"merge_method": "linear", "models": models})).experts
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
        open_models(recipe)


def test_what_no_expert_has_is_copied_from_the_base(tmp_path):
    base = BASE | {"mtp.fc.weight": np.ones((2, 2)), "model.layers.0.rotary_emb.inv_freq": np.ones(4)}
    pairs = pair(tmp_path, BASE, BASE, base=base)
    assert pairs.matched["mtp.fc.weight"][1] == ()
    assert pairs.matched["model.layers.0.rotary_emb.inv_freq"][1] == ()
    assert pairs.warnings == [f"no expert has 1 tensor ('mtp.fc.weight') of {tmp_path / 'base'}; copied from there"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_only_some_experts_lack_is_one_error_for_each_of_them(tmp_path, order):
    more = BASE | {f"mtp.{k}.weight": np.ones(2) for k in range(5)}
    models = [more, BASE]
    with pytest.raises(RecipeError) as caught:
        pair(tmp_path, *(models[k] for k in order), base=more)
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / f"e{order.index(1)}")
    assert problem.what.startswith("lacks 5 tensors ('mtp.0.weight', 'mtp.1.weight', 'mtp.2.weight' and 2 more)")


def test_experts_with_less_than_half_of_the_base_are_other_models(tmp_path):
    with pytest.raises(RecipeError, match=r"holds only 33% of the parameters of .*'b', 'c'"):
        pair(tmp_path, {"a": np.ones(4)}, base={name: np.ones(4) for name in "abc"})


def test_masks_that_differ_in_type_are_the_bases(tmp_path):
    mask = np.tril(np.ones((1, 1, 2, 2), int))
    pairs = pair(tmp_path, BASE | {"h.0.attn.bias": mask + 1}, base=BASE | {"h.0.attn.bias": mask})
    assert pairs.matched["h.0.attn.bias"][1] == ()
    assert pairs.warnings == []
