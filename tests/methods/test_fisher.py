"""Fisher-weighted averaging against numbers by hand and the formula in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import rlmerge
from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from rlmerge.kernels.jit import BLOCK
from rlmerge.merging import sizing
from support.examples import BASE, TAU, experts, fine_tunes
from support.interpret import interpret, warnings_of
from support.measured import fishers, write_measured
from support.models import read_model, write_model

sensitivities = arrays(np.float64, (3, 4, 4), elements=st.sampled_from([0.0, 1e-30, 1e-12, 1e-3, 1.0, 5.0]))
weights = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=3, max_size=3).filter(any)


def test_the_example_by_hand():
    fisher = np.zeros((3, 4, 4))
    fisher[:, 0, 0] = 1, 3, 0  # changes 4, -2, 0
    fisher[:, 2, 1] = 2, 1, 1  # changes 2, 4, -3
    fisher[:, 1, 1] = 0, 0, 7  # changes 0, 0, 6
    found = interpret("fisher", BASE, experts(BASE, TAU), sensitivity=fisher) - BASE
    assert (found[0, 0], found[2, 1], found[1, 1]) == (-2 / 4, (4 + 4 - 3) / 4, 6)
    assert found[1, 0] == pytest.approx((3 + 1) / 3)  # nobody is sensitive: the mean
    found = interpret("fisher", BASE, experts(BASE, TAU), sensitivity=fisher, weight=[3, 1, 1]) - BASE
    assert found[0, 0] == (3 * 4 - 3 * 2) / 6
    assert found[1, 0] == pytest.approx((3 * 3 + 1) / 5)


def test_sensitivities_below_the_floor_count_as_much():
    fisher = np.zeros((2, 1, 1))
    fisher[0] = 3.0
    merged = interpret("fisher", [[0.0]], [[[4.0]], [[8.0]]], sensitivity=fisher, floor=1.0)
    assert merged == (3 * 4 + 8) / 4


def test_normalize_takes_the_scale_of_an_experts_sensitivities_away():
    fisher = np.array([[[1.0, 3.0]], [[100.0, 300.0]]])
    merged = interpret("fisher", [[0.0, 0.0]], [[[4.0, 4.0]], [[8.0, 8.0]]], sensitivity=fisher, normalize=True)
    np.testing.assert_allclose(merged, [[6.0, 6.0]], rtol=1e-15)  # a quotient and a product


@given(sensitivities, weights, st.booleans())
def test_equals_the_formula(fisher, weight, with_base):
    theta = np.stack(experts(BASE, TAU))
    amount = fisher * np.reshape(weight, (3, 1, 1))
    amount = np.where(amount.sum(0) > 0, amount, np.reshape(weight, (3, 1, 1)))
    expected = (amount * theta).sum(0) / amount.sum(0)
    merged = interpret("fisher", BASE if with_base else None, theta, sensitivity=fisher, weight=weight)
    # Weights and changes are at most 14, and a dozen roundings enter.
    np.testing.assert_allclose(merged, np.where((TAU == 0).all(0), BASE, expected), rtol=0, atol=12 * 14 * 2.0**-53)


@given(sensitivities)
def test_equal_experts_stay_as_they_are_without_a_base(fisher):
    np.testing.assert_array_equal(interpret("fisher", None, [BASE + 0.1] * 3, sensitivity=fisher), BASE + 0.1)


def test_tiny_sensitivities_weigh_in_float32():
    # The products F·θ would be 0 in float32.
    merged = interpret("fisher", [0.0], [[1e-3], [2e-3]], real=np.float32, sensitivity=[[3e-44], [1e-44]])
    assert 1.2e-3 < merged[0] < 1.3e-3


def test_it_is_refused_without_sensitivities_and_without_weights():
    states = [{"w": np.ones(3, np.float32)}] * 2
    with pytest.raises(RequestError, match="'fisher' needs the sensitivity of every model here"):
        merge_state_dicts(None, states, "fisher")
    with pytest.raises(RequestError, match="'sensitivity' needs models in files, not in memory"):
        merge_state_dicts(None, states, "fisher", sensitivity=["a", "b"])
    with pytest.raises(AssertionError, match="all weights are 0"):
        interpret("fisher", None, [[1.0], [2.0]], sensitivity=[[1.0], [1.0]], weight=0.0)


SHAPES = {"a": (301, 513), "b": (777,), "scale": ()}
DRAWN = {name: fine_tunes(index, 3, shape) for index, (name, shape) in enumerate(SHAPES.items())}
MEASURED = fishers(7, 3, SHAPES)


@pytest.mark.parametrize("parameters", [{}, {"normalize": True, "floor": 1e-10, "weight": 0.5}], ids=str)
@pytest.mark.parametrize("with_base", [True, False])
def test_files_give_the_bits_of_the_formula(tmp_path, monkeypatch, parameters, with_base):
    base = write_model(tmp_path / "base", {name: x[0] for name, x in DRAWN.items()}, "bfloat16")
    models = []
    for k in range(3):
        model = write_model(tmp_path / f"e{k}", {name: x[1][k] for name, x in DRAWN.items()}, "bfloat16")
        models.append({"model": str(model), "sensitivity": str(write_measured(tmp_path / f"f{k}", model, MEASURED[k]))})
    recipe = {"merge_method": "fisher", "models": models, "parameters": parameters}
    recipe |= {"base_model": str(base)} if with_base else {}
    outs = []
    for number, (tile, workers) in enumerate([(1 << 20, 1), (BLOCK, 3)]):
        monkeypatch.setattr(sizing, "LARGEST_TILE", tile)
        result = rlmerge.merge(recipe, tmp_path / str(number), workers=workers, cache=False, out_dtype="float32")
        outs.append((result.out / "model.safetensors").read_bytes())
    assert outs[0] == outs[1]
    merged = read_model(tmp_path / "0")
    for name, (start, three) in DRAWN.items():
        sensitivity = [measured[name] for measured in MEASURED]
        options = {"real": np.float32, "sensitivity": sensitivity, **parameters}
        expected = interpret("fisher", start if with_base else None, three, **options)
        if "normalize" in parameters:  # the sum over the model is no tensor's own
            np.testing.assert_allclose(merged[name], expected, atol=0.02)
            assert (merged[name] != np.mean(three, axis=0)).any()
        else:
            np.testing.assert_array_equal(merged[name], expected)


def test_a_tensor_without_sensitivities_is_averaged_with_a_warning():
    assert interpret("fisher", [0.0], [[2.0], [4.0]]) == [3.0]
    assert warnings_of("fisher", [0.0], [[2.0], [4.0]]) == ["no sensitivity was measured here, so experts are averaged"]
