import json

import numpy as np
import pytest
from generate import Spec, generate, llama, moe, quantity
from safetensors import safe_open

RUNS = {"one": 4, "two": 4, "three": 5}
SHAPES = {"a.weight": (600, 512), "norm.weight": (96,)}


def tensors(directory):
    """Every tensor of a model directory as the safetensors library reads it, by name."""
    found = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as handle:
            found |= {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no iterator
    return found


def bits(directory):
    """The values of ``a.weight`` in a bfloat16 model directory, flat, as uint16 (the numpy reader has no bfloat16)."""
    raw = (directory / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    start, stop = json.loads(raw[8 : 8 + length])["a.weight"]["data_offsets"]
    return np.frombuffer(raw[8 + length :][start:stop], np.uint16)


def test_same_arguments_same_bytes_and_seeds_differ(tmp_path):
    for run, seed in RUNS.items():
        generate(tmp_path / run, SHAPES, {}, Spec(experts=2, seed=seed))
    for model in ("base", "expert-0", "expert-1"):
        one, two, three = ((tmp_path / run / model / "model.safetensors").read_bytes() for run in RUNS)
        assert one == two
        assert one != three


def test_shares_of_changed_and_common_entries_are_those_asked_for(tmp_path):
    base, *experts = (bits(p) for p in generate(tmp_path, SHAPES, {}, Spec(changed=0.25, overlap=0.2)))
    changed = np.stack([expert != base for expert in experts])
    count = changed.sum(axis=0)
    # 307 200 draws: a share's standard deviation is below 0.001; 0.005 is over five of them.
    assert np.allclose(changed.mean(axis=1), 0.25, atol=0.005)
    assert np.isclose((count == 3).mean(), 0.25 * 0.2, atol=0.005)
    assert not (count == 2).any()


def test_independent_experts_overlap_by_chance(tmp_path):
    base, *experts = (bits(p) for p in generate(tmp_path, SHAPES, {}, Spec(experts=2, changed=0.3)))
    both = (experts[0] != base) & (experts[1] != base)
    assert np.isclose(both.mean(), 0.09, atol=0.005)


def test_rl_experts_move_by_one_to_four_steps_both_ways(tmp_path):
    base, expert = (bits(p).astype(int) for p in generate(tmp_path, SHAPES, {}, Spec(experts=1, changed=1.0)))
    assert set(np.unique(expert - base)) == {-4, -3, -2, -1, 1, 2, 3, 4}
    assert ((expert ^ base) & 0x8000 == 0).all()


def test_float32_experts_move_by_bfloat16_steps(tmp_path):
    base, expert = (tensors(p)["a.weight"] for p in generate(tmp_path, SHAPES, {}, Spec(1, "float32", changed=1.0)))
    steps = (expert.view(np.uint32).astype(np.int64) - base.view(np.uint32)) / 2**16
    assert set(np.unique(steps)) == {-4, -3, -2, -1, 1, 2, 3, 4}


def test_sft_experts_change_densely_by_a_twentieth_of_the_scale(tmp_path):
    spec = Spec(1, "float32", changed=0.9, kind="sft")
    base, expert = (tensors(p)["a.weight"].ravel() for p in generate(tmp_path, SHAPES, {}, spec))
    moved = expert != base
    assert np.isclose(moved.mean(), 0.9, atol=0.005)
    assert np.isclose((expert - base)[moved].std() / base.std(), 0.05, rtol=0.02)


def test_shards_and_index_hold_every_tensor_once(tmp_path):
    path = generate(tmp_path, SHAPES, {"model_type": "llama"}, Spec(1, "float16", shard=600_000))[1]
    index = json.loads((path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {
        "a.weight": "model-00001-of-00002.safetensors",
        "norm.weight": "model-00002-of-00002.safetensors",
    }
    assert index["metadata"]["total_size"] == 2 * (600 * 512 + 96)
    assert {name: (t.shape, t.dtype) for name, t in tensors(path).items()} == {
        name: (shape, np.float16) for name, shape in SHAPES.items()
    }
    assert json.loads((path / "config.json").read_text()) == {"model_type": "llama", "torch_dtype": "float16"}


@pytest.mark.parametrize("asked", [25_000_000, 500_000_000, 1_240_000_000, 8_030_000_000])
def test_llama_models_have_about_the_size_asked_for(asked):
    shapes, config = llama(asked)
    assert sum(np.prod(shape) for shape in shapes.values()) == pytest.approx(asked, rel=0.05)
    assert ("lm_head.weight" in shapes) != config["tie_word_embeddings"]


@pytest.mark.parametrize("each", [4_000_000, 1_000_000, 60_000])
def test_mixtures_of_experts_have_about_the_matrices_asked_for(each):
    shapes, config = moe(250_000_000, each)
    experts = {name: np.prod(shape) for name, shape in shapes.items() if ".mlp.experts." in name}
    assert all(size == pytest.approx(each, rel=0.05) for size in experts.values())
    assert sum(experts.values()) == pytest.approx(250_000_000, rel=0.15)
    assert len(experts) == 3 * config["num_experts"] * config["num_hidden_layers"]
    assert shapes["model.layers.0.mlp.gate.weight"] == (config["num_experts"], config["hidden_size"])


def test_contradictory_shares_are_refused():
    with pytest.raises(ValueError, match=r"cannot overlap less than 0\.750"):
        Spec(experts=3, changed=2 / 3, overlap=0.5)
    Spec(experts=3, changed=2 / 3, overlap=0.75)
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        Spec(changed=1.5)


def test_quantities():
    assert [quantity(text) for text in ("500M", "1.5b", "5G", "64k", "12")] == [500e6, 1.5e9, 5e9, 64e3, 12]
