"""Adapters extracted from full models: with the base they are the expert, but for what they say is lost."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from rlmerge.adapters import extract_lora
from rlmerge.adapters.differences import differences
from rlmerge.checkpoint import open_checkpoint, verify
from rlmerge.errors import CheckpointError, RequestError
from support.adapters import MADE, values
from support.models import write_model


@pytest.fixture
def expert(tmp_path):
    """The base of ``name`` with noise on tensors of which ``keep`` is false; its config is that of the base."""

    def make(name, keep=lambda tensor: False, extra=None, **config):
        base = open_checkpoint(MADE / name / "base")
        rng = np.random.default_rng(1)
        arrays = {
            tensor: value if keep(tensor) else value + 0.1 * rng.standard_normal(value.shape)
            for tensor, value in values(base).items()
        } | (extra or {})
        folder = write_model(tmp_path / "expert", arrays)
        (folder / "config.json").write_text(json.dumps(dict(base.config) | config))
        return base, open_checkpoint(folder)

    return make


def rebuilt(base, folder):
    return values(open_checkpoint(folder, base=base))


@pytest.mark.parametrize("whole_embeddings", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "mixtral", "olmoe"])
def test_a_full_rank_holds_the_expert(name, whole_embeddings, expert, tmp_path):
    base, full = expert(name)
    result = extract_lora(base, full, tmp_path / "out", rank=64, whole_embeddings=whole_embeddings)
    found, expected = rebuilt(base, tmp_path / "out"), values(full)
    if name in ("llama", "gpt2"):
        expected["lm_head.weight"] = expected.get("model.embed_tokens.weight", expected.get("transformer.wte.weight"))
    assert found.keys() == expected.keys()
    for tensor, value in expected.items():
        # The factors are rounded to float32, and their product and sum computed in it.
        np.testing.assert_allclose(found[tensor], value, rtol=0, atol=5e-6, err_msg=tensor)
    assert result.residual < 1e-7, "what float64 leaves of ‖Δ‖² − Σσ²"
    assert verify(tmp_path / "out").ok


def test_a_small_rank_loses_what_it_says(expert, tmp_path):
    base, full = expert("llama")
    result = extract_lora(base, full, tmp_path / "out", rank=3)
    tables = (rebuilt(base, tmp_path / "out"), values(full), values(base))
    found, expected, before = ({name: table.astype(np.float64) for name, table in one.items()} for one in tables)
    assert {module.rank for module in result.modules} == {3, None}
    for module in result.modules:
        name = f"{module.name}.weight" if module.rank else module.name
        if module.name == "lm_head":
            continue
        lost = np.square(found[name] - expected[name]).sum()
        # Float32 of the rebuilt weights against float64 of the loss.
        assert module.lost == pytest.approx(lost, rel=1e-4, abs=1e-9), name
        assert module.total == pytest.approx(np.square(expected[name] - before[name]).sum()), name
        assert module.residual == pytest.approx(np.sqrt(module.lost / module.total))
        if module.rank:
            best = np.linalg.svd(expected[name] - before[name], compute_uv=False)[3:]
            assert module.lost >= np.square(best).sum() * (1 - 1e-9)
            assert module.exact_rank == min(before[name].shape)
    assert 0.3 < result.residual < 0.9


def test_what_did_not_change_is_not_written(expert, tmp_path):
    base, full = expert("llama", keep=lambda name: "layers.1.mlp.up_proj" not in name)
    result = extract_lora(base, full, tmp_path / "out", rank=4)
    assert [module.name for module in result.modules] == ["model.layers.1.mlp.up_proj"]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["layers.1.mlp.up_proj"], "not the layer that did not change"
    assert config["modules_to_save"] is None


def test_a_tied_embedding_has_factors_for_both_tables(expert, tmp_path):
    base, full = expert("llama", keep=lambda name: "embed" not in name)
    extract_lora(base, full, tmp_path / "out", rank=16)
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    prefix = "base_model.model."
    assert np.array_equal(
        stored[f"{prefix}model.embed_tokens.lora_embedding_A"].T, stored[f"{prefix}lm_head.lora_B.weight"]
    )
    found = rebuilt(base, tmp_path / "out")
    assert np.array_equal(found["lm_head.weight"], found["model.embed_tokens.weight"])


def test_an_expert_whose_head_is_its_own(expert, tmp_path):
    head = np.random.default_rng(4).standard_normal((20, 16))
    base, full = expert(
        "llama", keep=lambda name: "q_proj" not in name, extra={"lm_head.weight": head}, tie_word_embeddings=False
    )
    extract_lora(base, full, tmp_path / "out", rank=16)
    found = rebuilt(base, tmp_path / "out")
    np.testing.assert_allclose(found["lm_head.weight"], head, rtol=0, atol=5e-6)  # float32 of factors and product
    assert np.array_equal(found["model.embed_tokens.weight"], values(base)["model.embed_tokens.weight"])


def test_biases_beside_factors_and_alone(expert, tmp_path):
    base, full = expert("qwen2", keep=lambda name: "q_proj" not in name and not name.endswith("v_proj.bias"))
    extract_lora(base, full, tmp_path / "out", rank=16)
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    layer = "base_model.model.model.layers.0.self_attn"
    assert {f"{layer}.q_proj.base_layer.bias", f"{layer}.v_proj.bias"} <= stored.keys()
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["bias"] == "all"


def test_one_changed_expert_brings_all_of_its_layer(expert, tmp_path):
    base, full = expert("mixtral", keep=lambda name: "layers.1.block_sparse_moe.experts.2.w1" not in name)
    result = extract_lora(base, full, tmp_path / "out", rank=4)
    assert len(result.modules) == 9
    exact = {module.name for module in result.modules if not module.total}
    assert len(exact) == 8 and "model.layers.1.block_sparse_moe.experts.2.w1" not in exact


def test_exclude_leaves_the_base_and_counts_as_lost(expert, tmp_path):
    base, full = expert("gpt-oss")
    with pytest.raises(RequestError, match="holds all experts of a layer"):
        extract_lora(base, full, tmp_path / "out", rank=64)
    result = extract_lora(base, full, tmp_path / "out", rank=64, exclude=["*.experts.*"])
    found, before = rebuilt(base, tmp_path / "out"), values(base)
    left = {module.name for module in result.modules if module.rank == 0}
    kinds = ("down_proj", "down_proj_bias", "gate_up_proj", "gate_up_proj_bias")
    experts = {f"model.layers.{layer}.mlp.experts.{kind}" for layer in (0, 1) for kind in kinds}
    assert left == experts | {f"model.layers.{layer}.self_attn.sinks" for layer in (0, 1)}
    assert all(np.array_equal(found[name], before[name]) for name in left)
    assert all(module.lost == module.total > 0 for module in result.modules if module.rank == 0)
    assert "model.layers.0.mlp.router.weight" in {module.name for module in result.modules if module.rank is None}
    [warning] = result.warnings
    assert "and 9 more as in the base" in warning


def test_a_dora_adapter_becomes_a_plain_one(tmp_path):
    base = open_checkpoint(MADE / "llama" / "base")
    dora = open_checkpoint(MADE / "llama" / "dora", base=base)
    result = extract_lora(base, dora, tmp_path / "out", rank=24)
    found, expected = rebuilt(base, tmp_path / "out"), values(dora)
    assert result.residual < 1e-7
    assert all(np.allclose(found[name], expected[name], rtol=0, atol=5e-6) for name in expected)


def test_bytes_do_not_depend_on_chunks_of_rows_up_to_rounding(expert, tmp_path, monkeypatch):
    base, full = expert("llama")
    extract_lora(base, full, tmp_path / "one", rank=4)
    monkeypatch.setattr("rlmerge.adapters.differences._CHUNK", 40)
    extract_lora(base, full, tmp_path / "two", rank=4)
    one, two = (rebuilt(base, tmp_path / name) for name in ("one", "two"))
    # Float64 sums over chunks differ in their last bits, so do the float32 results in theirs.
    assert all(np.allclose(one[name], two[name], rtol=0, atol=1e-6) for name in one)


def test_the_same_run_gives_the_same_bytes(expert, tmp_path):
    base, full = expert("llama")
    for name in ("one", "two"):
        extract_lora(base, full, tmp_path / name, rank=4)
    one, two = (tmp_path / name / "adapter_model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def refused(message, *arguments, kind=RequestError, **settings):
    with pytest.raises(kind, match=message):
        extract_lora(*arguments, **settings)


def test_what_cannot_be_an_adapter_is_refused(expert, tmp_path):
    base, full = expert("llama", keep=lambda name: True)
    refused("changes no matrix", base, full, tmp_path / "out")
    refused("at least 1", base, full, tmp_path / "out", rank=0)
    refused("tensors that the base has not", base, open_checkpoint(MADE / "gpt2" / "base"), tmp_path / "out")
    arrays = {name: value for name, value in values(base).items() if name != "model.norm.weight"}
    short = open_checkpoint(write_model(tmp_path / "short", arrays))
    refused("lacks tensor 'model.norm.weight'", base, short, tmp_path / "out")


def test_added_tokens_are_refused(tmp_path, expert):
    base, full = expert("llama", extra={"model.embed_tokens.weight": np.zeros((22, 16))})
    refused(r"is \[22, 16\], but \[20, 16\] in the base", base, full, tmp_path / "out")


def test_tensors_of_its_own_are_refused(tmp_path, expert):
    base, full = expert("llama", extra={"model.extra.weight": np.zeros((2, 2))})
    refused(r"has 1 tensors that the base has not, such as 'model.extra.weight'", base, full, tmp_path / "out")


def test_a_value_that_is_not_finite_is_an_error(tmp_path, expert):
    q = values(open_checkpoint(MADE / "llama" / "base"))["model.layers.0.self_attn.q_proj.weight"].copy()
    q[3, 3] = np.inf
    base, full = expert("llama", extra={"model.layers.0.self_attn.q_proj.weight": q})
    refused("not finite", base, full, tmp_path / "out", kind=CheckpointError)


def test_differences_are_the_tensors_that_changed(tmp_path):
    base = open_checkpoint(MADE / "llama" / "base")
    again = open_checkpoint(shutil.copytree(MADE / "llama" / "base", tmp_path / "copy"))
    assert differences(base, again) == []
    found = differences(base, open_checkpoint(MADE / "llama" / "plain", base=base))
    assert {pair.name.rpartition(".")[0].rpartition(".")[2] for pair in found} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
