"""Mixtures as transformers loads them: equal experts are the dense model, and every expert is where it belongs."""

import json
from pathlib import Path

import numpy as np
import pytest

from rlmerge.checkpoint import verify
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.moe import assemble_moe
from support.models import read_model, write_model
from support.tokenizers import write_tokenizer

torch = pytest.importorskip("torch")
from rlmerge.language.load_check import check_load  # noqa: E402
from support.dense import WORDS, logits, make_dense  # noqa: E402


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(experts, **more):
    return {"base_model": "base", "gate_mode": "random", "experts": experts, **more}


def entry(model="base", **more):
    return {"source_model": model, **more}


SHARED = {"shared_experts": [entry(residual_scale=0)]}
TARGETS = {
    ("llama", None): {},
    ("mistral", None): {},
    ("qwen2", "qwen"): SHARED,
    ("qwen3", "qwen3"): {},
    ("llama", "deepseek"): SHARED,
    ("qwen2", "deepseek"): SHARED,
    ("qwen3", "deepseek"): {"shared_experts": [entry(residual_scale=0), entry(residual_scale=0)]},
}
CLASSES = {"qwen": "Qwen2MoeForCausalLM", "qwen3": "Qwen3MoeForCausalLM", "deepseek": "Glm4MoeForCausalLM"}


@pytest.mark.parametrize(("kind", "architecture"), TARGETS)
def test_equal_experts_are_the_dense_model(folder, kind, architecture):
    theta = {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
    make_dense(folder / "base", kind, **theta, **({"sliding_window": None} if kind == "mistral" else {}))
    more = TARGETS[kind, architecture] | ({"architecture": architecture} if architecture else {})
    result = assemble_moe(config([entry()] * 4, **more), "out")
    assert result.architecture == CLASSES.get(architecture, "MixtralForCausalLM")
    found = check_load(folder / "out")
    assert found.ok, found
    assert found.architecture == result.architecture
    assert verify(folder / "out").ok
    # float32 on both sides; weights of experts add up to 1 within a rounding or two
    torch.testing.assert_close(logits(folder / "out"), logits(folder / "base"), rtol=1e-4, atol=1e-5)


def test_defaults_that_differ_are_spelled_out(folder):
    """A configuration that leaves out what Llama and Mixtral take differently: theta, epsilon, heads, positions."""
    make_dense(folder / "base", num_key_value_heads=4, max_position_embeddings=2048)
    path = folder / "base" / "config.json"
    stated = json.loads(path.read_text())
    for key in ("rope_parameters", "rope_theta", "rms_norm_eps", "num_key_value_heads", "max_position_embeddings"):
        stated.pop(key, None)
    path.write_text(json.dumps(stated))
    assemble_moe(config([entry()] * 2), "out")
    written = json.loads((folder / "out" / "config.json").read_text())
    assert (written["rope_theta"], written["rms_norm_eps"], written["num_key_value_heads"]) == (10000.0, 1e-6, 4)
    assert written["max_position_embeddings"] == 2048
    torch.testing.assert_close(logits(folder / "out"), logits(folder / "base"), rtol=1e-4, atol=1e-5)


def test_a_sliding_window_stays(folder):
    make_dense(folder / "base", "mistral", sliding_window=2)
    assemble_moe(config([entry()] * 2), "out")
    torch.testing.assert_close(logits(folder / "out"), logits(folder / "base"), rtol=1e-4, atol=1e-5)
    with pytest.raises(CheckpointError, match=r"base: has a sliding window of 2; Glm4MoeForCausalLM has none"):
        assemble_moe(config([entry()] * 2, architecture="deepseek", **SHARED), "other")


def test_the_sliding_layers_of_qwen2_stay(folder):
    make_dense(folder / "base", "qwen2", use_sliding_window=True, sliding_window=2, max_window_layers=1)
    assemble_moe(config([entry()] * 2, **SHARED), "out")
    assert json.loads((folder / "out" / "config.json").read_text())["layer_types"] == [
        "full_attention",
        "sliding_attention",
    ]
    torch.testing.assert_close(logits(folder / "out"), logits(folder / "base"), rtol=1e-4, atol=1e-5)


def test_tied_embeddings_stay_tied(folder):
    make_dense(folder / "base", "qwen3", tie_word_embeddings=True)
    assemble_moe(config([entry()] * 2), "out")
    assert check_load(folder / "out").ok
    torch.testing.assert_close(logits(folder / "out"), logits(folder / "base"), rtol=1e-4, atol=1e-5)


def test_a_shared_expert_without_prompts_counts_half(folder):
    """Its gate is sigmoid(0): half of the dense MLP from the shared expert and half from scaled ones make the whole."""
    make_dense(folder / "base", "qwen2")
    assemble_moe(config([entry(residual_scale=0.5)] * 2, shared_experts=[entry()]), "out")
    assert not read_model(folder / "out")["model.layers.1.mlp.shared_expert_gate.weight"].any()
    torch.testing.assert_close(logits(folder / "out"), logits(folder / "base"), rtol=1e-4, atol=1e-5)


def test_shared_experts_side_by_side_add_up(folder):
    make_dense(folder / "base")
    shared = [entry(residual_scale=0.25), entry(residual_scale=0.5)]
    assemble_moe(config([entry(residual_scale=0.25)] * 2, architecture="deepseek", shared_experts=shared), "out")
    torch.testing.assert_close(logits(folder / "out"), logits(folder / "base"), rtol=1e-4, atol=1e-5)


def test_shared_experts_of_several_types(folder):
    make_dense(folder / "base", dtype="bfloat16")
    make_dense(folder / "half", seed=1, dtype="float16")
    make_dense(folder / "full", seed=2)
    shared = [entry(), entry("half"), entry("full"), entry(residual_scale=2)]
    asked = config([entry()] * 2, architecture="deepseek", shared_experts=shared)
    result = assemble_moe(asked, "out")
    assert [w for w in result.warnings if "weights of full are float32 and become bfloat16" in w] == [*result.warnings]
    base, half, full, out = (read_model(folder / name) for name in ("base", "half", "full", "out"))
    name = "model.layers.1.mlp.{}.weight"
    down = [x[name.format("down_proj")].astype(np.float32) for x in (base, half, full, base)]
    down[3] = down[3] * 2
    found = out[name.format("shared_experts.down_proj")]
    assert np.array_equal(found, np.concatenate(down, axis=1).astype(found.dtype))
    up = np.concatenate([x[name.format("up_proj")].astype(np.float32) for x in (base, half, full, base)])
    assert np.array_equal(out[name.format("shared_experts.up_proj")], up.astype(found.dtype))
    assert check_load(folder / "out").ok


def test_every_matrix_is_where_it_belongs(folder):
    make_dense(folder / "base", dtype="bfloat16")
    make_dense(folder / "one", seed=1, dtype="bfloat16")
    make_dense(folder / "two", seed=2, dtype="bfloat16")
    result = assemble_moe(config([entry("one"), entry("two", residual_scale=0.5)], experts_per_token=1), "out")
    base, one, two, out = (read_model(folder / name) for name in ("base", "one", "two", "out"))
    for layer in range(2):
        place = f"model.layers.{layer}"
        for theirs, ours in (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")):
            for index, (model, scale) in enumerate(((one, 1), (two, 0.5 if ours == "w2" else 1))):
                found = out[f"{place}.block_sparse_moe.experts.{index}.{ours}.weight"]
                # halves are exact
                expected = model[f"{place}.mlp.{theirs}.weight"].astype(np.float64) * scale
                assert np.array_equal(found.astype(np.float64), expected)
        kept = f"{place}.self_attn.q_proj.weight"
        assert np.array_equal(out[kept], base[kept])
        assert out[f"{place}.block_sparse_moe.gate.weight"].shape == (2, 16)
    assert {x.dtype.name for x in out.values()} == {"bfloat16"}
    assert not any(".mlp." in name for name in out)
    written = json.loads((folder / "out" / "config.json").read_text())
    assert (written["num_local_experts"], written["num_experts_per_tok"]) == (2, 1)
    assert (result.experts, result.bytes_written) == (
        ("one", "two"),
        (folder / "out" / "model.safetensors").stat().st_size,
    )
    card = (folder / "out" / "README.md").read_text()
    assert "A mixture of 2 experts on base" in card and "- one" in card


def test_dtype_shards_and_seeds(folder):
    make_dense(folder / "base")
    asked = config([entry(noise_scale=0.1), entry()], dtype="bf16")
    assemble_moe(asked, "out", seed=3)
    assemble_moe(asked, "again", seed=3, shard_size=4000)
    assemble_moe(asked, "other", seed=4)
    found, again, other = (read_model(folder / name) for name in ("out", "again", "other"))
    assert {x.dtype.name for x in found.values()} == {"bfloat16"}
    assert all(np.array_equal(found[name], again[name]) for name in found)
    assert len(list((folder / "again").glob("*.safetensors"))) > 1
    changed = {name for name in found if not np.array_equal(found[name], other[name])}
    assert {name.split("block_sparse_moe.")[-1] for name in changed} == {
        "gate.weight", "experts.0.w1.weight", "experts.0.w2.weight", "experts.0.w3.weight"
    }  # fmt: skip
    assert json.loads((folder / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert check_load(folder / "again").ok


def test_noise_has_its_scale(folder):
    make_dense(folder / "base", intermediate_size=512)
    assemble_moe(config([entry(noise_scale=0.5), entry()]), "out")
    out = read_model(folder / "out")
    place = "model.layers.0.block_sparse_moe.experts"
    noise = out[f"{place}.0.w1.weight"] - out[f"{place}.1.w1.weight"]
    # 8192 draws: the mean within 4 of its deviations, 0.5 / sqrt(8192); the deviation within 4 of 0.5 / sqrt(2 * 8192)
    assert abs(noise.mean()) < 4 * 0.5 / np.sqrt(8192)
    assert abs(noise.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * 8192)


PROMPTS = [entry(positive_prompts=["a b"]), entry(positive_prompts=["c", "d d"], negative_prompts=["e"])]


def test_cheap_embed_by_hand(folder):
    make_dense(folder / "base")
    assemble_moe(config(PROMPTS, gate_mode="cheap_embed"), "out")
    out, table = read_model(folder / "out"), read_model(folder / "base")["model.embed_tokens.weight"].astype(float)
    a, b, c, d, e = table[1:]
    rows = np.stack([(a + b) / 2, (c + d) / 2 - e])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for layer in range(2):
        # one rounding to float32
        np.testing.assert_allclose(out[f"model.layers.{layer}.block_sparse_moe.gate.weight"], rows, rtol=1e-6)


def test_hidden_states_of_prompts(folder):
    import transformers

    make_dense(folder / "base")
    assemble_moe(config(PROMPTS, gate_mode="hidden"), "out", device="cpu")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype="float64")

    def mean(*ids):
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        return torch.stack([state[0].mean(0) for state in states[:2]]).numpy()

    rows = np.stack([mean(1, 2), (mean(3) + mean(4, 4)) / 2 - mean(5)], axis=1)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    out = read_model(folder / "out")
    for layer in range(2):
        # states of a float32 model against those of a float64 one
        found = out[f"model.layers.{layer}.block_sparse_moe.gate.weight"]
        np.testing.assert_allclose(found, rows[layer], atol=1e-5)


def test_the_gate_of_a_shared_expert_from_prompts(folder):
    make_dense(folder / "base", "qwen2")
    shared = [entry(positive_prompts=["e"])]
    assemble_moe(config(PROMPTS, gate_mode="cheap_embed", shared_experts=shared), "out")
    row = read_model(folder / "base")["model.embed_tokens.weight"][5].astype(float)
    found = read_model(folder / "out")["model.layers.1.mlp.shared_expert_gate.weight"]
    np.testing.assert_allclose(found, [row / np.linalg.norm(row)], rtol=1e-6)


def refused(asked, match, error=RequestError):
    with pytest.raises(error, match=match):
        assemble_moe(asked, "out")
    assert not list(Path().glob("out*"))


def test_models_that_do_not_fit(folder):
    make_dense(folder / "base")
    make_dense(folder / "wide", intermediate_size=32)
    make_dense(folder / "deep", num_hidden_layers=3)
    make_dense(folder / "shallow", num_hidden_layers=1)
    make_dense(folder / "qwen", "qwen2")
    refused(
        config([entry(), entry("wide")]), r"wide: .*gate_proj.weight has shape \[32, 16\], and the base's \[24, 16\]"
    )
    refused(config([entry(), entry("deep")]), "deep: has more than the 2 layers of the base")
    refused(config([entry(), entry("shallow")]), r"shallow: tensor 'model.layers.1.mlp.down_proj.weight' is missing")
    refused(config([entry(), entry("qwen")]), "qwen: is of type 'qwen2', and the base of type 'llama'")
    refused(config([entry(), entry("nowhere")]), "no such directory")
    refused({**config([entry()] * 2), "base_model": "nowhere"}, "no such directory")


def test_vocabularies_that_do_not_fit(folder):
    make_dense(folder / "base")
    write_tokenizer(make_dense(folder / "moved"), [*WORDS[:4], "e", "d"])
    write_tokenizer(make_dense(folder / "more", vocab_size=7), WORDS, ["<new>"])
    refused(config([entry(), entry("moved")]), r"moved: gives the token .*d.* the id 5, and the base 4")
    result = assemble_moe(config([entry(), entry("more")]), "out")
    assert any("1 tokens of more are not in the mixture" in warning for warning in result.warnings)


def test_what_a_mixture_has_no_place_for(folder):
    make_dense(folder / "base", attention_bias=True)
    refused(config([entry()] * 2), "base: has biases in its attention; MixtralForCausalLM has none")
    make_dense(folder / "base", mlp_bias=True)
    refused(config([entry()] * 2), r"base: has tensor '.*mlp.*bias' \(6 in all\), for which Mixtral")


def test_architectures_and_counts(folder):
    make_dense(folder / "base")
    make_dense(folder / "qwen", "qwen2")
    refused(config([entry()] * 2, architecture="qwen3"), "architecture qwen3 is no mixture of 'llama' models")
    refused(config([entry()] * 2, architecture="mixtral", **SHARED), "MixtralForCausalLM has no shared expert, not 1")
    refused(config([entry()] * 2, architecture="deepseek"), "at least one shared expert, not 0")
    refused(config([entry()], **SHARED), "chooses from at least 2 experts, not 1")
    qwen = {**config([entry("qwen")] * 2), "base_model": "qwen"}
    refused(qwen, "Qwen2MoeForCausalLM has exactly one shared expert, not 0")
    refused({**qwen, "shared_experts": [entry("qwen")] * 2}, "exactly one shared expert, not 2")
    write_model(folder / "base", {"w": [1.0]}, config={"model_type": "gpt2", "num_hidden_layers": 1, "hidden_size": 1})
    refused(config([entry()] * 2), "no mixture of experts is known for models of type 'gpt2'")
    write_model(folder / "base", {"w": [1.0]}, config={})
    refused(config([entry()] * 2), "states no model_type")


def test_prompts_that_say_nothing(folder):
    make_dense(folder / "base")
    asked = config([*PROMPTS[:1], entry(positive_prompts=["a b"], negative_prompts=["b a"])], gate_mode="cheap_embed")
    refused(asked, r"experts\[1\]: positive and negative prompts of the expert have the same mean")
    (folder / "base" / "tokenizer.json").write_text("{}")
    refused(config(PROMPTS, gate_mode="cheap_embed"), "tokenizer")
    (folder / "base" / "tokenizer.json").unlink()
    refused(config(PROMPTS, gate_mode="cheap_embed"), "has no tokenizer.json to read the prompts with")


def test_hidden_states_need_a_base_that_runs_as_it_is(folder):
    """A training checkpoint of torch is read, but transformers would not find its files."""
    make_dense(folder / "base")
    tensors = {name: torch.from_numpy(x.copy()) for name, x in read_model(folder / "base").items()}
    torch.save(tensors, folder / "base" / "pytorch_model.bin")
    (folder / "base" / "model.safetensors").unlink()
    refused(config(PROMPTS, gate_mode="hidden"), "base: is .*, which transformers does not run as it is")
    assert assemble_moe(config(PROMPTS, gate_mode="cheap_embed"), "out").gate_mode == "cheap_embed"


def test_the_output_is_not_an_input(folder):
    make_dense(folder / "base")
    with pytest.raises(RequestError, match="an input of the merge"):
        assemble_moe(config([entry()] * 2), "base", force=True)
