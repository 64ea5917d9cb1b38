"""Adapters opened as models: the logits of the live adapter for every layout, ties, warnings, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.formats.adapter import named_base
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32
from support.adapters import MADE, expected_logits, factors, logits, values, write_adapter
from support.models import write_model

REFUSED = {"llama/rows-and-head", "gpt-oss/square-only"}
LIVE = sorted(set(load_file(MADE / "logits.safetensors")) - REFUSED)
APART = {f"llama/{name}" for name in ("embed", "head", "embed-head-tied", "embed-head-dora", "save-embed", "save-both")}
APART |= {"llama/rows-head", "llama/rows-apart", "gpt2/conv1d-dora"}
"""Adapters of tied models that change only one of the two tables, or each by itself."""


def opened(name):
    base, _, adapter = name.partition("/")
    return open_checkpoint(MADE / base / adapter, base=open_checkpoint(MADE / base / "base"))


@pytest.mark.parametrize("name", LIVE)
def test_the_logits_are_those_of_the_live_adapter(name, tmp_path):
    checkpoint = opened(name)
    expected = expected_logits(name)
    found = logits(checkpoint, tmp_path / "merged")
    # Float32 sums of two layers in another order: 1e-6 to 5e-6 was seen, of logits up to 6.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    before = logits(open_checkpoint(MADE / name.partition("/")[0] / "base"), tmp_path / "base")
    assert np.abs(before - expected).max() > 0.5, "an adapter that changes nothing would pass"


@pytest.mark.parametrize("name", LIVE)
def test_tied_tables_are_stored_apart_exactly_where_the_adapter_trained_them_apart(name):
    checkpoint = opened(name)
    base = open_checkpoint(MADE / name.partition("/")[0] / "base")
    is_apart = name in APART
    assert (checkpoint.tensors.keys() - base.tensors.keys() == {"lm_head.weight"}) is is_apart
    assert (checkpoint.config["tie_word_embeddings"] is not base.config.get("tie_word_embeddings", True)) is is_apart
    assert [("stores lm_head.weight of its own" in warning) for warning in checkpoint.warnings] == [True] * is_apart


def test_values_are_float32_of_the_base_type():
    checkpoint = opened("llama/plain")
    changed = checkpoint.tensors["model.layers.0.self_attn.q_proj.weight"]
    assert (changed.dtype, changed.nominal, changed.shape) == (FLOAT32, BFLOAT16, (16, 16))
    assert checkpoint.tensors["model.norm.weight"].dtype is BFLOAT16
    assert checkpoint.format == "a LoRA adapter"
    assert checkpoint.side_root == MADE / "llama" / "base"
    assert {file.path.name for file in changed.files} == {"model.safetensors", "adapter_model.safetensors"}


def test_trained_norms_replace_the_base():
    checkpoint = opened("llama/save-norms")
    stored = load_file(MADE / "llama" / "save-norms" / "adapter_model.safetensors")
    norm = checkpoint.tensors["model.norm.weight"]
    assert (norm.dtype, norm.nominal) == (FLOAT32, BFLOAT16)
    assert norm.read().tobytes() == stored["base_model.model.model.norm.weight"].tobytes()


def test_rows_of_a_tied_pair_go_to_a_stored_head_too(tmp_path):
    """Some tied models store the head as well; with other rows than the embedding transformers would untie it."""
    source = open_checkpoint(MADE / "llama" / "base")
    arrays = values(source)
    base = write_model(tmp_path / "base", arrays | {"lm_head.weight": arrays["model.embed_tokens.weight"]})
    (base / "config.json").write_text(json.dumps(source.config))
    found = values(open_checkpoint(MADE / "llama" / "rows", base=open_checkpoint(base)))
    assert np.array_equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    assert not np.array_equal(found["lm_head.weight"], arrays["model.embed_tokens.weight"])


def test_a_base_is_needed():
    with pytest.raises(CheckpointError, match="a LoRA adapter, which needs the model it belongs to"):
        open_checkpoint(MADE / "llama" / "plain")
    assert named_base(MADE / "llama" / "plain", ["adapter_config.json"]) == "base"


Q = "model.layers.0.q"
BASE = {f"{Q}.weight": np.ones((4, 6)), f"{Q}.bias": np.ones(4), "model.norm.weight": np.ones(6)}


@pytest.fixture
def base(tmp_path):
    return open_checkpoint(write_model(tmp_path / "tiny", BASE))


@pytest.fixture
def adapter(tmp_path, base):
    """Open an adapter of ``tensors`` and settings on the base."""

    def call(tensors, **config):
        return open_checkpoint(write_adapter(tmp_path / "adapter", tensors, **config), base=base)

    return call


def test_by_hand(adapter):
    """W = 1 everywhere; 4/2 · [1 0; 0 1; 0 0; 1 1] · [[1 2 3 4 5 6], [10 20 …]] in rows of the sum."""
    a = np.array([[1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60]], np.float32)
    b = np.array([[1, 0], [0, 1], [0, 0], [1, 1]], np.float32)
    found = values(adapter({f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}))
    assert found[f"{Q}.weight"].tolist() == [
        [3, 5, 7, 9, 11, 13],
        [21, 41, 61, 81, 101, 121],
        [1, 1, 1, 1, 1, 1],
        [23, 45, 67, 89, 111, 133],
    ]
    assert found["model.norm.weight"].tolist() == [1] * 6


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("_A.", "_A.default.").replace("_B.", "_B.default."),
        lambda name: name.removeprefix("model."),
        lambda name: name.replace("model.layers", "model.language_model.layers"),
        lambda name: name.replace("model.layers.0", "_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module"),
    ],
    ids=["adapter name", "bare", "language model", "fsdp"],
)
def test_names_that_mean_the_same(adapter, rename):
    tensors = factors(Q, 4, 6)
    expected = values(adapter(tensors))
    found = values(adapter({rename(name): value for name, value in tensors.items()}))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_factors_of_sixteen_bits(tmp_path, base, adapter):
    tensors = factors(Q, 4, 6)
    halves = {name: value.astype(np.float16) for name, value in tensors.items()}
    widened = values(adapter({name: value.astype(np.float32) for name, value in halves.items()}))
    assert np.array_equal(values(adapter(halves))[f"{Q}.weight"], widened[f"{Q}.weight"])


def test_a_float64_base_is_computed_in_float64(tmp_path):
    base = open_checkpoint(write_model(tmp_path / "wide", {f"{Q}.weight": np.full((4, 6), 1 / 3)}, "float64"))
    tensors = factors(Q, 4, 6)
    found = open_checkpoint(write_adapter(tmp_path / "adapter", tensors), base=base).tensors[f"{Q}.weight"]
    a, b = (tensors[f"{Q}.lora_{side}.weight"].astype(np.float64) for side in "AB")
    assert found.dtype.name == "float64"
    # Two products and two sums of numbers below 10 round at 1e-16 each.
    np.testing.assert_allclose(found.read().reshape(4, 6), 1 / 3 + 2 * (b @ a), rtol=0, atol=1e-14)


def test_the_adapters_own_copy_of_a_layer_is_the_ground(adapter):
    tensors = factors(Q, 4, 6)
    plain = values(adapter(tensors))[f"{Q}.weight"]
    found = adapter(tensors | {f"{Q}.base_layer.weight": np.full((4, 6), 3, np.float32)})
    np.testing.assert_allclose(values(found)[f"{Q}.weight"], plain + 2, rtol=0, atol=1e-5)  # one rounding near 10


def test_a_table_saved_beside_its_factors_is_the_ground_too(adapter):
    """PEFT before 0.6 had no base_layer in its names."""
    tensors = factors(Q, 4, 6)
    first = values(adapter(tensors | {f"{Q}.base_layer.weight": np.full((4, 6), 3, np.float32)}))
    second = values(adapter(tensors | {f"{Q}.weight": np.full((4, 6), 3, np.float32)}))
    assert np.array_equal(first[f"{Q}.weight"], second[f"{Q}.weight"])


def test_another_base_is_a_warning(adapter, tmp_path):
    assert adapter(factors(Q, 4, 6), base_model_name_or_path="org/tiny").warnings == ()
    assert adapter(factors(Q, 4, 6), base_model_name_or_path=None).warnings == ()
    [warning] = adapter(factors(Q, 4, 6), base_model_name_or_path="org/other").warnings
    assert "was trained on org/other, and is applied to" in warning


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (factors("model.layers.1.q", 4, 6), {}, "which the base has not\n.*nearest name there is 'model.layers.0.q"),
        (factors(Q, 4, 5), {}, r"makes \[4, 5\] of model.layers.0.q.weight, which is \[4, 6\] in the base"),
        (factors(Q, 4, 5), {"base_model_name_or_path": "org/x"}, "It was trained on org/x"),
        (factors("other.thing", 4, 6), {}, "Was the adapter trained on another model"),
        ({}, {}, "holds no tensors"),
        ({f"{Q}.lora_A.weight": np.ones((2, 6), np.float32)}, {}, "has no counterpart"),
        (factors(Q, 4, 6) | {f"{Q}.lora_diag": np.ones(2, np.float32)}, {}, "has no meaning known here"),
        (factors(Q, 4, 6) | {f"{Q}.lora_magnitude_vector": np.ones(4, np.float32)}, {}, "use_dora is not set"),
        (factors(Q, 4, 6), {"use_dora": True}, "has no magnitude"),
        (
            factors(Q, 4, 6) | {f"{Q}.lora_magnitude_vector": np.ones(5, np.float32)},
            {"use_dora": True},
            "which is .4, 6. in the base",
        ),
        ({"model.norm.weight": np.ones(5, np.float32)}, {}, r"makes \[5\] of model.norm.weight"),
        ({"model.norm.weight": np.ones(6, np.int64)}, {}, "is int64, not a float type"),
        (
            {f"{Q}.lora_A.weight": np.ones((2, 6), np.float32), f"{Q}.lora_B.weight": np.ones((4, 3), np.float32)},
            {},
            "no factors of one product",
        ),
        (
            {f"{Q}.lora_A.weight": np.ones(12, np.float32), f"{Q}.lora_B.weight": np.ones((4, 2), np.float32)},
            {},
            "no factors of one product\n.*sharded",
        ),
        (factors(Q, 4, 6) | factors("layers.0.q", 4, 6), {}, "both change model.layers.0.q.weight"),
        (factors(Q, 4, 6) | {f"{Q}.lora_B.bias": np.ones(3, np.float32)}, {}, r"makes \[3\] of model.layers.0.q.bias"),
    ],
)
def test_what_does_not_fit_is_refused_with_one_error(adapter, tensors, config, message):
    with pytest.raises(CheckpointError, match="(?s)" + message):
        adapter(tensors, **config)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_the_files_do_not_decide_is_refused(name):
    message = {
        "llama/rows-and-head": "single rows of the embedding and an update of the head that is tied to it",
        "gpt-oss/square-only": "square matrices may lie either way round",
    }[name]
    with pytest.raises(CheckpointError, match=message):
        opened(name)


def test_experts_as_peft_before_0_20_wrote_them(tmp_path):
    """A [experts·r, out], B [in, r·experts], experts as [experts, out, in]: Δ[e]ᵀ = s Σ B[:, r, e] A[e, r]."""
    base = open_checkpoint(MADE / "mixtral" / "base")
    rng = np.random.default_rng(0)
    tensors, deltas = {}, {}
    for depth, (parameter, out, inner) in enumerate((("down_proj", 16, 24), ("gate_up_proj", 48, 16))):
        a, b = rng.standard_normal((3 * 2, out)), rng.standard_normal((inner, 2 * 3))
        module = "model.layers.0.mlp.experts" + depth * ".base_layer"
        tensors |= {f"{module}.lora_A.weight": a.astype(np.float32), f"{module}.lora_B.weight": b.astype(np.float32)}
        deltas[parameter] = 2 * np.einsum("ire,ero->eoi", b.reshape(inner, 2, 3), a.reshape(3, 2, out))
    targets = ["experts.gate_up_proj", "experts.down_proj"]
    adapter = write_adapter(tmp_path / "adapter", tensors, target_parameters=targets)
    found, before = values(open_checkpoint(adapter, base=base)), values(base)
    for expert in range(3):
        stem = f"model.layers.0.block_sparse_moe.experts.{expert}"
        gate_up = deltas["gate_up_proj"][expert]
        parts = {"w1": gate_up[:24], "w3": gate_up[24:], "w2": deltas["down_proj"][expert]}
        for name, delta in parts.items():
            expected = before[f"{stem}.{name}.weight"] + delta
            # Factors and sums in float32, of numbers up to 30.
            np.testing.assert_allclose(found[f"{stem}.{name}.weight"], expected, rtol=0, atol=2e-5)


def test_experts_of_another_size_are_refused():
    with pytest.raises(CheckpointError, match=r"fit none of model.layers.0.mlp.experts.down_proj"):
        open_checkpoint(MADE / "mixtral" / "fused", base=open_checkpoint(MADE / "gpt-oss" / "base"))


def test_experts_that_the_base_has_not_are_refused():
    with pytest.raises(CheckpointError, match=r"changes model.layers.0.mlp.experts.weight, which the base has not"):
        open_checkpoint(MADE / "gpt-oss" / "transposed", base=open_checkpoint(MADE / "llama" / "base"))


def test_experts_without_target_parameters_are_refused(tmp_path):
    folder = shutil.copytree(MADE / "mixtral" / "fused", tmp_path / "fused")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"target_parameters": None}))
    with pytest.raises(CheckpointError, match="which the base has not"):
        open_checkpoint(folder, base=open_checkpoint(MADE / "mixtral" / "base"))


def test_missing_files_are_named(tmp_path, base):
    folder = write_adapter(tmp_path / "adapter", factors(Q, 4, 6))
    (folder / "adapter_config.json").rename(folder / "kept.json")
    with pytest.raises(CheckpointError, match=r"holds adapter weights but no adapter_config.json"):
        open_checkpoint(folder, base=base)
    (folder / "kept.json").rename(folder / "adapter_config.json")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has adapter_config.json but no weights"):
        open_checkpoint(folder, base=base)


def test_pickled_weights_are_read_without_running_them(tmp_path):
    """As OpenRLHF leaves them: adapter_model.bin, and the configuration of the model beside it."""
    import torch

    source = MADE / "llama" / "plain"
    folder = shutil.copytree(source, tmp_path / "pickled")
    (folder / "adapter_model.safetensors").unlink()
    arrays = load_file(source / "adapter_model.safetensors")
    torch.save({name: torch.from_numpy(value) for name, value in arrays.items()}, folder / "adapter_model.bin")
    shutil.copy(MADE / "llama" / "base" / "config.json", folder)
    base = open_checkpoint(MADE / "llama" / "base")
    first, second = (values(open_checkpoint(place, base=base)) for place in (source, folder))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_pickle_that_would_run_something_is_refused(tmp_path, base):
    import torch

    class Hostile:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    folder = write_adapter(tmp_path / "adapter", factors(Q, 4, 6))
    (folder / "adapter_model.safetensors").unlink()
    torch.save({f"{Q}.lora_A.weight": Hostile()}, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError):
        open_checkpoint(folder, base=base)
    assert not (tmp_path / "ran").exists()


def test_an_integer_base_is_refused(tmp_path):
    base = open_checkpoint(write_model(tmp_path / "base", {f"{Q}.weight": np.ones((4, 6), np.int64)}))
    with pytest.raises(CheckpointError, match="is int64, which no adapter can change"):
        open_checkpoint(write_adapter(tmp_path / "adapter", factors(Q, 4, 6)), base=base)


def test_a_name_that_could_mean_two_tensors_is_refused(tmp_path):
    tensors = {f"{tower}.layers.0.q.weight": np.ones((4, 6)) for tower in ("language_model.model", "vision_model")}
    base = open_checkpoint(write_model(tmp_path / "base", tensors))
    adapter = write_adapter(tmp_path / "adapter", factors("model.layers.0.q", 4, 6))
    with pytest.raises(CheckpointError, match=r"could be language_model.model.layers.0.q.weight or vision_model"):
        open_checkpoint(adapter, base=base)


def test_a_bias_that_the_base_has_no_place_for_is_refused(tmp_path):
    base = open_checkpoint(write_model(tmp_path / "base", {f"{Q}.weight": np.ones((4, 6))}))
    tensors = factors(Q, 4, 6) | {f"{Q}.lora_B.bias": np.ones(4, np.float32)}
    with pytest.raises(CheckpointError, match=r"adds a bias \(lora_bias\) to model.layers.0.q, which has none"):
        open_checkpoint(write_adapter(tmp_path / "adapter", tensors), base=base)


@pytest.mark.parametrize("rows", [[1, 20], [1], [1, 2, 3]])
def test_rows_that_do_not_fit_are_refused(tmp_path, rows):
    base = open_checkpoint(MADE / "llama" / "base")
    tensors = {"model.embed_tokens.token_adapter.trainable_tokens_delta": np.ones((2, 16), np.float32)}
    adapter = write_adapter(tmp_path / "adapter", tensors, trainable_token_indices=rows)
    with pytest.raises(CheckpointError, match=r"makes \[2, 16\] of model.embed_tokens.weight, which is \[20, 16\]"):
        open_checkpoint(adapter, base=base)


def test_a_convolution_is_flattened(tmp_path):
    """A patch embedding: Δ[o, c, h, w] = 2 Σ_k B[o, k] A[k, c, h, w]."""
    rng = np.random.default_rng(0)
    weight, a, b = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((5, 3, 2, 2), (2, 3, 2, 2), (5, 2, 1, 1))
    )
    base = open_checkpoint(write_model(tmp_path / "base", {"visual.patch.proj.weight": weight}))
    tensors = {"model.visual.patch.proj.lora_A.weight": a, "model.visual.patch.proj.lora_B.weight": b}
    found = open_checkpoint(write_adapter(tmp_path / "adapter", tensors), base=base)
    expected = weight + 2 * np.einsum("ok,kchw->ochw", b[:, :, 0, 0].astype(np.float64), a)
    # Five float32 operations on numbers below 10.
    np.testing.assert_allclose(values(found)["visual.patch.proj.weight"], expected, rtol=0, atol=1e-5)


def test_an_adapter_that_is_saved_again_by_the_safetensors_library_reads_the_same(tmp_path):
    source = MADE / "llama" / "plain"
    folder = shutil.copytree(source, tmp_path / "again")
    save_file(load_file(source / "adapter_model.safetensors"), folder / "adapter_model.safetensors")
    base = open_checkpoint(MADE / "llama" / "base")
    first, second = (values(open_checkpoint(place, base=base)) for place in (source, folder))
    assert all(np.array_equal(first[name], second[name]) for name in first)
