"""Merges of adapters written as an adapter: what the full merge makes, and what cannot be written so."""

import json

import numpy as np
import pytest

import rlmerge
from rlmerge.checkpoint import open_checkpoint, verify
from rlmerge.errors import RequestError
from rlmerge.merging.as_adapter import merge_as_adapter
from rlmerge.options import Options
from rlmerge.recipe import load_recipe
from support.adapters import factors, values, write_adapter
from support.merges import localised
from support.models import read_model, write_model

Q = [f"model.layers.{i}.self_attn.q_proj" for i in range(3)]
W = [f"{module}.weight" for module in Q]
EMBED = "model.embed_tokens.weight"
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 3}

A = {"one": [[1, 0, 2]], "two": [[0, 1, -1]]}
B = {"one": [[1], [2]], "two": [[3], [0]]}
"""Rank 1, scale alpha / r = 2: the updates are 2 B A."""

DELTA = {"one": np.array([[2, 0, 4], [4, 0, 8]]), "two": np.array([[0, 6, -6], [0, 0, 0]])}


def f32(values):
    return np.asarray(values, np.float32)


@pytest.fixture
def folder(tmp_path):
    """A base of ones, two adapters of integers, and two of random factors."""
    write_model(tmp_path / "base", {EMBED: np.ones((4, 3)), **dict.fromkeys(W, np.ones((2, 3)))}, config=CONFIG)
    settings = {"r": 1, "lora_alpha": 2, "base_model_name_or_path": str(tmp_path / "base")}
    for name in ("one", "two"):
        pairs = [{f"{m}.lora_A.weight": f32(A[name]), f"{m}.lora_B.weight": f32(B[name])} for m in Q]
        write_adapter(tmp_path / name, pairs[0] | pairs[1] | pairs[2], **settings)
    for number, name in enumerate(("x", "y")):
        pairs = [factors(module, 2, 3, seed=3 * number + i) for i, module in enumerate(Q)]
        write_adapter(tmp_path / name, pairs[0] | pairs[1] | pairs[2], base_model_name_or_path=str(tmp_path / "base"))
    return tmp_path


def recipe(folder, models="$/one, $/two", method="task_arithmetic", more=""):
    return load_recipe(localised(folder, f"{{merge_method: {method}, base_model: $/base, models: [{models}]{more}}}"))


def applied(folder, asked, name="adapter", **options):
    """The weights of the base with the merged adapter, in float64."""
    merge_as_adapter(asked, folder / name, Options(**options))
    assert verify(folder / name).ok
    base = open_checkpoint(folder / "base")
    found = values(open_checkpoint(folder / name, base=base))
    return {tensor: value.astype(np.float64) for tensor, value in found.items()}


WEIGHTED = [
    ("{model: $/one, parameters: {weight: 0.5}}, {model: $/two, parameters: {weight: -1}}", "", (0.5, -1)),
    ("$/one, $/two", ", parameters: {weight: 1}", (1, 1)),
    ("$/one, $/two", ", parameters: {weight: 1, lambda: 0.5}", (0.5, 0.5)),
    ("$/one, $/two", ", parameters: {weight: 3, normalize: true}", (0.5, 0.5)),
    ("$/two", "", (0, 1)),
]


@pytest.mark.parametrize(("models", "more", "coefficients"), WEIGHTED)
def test_task_arithmetic_of_integers_is_exact(folder, models, more, coefficients):
    found = applied(folder, recipe(folder, models, more=more))
    expected = 1 + coefficients[0] * DELTA["one"] + coefficients[1] * DELTA["two"]
    assert [found[name].tolist() for name in W] == [expected.tolist()] * 3
    assert found[EMBED].tolist() == np.ones((4, 3)).tolist()


def test_linear_averages(folder):
    """(3 · (base + one) + 1 · (base + two)) / 4."""
    models = "{model: $/one, parameters: {weight: 3}}, {model: $/two, parameters: {weight: 1}}"
    found = applied(folder, recipe(folder, models, "linear"))
    assert found[W[0]].tolist() == (1 + 0.75 * DELTA["one"] + 0.25 * DELTA["two"]).tolist()


def test_weights_follow_layers_and_filters(folder):
    gradient = "{model: $/one, parameters: {weight: [0, 1]}}"
    found = applied(folder, recipe(folder, gradient))
    assert [found[name].tolist() for name in W] == [(1 + c * DELTA["one"]).tolist() for c in (0, 0.5, 1)]
    filtered = "{model: $/one, parameters: {weight: [{filter: layers.1, value: 2}, {value: 0}]}}"
    found = applied(folder, recipe(folder, filtered), "filtered")
    assert [found[name].tolist() for name in W] == [(1 + c * DELTA["one"]).tolist() for c in (0, 2, 0)]


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("task_arithmetic", ", parameters: {weight: 0.3, lambda: 1.7}"),
        ("task_arithmetic", ", parameters: {weight: [0.2, 1.1]}"),
        ("linear", ""),
        ("linear", ", parameters: {weight: 0.4}"),
    ],
    ids=["task_arithmetic", "gradient", "linear", "linear-with-base"],
)
def test_it_is_the_full_merge_in_float64(folder, method, more):
    """Factors and base are float32 numbers, so the full merge in float64 is exact but for 2⁻⁵² in its operations."""
    asked = recipe(folder, "$/x, $/y", method, more)
    rlmerge.merge(asked, folder / "full", dtype="float64", cache=False)
    full = read_model(folder / "full")
    found = applied(folder, asked)
    for name in W:
        # Coefficients scale one factor, rounded once to float32; the product then adds up to r · K = 4 terms of at
        # most 10 in float32: 6 roundings of 2⁻²⁴ each.
        np.testing.assert_allclose(found[name], full[name], rtol=0, atol=6 * 10 * 2.0**-24, err_msg=name)


def test_a_lower_rank_is_the_best_approximation(folder):
    """Both updates joined have rank 2; the best of rank 1 leaves the second singular value."""
    result = merge_as_adapter(recipe(folder), folder / "low", Options(), rank=1)
    assert json.loads((folder / "low" / "adapter_config.json").read_text())["r"] == 1
    base = open_checkpoint(folder / "base")
    update = values(open_checkpoint(folder / "low", base=base))[W[0]] - 1.0
    left = np.linalg.svd(DELTA["one"] + DELTA["two"], compute_uv=False)[1]
    error = np.linalg.norm(update - DELTA["one"] - DELTA["two"])
    # float32 factors of numbers up to 14.
    assert error == pytest.approx(left, abs=1e-5)
    assert result.residual > 0


@pytest.mark.parametrize(
    ("models", "method", "more", "message"),
    [
        ("$/one, $/two", "ties", "", "'ties' is not a weighted sum of updates, so it has no adapter\n  Use task_"),
        ("$/one, $/two", "dare_linear", ", parameters: {density: 0.5}", "'dare_linear' is not a weighted sum"),
        ("$/one, $/base2", "task_arithmetic", "", "base2"),
        ("{model: $/one, parameters: {weight: 1}}, {model: $/two, parameters: {weight: 1}}", "linear",
         ", parameters: {normalize: false}", "weights that add up to 2 scale the base too"),
        ("{model: $/one, parameters: {weight: 1}}, {model: $/two, parameters: {weight: -1}}", "task_arithmetic",
         ", parameters: {normalize: true}", "the weights add up to 0"),
    ],
    ids=["ties", "dare", "no adapter", "sum", "zero"],
)  # fmt: skip
def test_what_has_no_adapter(folder, models, method, more, message):
    write_model(folder / "base2", {EMBED: np.ones((4, 3)), **dict.fromkeys(W, np.full((2, 3), 2.0))}, config=CONFIG)
    before = sorted(folder.rglob("*"))
    with pytest.raises(RequestError, match=message):
        merge_as_adapter(recipe(folder, models, method, more), folder / "out", Options())
    assert sorted(folder.rglob("*")) == before


def test_slices_and_missing_bases(folder):
    text = "{merge_method: linear, models: [$/one, $/two]}"
    with pytest.raises(RequestError, match="an adapter needs the base it belongs to\n  Give the recipe a base_model"):
        merge_as_adapter(load_recipe(localised(folder, text)), folder / "out", Options())
    source = "{model: $/one, layer_range: [0, 2]}"
    base = "{model: $/base, layer_range: [0, 2]}"
    slices = ", ".join([f"{{sources: [{source}, {base}]}}"] * 2)
    text = f"{{merge_method: task_arithmetic, base_model: $/base, slices: [{slices}]}}"
    with pytest.raises(RequestError, match="slices and modules cannot be written as an adapter"):
        merge_as_adapter(load_recipe(localised(folder, text)), folder / "out", Options())


def test_types_and_the_output_directory(folder):
    merge_as_adapter(recipe(folder), folder / "out", Options(out_dtype="bfloat16"))
    assert {str(x.dtype) for x in read_model(folder / "out").values()} == {"bfloat16"}
    with pytest.raises(RequestError, match="exists"):
        merge_as_adapter(recipe(folder), folder / "out", Options())
    merge_as_adapter(recipe(folder), folder / "out", Options(force=True))
    assert {str(x.dtype) for x in read_model(folder / "out").values()} == {"float32"}


def test_full_weights_of_16_bits_are_said_to_lose_what_an_adapter_would_keep(folder):
    said = "rounding adapters to bfloat16 takes back most of a small update"
    found = rlmerge.plan(recipe(folder), out_dtype="bfloat16").warnings
    assert [warning.startswith(said) for warning in found if "--as adapter" in warning] == [True]
    assert not any(said in warning for warning in rlmerge.plan(recipe(folder)).warnings)
    assert not any(
        said in warning for warning in rlmerge.plan(recipe(folder, method="ties"), out_dtype="bfloat16").warnings
    )
