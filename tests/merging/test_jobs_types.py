"""Element types: what the output is stored as, and where precision is kept or lost."""

import ml_dtypes
import numpy as np
import pytest

from support.merges import config_of, localised, plan
from support.models import STORED, read_model, write_model

W, BIAS, EXTRA, STEPS = "model.layers.0.w", "model.layers.0.gate.e_score_correction_bias", "mtp.fc.weight", "steps"
ADD = "{merge_method: task_arithmetic, base_model: $/base, models: [$/expert]"
FINE = 1 + 2.0**-12
"""Representable in float32; 1 in bfloat16 and in float16."""


def write(folder, types, values=None):
    """One model; ``types`` by tensor name. Values are ``FINE``; STEPS are integers."""
    folder.mkdir()
    write_model(folder, {name: (values or {}).get(name, np.full((1, 2), FINE)) for name in types})
    store(folder, types)


def store(folder, types):
    """Rewrite a model's tensors in ``types``."""
    from safetensors import TensorSpec, serialize_file

    arrays = {name: np.ascontiguousarray(a.astype(STORED[types[name]][1])) for name, a in read_model(folder).items()}
    specs = {
        name: TensorSpec(dtype=types[name], shape=list(a.shape), data_ptr=a.ctypes.data, data_len=a.nbytes)
        for name, a in arrays.items()
    }
    serialize_file(specs, folder / "model.safetensors", {"format": "pt"})


def merged(folder, more="}", **options):
    import rlmerge

    result = rlmerge.merge(localised(folder, ADD + more), folder / "out", cache=False, **options)
    return read_model(folder / "out"), result


def types_of(tensors):
    return {name: str(tensor.dtype) for name, tensor in tensors.items()}


BF16, F16, F32 = "bfloat16", "float16", "float32"


@pytest.mark.parametrize(
    ("base", "expert", "stored"),
    [(BF16, BF16, BF16), (F16, F16, F16), (BF16, F16, F32), (BF16, F32, F32), (F32, F16, F32),
     (F32, "float64", "float64")],
)  # fmt: skip
def test_the_widest_type_with_a_warning(tmp_path, base, expert, stored):
    write(tmp_path / "base", {W: base})
    write(tmp_path / "expert", {W: expert})
    found = plan(tmp_path, ADD + "}")
    assert found.jobs[W].output.dtype.name == stored
    widened = [warning for warning in found.warnings if "merged tensors get the widest" in warning]
    assert len(widened) == (base != expert)
    if widened:
        assert f"models store 1 tensor ('{W}') as {' and '.join(sorted((base, expert)))}" in widened[0]


@pytest.mark.parametrize("more", [", dtype: bfloat16}", ", out_dtype: bfloat16}"])
def test_no_warning_where_the_recipe_names_a_type(tmp_path, more):
    write(tmp_path / "base", {W: BF16})
    write(tmp_path / "expert", {W: F32})
    found = plan(tmp_path, ADD + more)
    assert found.jobs[W].output.dtype.name == BF16
    assert not any("widest" in warning for warning in found.warnings)


def test_values_are_computed_from_what_is_stored_and_rounded_once(tmp_path):
    """Base 1 in bfloat16, expert 1 + 2⁻¹² in float32: that exactly, where the output can hold it."""
    write(tmp_path / "base", {W: BF16})
    write(tmp_path / "expert", {W: F32})
    assert merged(tmp_path)[0][W].tolist() == [[FINE, FINE]]


MIXED = {W: BF16, "model.norm.weight": BF16, BIAS: F32}


def mixed(folder, base, expert):
    """Models that store most of their weights in 16 bits."""
    for name, types in (("base", base), ("expert", expert)):
        write(folder / name, types, {"model.norm.weight": np.ones((8, 8))})


def test_what_all_models_keep_in_float32_stays_so_under_dtype(tmp_path):
    mixed(tmp_path, MIXED, MIXED)
    tensors, result = merged(tmp_path, ", dtype: bfloat16}")
    assert types_of(tensors) == MIXED
    assert tensors[BIAS].tolist() == [[FINE, FINE]]
    said = f"1 tensor ('{BIAS}') stay float32, as in every model; name out_dtype to narrow them"
    assert said in result.warnings


def test_out_dtype_narrows_them(tmp_path):
    mixed(tmp_path, MIXED, MIXED)
    tensors, _ = merged(tmp_path, ", out_dtype: bfloat16}")
    assert set(types_of(tensors).values()) == {BF16}
    assert tensors[BIAS].tolist() == [[1, 1]]


@pytest.mark.parametrize(("base", "expert"), [(F32, BF16), (BF16, F32)])
def test_what_one_model_stores_in_16_bits_is_narrowed_under_dtype(tmp_path, base, expert):
    mixed(tmp_path, MIXED | {BIAS: base}, MIXED | {BIAS: expert})
    assert merged(tmp_path, ", dtype: bfloat16}")[0][BIAS].dtype == ml_dtypes.bfloat16


def test_models_in_float32_throughout_are_narrowed_by_dtype(tmp_path):
    mixed(tmp_path, dict.fromkeys(MIXED, F32), dict.fromkeys(MIXED, F32))
    tensors, result = merged(tmp_path, ", dtype: bfloat16}")
    assert set(types_of(tensors).values()) == {BF16}
    assert not any("stay float32" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("more", "stored"),
    [("}", F32), (", dtype: bfloat16}", F32), (", out_dtype: bfloat16}", BF16), (", out_dtype: float16}", F16)],
)
def test_copies_from_the_base_in_the_outputs_type(tmp_path, more, stored):
    """The base keeps an extra tensor in float32: a copy is as the merge of it would be."""
    mixed(tmp_path, MIXED | {EXTRA: F32}, MIXED)
    tensors, result = merged(tmp_path, more)
    assert str(tensors[EXTRA].dtype) == stored
    assert tensors[EXTRA].astype(float).tolist() == [[FINE, FINE] if stored == F32 else [1, 1]]
    assert any(f"no expert has 1 tensor ('{EXTRA}')" in warning for warning in result.warnings)


@pytest.mark.parametrize("more", [", out_dtype: float32}", ", dtype: float32}"])
def test_copies_are_widened_too(tmp_path, more):
    mixed(tmp_path, MIXED | {EXTRA: BF16}, MIXED)
    tensors, _ = merged(tmp_path, more)
    assert set(types_of(tensors).values()) == {F32}
    assert config_of(tmp_path / "out").get("dtype", config_of(tmp_path / "out").get("torch_dtype")) == F32


@pytest.mark.parametrize("more", ["}", ", out_dtype: float32}", ", dtype: bfloat16}"])
def test_integers_stay_as_they_are(tmp_path, more):
    values = {STEPS: np.array([[2**40, 3]])}
    for name in ("base", "expert"):
        write(tmp_path / name, {W: BF16, STEPS: "int64"}, values)
    assert merged(tmp_path, more)[0][STEPS].tolist() == [[2**40, 3]]


def test_a_copy_of_the_base_keeps_nan_and_its_bits(tmp_path):
    """Nothing is computed where only the base holds a tensor and the type stays."""
    values = {EXTRA: np.array([[np.nan, -np.inf]])}
    write(tmp_path / "base", {W: BF16, EXTRA: BF16}, values)
    write(tmp_path / "expert", {W: BF16})
    tensors, _ = merged(tmp_path)
    stored = read_model(tmp_path / "base")[EXTRA]
    assert tensors[EXTRA].tobytes() == stored.tobytes()
