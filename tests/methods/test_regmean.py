"""RegMean against a case by hand, and against least squares on the inputs it stands for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlmerge
from rlmerge import merge_state_dicts
from rlmerge.errors import CheckpointError, RequestError
from support.examples import fine_tunes
from support.interpret import interpret
from support.measured import write_measured
from support.models import read_model, write_model


def regmean(weights, grams, **options):
    return interpret("regmean", None, weights, gram=grams, **options)


def drawn(seed, outputs=5, inputs=6, rows=40, count=3):
    """Layers W [outputs, inputs] and inputs X [rows, inputs] of unequal size in each column."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-3, 2, inputs)
    return rng.standard_normal((count, outputs, inputs)), rng.standard_normal((count, rows, inputs)) * scale


def products(x):
    return np.stack([each.T @ each for each in x])


def test_uncorrelated_inputs_by_hand():
    one, two = np.array([[1.0, 2], [3, 4]]), np.array([[5.0, 6], [7, 8]])
    # Each column is the mean weighted by what its input amounts to: 1 against 3, and 3 against 1.
    merged = regmean([one, two], [np.diag([1.0, 3]), np.diag([3.0, 1])])
    np.testing.assert_allclose(merged, [[(1 + 15) / 4, (6 + 6) / 4], [(3 + 21) / 4, (12 + 8) / 4]], rtol=1e-14)


def test_alpha_0_looks_at_the_diagonal_alone():
    weights, x = drawn(0)
    size = np.stack([np.diagonal(g) for g in products(x)])[:, None, :]
    expected = (size * weights).sum(0) / size.sum(0)
    np.testing.assert_allclose(regmean(weights, products(x), alpha=0.0), expected, rtol=1e-10)


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.5, 0.9]))
def test_equals_the_closed_form(seed, alpha):
    weights, x = drawn(seed)
    grams = products(x) * np.where(np.eye(6), 1.0, alpha)
    expected = sum(w @ g for w, g in zip(weights, grams, strict=True)) @ np.linalg.inv(grams.sum(0))
    # The inverse of a matrix whose columns differ by 10^10 in size loses about as many digits.
    np.testing.assert_allclose(regmean(weights, products(x), alpha=alpha), expected, rtol=1e-4, atol=1e-4)


def test_alpha_1_is_least_squares_on_all_inputs():
    weights, x = drawn(1)
    answers = np.concatenate([each @ w.T for w, each in zip(weights, x, strict=True)])
    expected = np.linalg.lstsq(np.concatenate(x), answers, rcond=None)[0].T
    np.testing.assert_allclose(regmean(weights, products(x), alpha=1.0), expected, rtol=1e-6, atol=1e-8)


def test_directions_without_input_take_the_mean():
    weights, x = drawn(2, rows=1)  # three directions of six are seen
    x[:, :, 0] = 0.0
    merged = regmean(weights, products(x), alpha=1.0)
    np.testing.assert_allclose(merged[:, 0], weights.mean(0)[:, 0], rtol=1e-12)
    answers = np.concatenate([each @ w.T for w, each in zip(weights, x, strict=True)])
    np.testing.assert_allclose(np.concatenate(x) @ merged.T, answers, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(regmean(weights, 0 * products(x)), weights.mean(0), rtol=1e-14)


def test_weights_count_as_more_inputs():
    weights, x = drawn(3, count=2)
    double = [np.concatenate([x[0], x[0]]), x[1]]
    merged = regmean(weights, [products(x)[0], products(x)[1]], weight=[2.0, 1.0])
    np.testing.assert_allclose(merged, regmean(weights, [d.T @ d for d in double]), rtol=1e-9)


@given(st.integers(0, 1000))
def test_equal_layers_stay_as_they_are(seed):
    weights, x = drawn(seed)
    np.testing.assert_array_equal(regmean([weights[0]] * 3, products(x)), weights[0])


def test_other_tensors_are_averaged_with_their_weights():
    assert interpret("regmean", None, [[2.0], [5.0]], weight=[2.0, 1.0]) == [3.0]


def test_lambda_goes_on_from_the_base():
    weights, x = drawn(5)
    base = np.random.default_rng(6).standard_normal(weights.shape[1:])
    plain = interpret("regmean", base, weights, gram=products(x))
    found = interpret("regmean", base, weights, gram=products(x), lam=1.5)
    np.testing.assert_allclose(found, base + 1.5 * (plain - base), rtol=1e-12)


def test_other_tensors_may_be_sums_of_changes():
    found = interpret("regmean", [1.0, 1.0], [[3.0, 1.0], [2.0, 0.5]], weight=[1.0, 2.0], others="sum", lam=0.5)
    assert found.tolist() == [1 + 0.5 * (2 + 2), 1 + 0.5 * (0 - 1)]


@pytest.mark.parametrize("given", [{"lambda": 2.0}, {"others": "sum"}])
def test_steps_from_the_base_need_one(family, given):
    recipe = family[0] | {"parameters": given}
    rlmerge.plan(recipe)
    del recipe["base_model"]
    with pytest.raises(RequestError, match="name a base_model"):
        rlmerge.plan(recipe)


@pytest.fixture
def family(tmp_path):
    """Two models of one layer and a norm, their measurements, and a recipe over them."""
    layer, norm = fine_tunes(0, 2, (33, 64)), fine_tunes(1, 2, (64,))
    write_model(tmp_path / "base", {"layer": layer[0], "norm": norm[0]}, "bfloat16")
    _, x = drawn(4, inputs=64, rows=100, count=2)
    models = []
    for k in range(2):
        model = write_model(tmp_path / f"e{k}", {"layer": layer[1][k], "norm": norm[1][k]}, "bfloat16")
        fisher = {"layer": np.ones((33, 64)), "norm": np.ones(64)}
        grams = {"layer": products(x)[k].astype(np.float32)}
        models.append({"model": str(model), "gram": str(write_measured(tmp_path / f"g{k}", model, fisher, grams))})
    recipe = {"merge_method": "regmean", "base_model": str(tmp_path / "base"), "models": models}
    return recipe, layer, norm, products(x).astype(np.float32)


def test_files_give_the_formula_whatever_the_threads(family, tmp_path):
    recipe, layer, norm, grams = family
    outs = [rlmerge.merge(recipe, tmp_path / str(n), workers=n, out_dtype="float32").out for n in (1, 3)]
    assert (outs[0] / "model.safetensors").read_bytes() == (outs[1] / "model.safetensors").read_bytes()
    merged = read_model(outs[0])
    expected = interpret("regmean", layer[0], layer[1], gram=list(grams), real=np.float32)
    np.testing.assert_array_equal(merged["layer"], expected)
    np.testing.assert_array_equal(merged["norm"], interpret("regmean", norm[0], norm[1], real=np.float32))
    assert (merged["layer"] != np.mean(layer[1], axis=0)).any()


def test_a_measurement_without_gram_matrices_is_refused(family, tmp_path):
    recipe = family[0]
    write_measured(tmp_path / "g1", tmp_path / "e1", {"layer": np.ones((33, 64)), "norm": np.ones(64)})
    with pytest.raises(CheckpointError, match="holds no gram of any tensor") as caught:
        rlmerge.plan(recipe)
    assert "rlmerge sensitivity --gram" in caught.value.hint


def test_a_gram_matrix_that_is_not_finite_is_refused(family, tmp_path):
    recipe, grams = family[0], family[3][0].copy()
    grams[3, 4] = np.nan
    fisher = {"layer": np.ones((33, 64)), "norm": np.ones(64)}
    write_measured(tmp_path / "g0", tmp_path / "e0", fisher, {"layer": grams})
    with pytest.raises(CheckpointError, match=r"layer\.gram: a Gram matrix is not finite"):
        rlmerge.merge(recipe, tmp_path / "out")


def test_it_is_refused_without_gram_matrices():
    with pytest.raises(RequestError, match="'regmean' needs the gram of every model here"):
        merge_state_dicts(None, [{"w": np.ones(3, np.float32)}] * 2, "regmean")
