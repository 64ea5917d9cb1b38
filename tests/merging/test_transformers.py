"""What rlmerge writes, loaded by the library that people load it with."""

import pytest

import rlmerge
from rlmerge.checkpoint import open_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture
def models(tmp_path):
    """A tiny Llama and two models trained from it, as transformers saves them, tied and in two shards."""
    config = transformers.LlamaConfig(
        vocab_size=101,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=[1, 2],
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    base.save_pretrained(tmp_path / "base", max_shard_size="40kB")
    for k in range(2):
        with torch.no_grad():
            expert = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
            for weight in expert.parameters():
                weight += 0.02 * torch.randn_like(weight) * (torch.rand_like(weight) < 0.3)
        expert.save_pretrained(tmp_path / f"e{k}")
    return tmp_path


def load(folder, dtype=torch.bfloat16):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@pytest.mark.parametrize("out_dtype", ["bfloat16", "float32"])
def test_the_merged_directory_gives_the_logits_of_a_merge_by_hand(models, out_dtype):
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(models / "base"),
        "models": [{"model": str(models / "e0")}, {"model": str(models / "e1"), "parameters": {"weight": 0.5}}],
    }
    rlmerge.merge(recipe, models / "out", out_dtype=out_dtype, shard_size=40_000)
    dtype = getattr(torch, out_dtype)
    merged = load(models / "out", dtype)
    base, one, two = (load(models / name).float().state_dict() for name in ("base", "e0", "e1"))
    by_hand = load(models / "base", dtype)
    with torch.no_grad():
        for name, weight in by_hand.named_parameters():
            b, x, y = base[name], one[name], two[name]
            weight.copy_((b + ((x - b) + 0.5 * (y - b))).to(dtype))
        prompt = torch.arange(20).reshape(2, 10)
        assert torch.equal(merged(prompt).logits, by_hand(prompt).logits)
    assert merged.config.eos_token_id == [1, 2]
    automatic = transformers.AutoModelForCausalLM.from_pretrained(models / "out", dtype="auto")
    assert automatic.dtype == dtype
    assert not any("lm_head" in name for name in open_checkpoint(models / "out").tensors)


def test_state_dicts_of_models(models):
    base, experts = load(models / "base"), [load(models / f"e{k}") for k in range(2)]
    merged = rlmerge.merge_state_dicts(base.state_dict(), [x.state_dict() for x in experts], "ties", density=0.5)
    base.load_state_dict(merged)
    recipe = {
        "merge_method": "ties",
        "base_model": str(models / "base"),
        "models": [{"model": str(models / f"e{k}")} for k in range(2)],
        "parameters": {"density": 0.5},
    }
    rlmerge.merge(recipe, models / "out")
    with torch.no_grad():
        prompt = torch.arange(10)[None]
        assert torch.equal(base(prompt).logits, load(models / "out")(prompt).logits)
