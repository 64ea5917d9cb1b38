"""One model, copied or scaled."""

import numpy as np
import pytest

import rlmerge
from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from support.examples import fine_tunes
from support.models import read_model, write_model


def test_a_model_passes_unchanged():
    weights, _ = fine_tunes(0, 1, (5, 7))
    assert merge_state_dicts(None, [{"w": weights}], "passthrough")["w"].tobytes() == weights.tobytes()


def test_tensors_are_scaled_where_a_filter_says_so(tmp_path):
    model = write_model(tmp_path / "m", {"mlp.weight": [1.0, 2.0], "attn.weight": [3.0, -4.0]}, "bfloat16")
    recipe = {
        "merge_method": "passthrough",
        "models": [
            {"model": str(model), "parameters": {"scale": [{"filter": "mlp", "value": 0.5}, {"value": 1.0}]}},
        ],
    }
    rlmerge.merge(recipe, tmp_path / "out")
    found = read_model(tmp_path / "out")
    np.testing.assert_array_equal(found["mlp.weight"].astype(float), [0.5, 1.0])
    np.testing.assert_array_equal(found["attn.weight"].astype(float), [3, -4])


def test_two_models_cannot_pass_through():
    with pytest.raises(RequestError, match="1"):
        merge_state_dicts(None, [{"w": np.ones(2, np.float32)}] * 2, "passthrough")
