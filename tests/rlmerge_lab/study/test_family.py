import json
import warnings

import ml_dtypes
import numpy as np
import pytest

import rlmerge
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32
from rlmerge.language.tiny import TinyConfig, load
from rlmerge_lab.study.candidates import candidates
from rlmerge_lab.study.family import Family, Merge
from support.laboratory import BASE, experts


@pytest.fixture(scope="module")
def family():
    return Family.read(BASE, experts())


def small(base, *experts, dtype=BFLOAT16):
    """A family of a few weights, for what looks at vectors alone."""
    config = TinyConfig(2, 1, 1, 1, 2, 2, 2, 1e-5, 1e4, True)
    vectors = np.array(experts, np.float32)
    return Family(config, dtype, np.array(base, np.float32), vectors, BASE, ())


def flat(state):
    return np.concatenate([np.asarray(array, np.float32).reshape(-1) for array in state.values()])


def test_models_are_read_end_to_end(family):
    names = list(family.config.shapes())
    model = load(BASE)
    assert np.array_equal(family.base, flat({name: model.weights[name] for name in names}))
    again = family.model(family.experts[1])
    assert all(np.array_equal(again.weights[name], load(experts()[1]).weights[name]) for name in names)
    assert family.dtype is BFLOAT16


def test_norms_by_hand():
    found = small([3.0, 4.0, 0.0], [3.0, 5.0, 1.0], [5.0, 4.0, 0.0])
    assert found.base_norm == 5.0
    assert found.sum_norm == pytest.approx(np.sqrt(4 + 1 + 1))
    assert found.change_norm(np.array([3.0, 4.0, 2.0], np.float32)) == 2.0
    assert found.changed.tolist() == [True, True, True]


def test_survival_by_hand():
    """Near 1 a step of bfloat16 is 1/128: half of one is rounded back to even. Unchanged coordinates never count."""
    step = 2**-7
    one, two = 1 + step, 1 + 2 * step
    found = small([1.0] * 5, [one, two, one, 1.0, 1.0], [1.0, 1.0, 1.0, one, 1.0])
    merge = Merge(np.array([step / 2, step, 0.0, step / 2 + 1e-4, 0.0]))
    stored = found.stored(merge)
    assert stored.tolist() == [1.0, one, 1.0, one, 1.0]
    assert found.survival(merge, stored) == {"survival": 2 / 4, "erased": 1 / 4}
    assert found.survival(merge, found.exact(merge)) == {"survival": 3 / 4, "erased": 0.0}


def test_a_merge_at_another_norm():
    merge = Merge(np.array([3.0, 0.0, -4.0]))
    assert merge.norm == 5.0
    assert merge.with_norm(2.5).delta.tolist() == [1.5, 0.0, -2.0]
    assert Merge(np.zeros(3)).with_norm(2.5).delta.tolist() == [0.0, 0.0, 0.0]


def test_a_base_in_float32_is_not_rounded():
    found = small([1.0, 2.0], [1.0, 2.5], dtype=FLOAT32)
    merge = Merge(np.array([1e-7, 0.25]))
    assert np.array_equal(found.stored(merge), found.exact(merge))


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("linear", {}),
        ("task_arithmetic", {"lambda": 0.7}),
        ("ties", {"density": 0.3}),
        ("dare_ties", {"density": 0.5}),
        ("ram_plus", {}),
        ("sar_merging", {}),
        ("scf_rkl", {}),
    ],
)
def test_merges_are_those_of_stored_bfloat16_bit_for_bit(family, method, parameters):
    names = list(family.config.shapes())
    states = []
    for path in (BASE, *experts()):
        weights = load(path).weights
        states.append({name: weights[name].astype(ml_dtypes.bfloat16) for name in names})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SAR-Merging says that it has no sensitivities
        expected = rlmerge.merge_state_dicts(states[0], states[1:], method, seed=5, **parameters)
    found = family.stored(family.merge(method, parameters, 5))
    assert np.array_equal(found, flat({name: expected[name] for name in names}))


@pytest.mark.parametrize(
    "label", ["task_arithmetic", "ties", "dare_linear", "della", "breadcrumbs_ties", "sar_merging"]
)
def test_a_scaled_change_is_the_one_of_lambda(family, label):
    """Up to the rounding of θ₀ + δ to float32, half a unit in the last place of weights below 4."""
    (candidate, *_), _ = candidates([label], 3, False)
    assert candidate.scale == "lambda"
    settings = candidate.parameters(0.5)
    scaled = family.merge(label, settings, 1).scaled(1.7)
    asked = family.merge(label, {**settings, "lambda": 1.7}, 1)
    assert np.abs(scaled.delta - asked.delta).max() < 2.7 * 2**-23
    assert np.count_nonzero(family.stored(scaled) != family.stored(asked)) < 1e-3 * len(family.base)


def test_a_merge_that_is_written_is_the_merge(family, tmp_path):
    merge = family.merge("task_arithmetic", {"lambda": 0.5}, 0)
    family.write(merge, tmp_path / "merged")
    back = load(tmp_path / "merged")
    assert np.array_equal(flat({name: back.weights[name] for name in family.config.shapes()}), family.stored(merge))
    assert rlmerge.verify(tmp_path / "merged").ok
    assert (tmp_path / "merged" / "tokenizer.json").read_bytes() == (BASE / "tokenizer.json").read_bytes()


def test_experts_of_another_shape(tmp_path):
    for file in ("model.safetensors", "tokenizer.json"):
        (tmp_path / file).write_bytes((BASE / file).read_bytes())
    config = json.loads((BASE / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(CheckpointError, match="of another shape"):
        Family.read(BASE, [tmp_path])
