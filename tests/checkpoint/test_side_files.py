import pickle
from pathlib import Path

import pytest

from rlmerge.checkpoint.side_files import find_side_files
from rlmerge.errors import CheckpointError

WANTED = [
    "added_tokens.json",
    "additional_chat_templates/tools.jinja",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "lab_vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "qwen.tiktoken",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
]

UNWANTED = [
    "README.md",
    "adapter_config.json",
    "fsdp_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "MANIFEST.json",
    "modeling_llama.py",
    "optimizer.pt",
    "pytorch_model.bin",
    "tokenization_custom.py",
    "trainer_state.json",
    "training_args.bin",
    "vocab.pkl",
    "additional_chat_templates/run.py",
]


def test_exactly_the_files_a_model_needs(tmp_path):
    (tmp_path / "additional_chat_templates").mkdir()
    for name in WANTED + UNWANTED:
        (tmp_path / name).write_bytes(b"\n\x07x")
    (tmp_path / "tokenizer_old.json").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_side_files(tmp_path)] == WANTED


@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"PK\x03\x04"])
def test_a_pickle_named_like_a_tokenizer_is_left_behind(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    assert find_side_files(tmp_path) == ()


@pytest.mark.parametrize("name", ["tokenizer.json", "additional_chat_templates/x.jinja"])
def test_a_link_to_elsewhere_is_not_copied_into_the_output(tmp_path, name):
    root = tmp_path / "model"
    (root / "additional_chat_templates").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (root / name).symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="outside the model directory"):
        find_side_files(root)


def test_a_template_folder_elsewhere(tmp_path):
    root = tmp_path / "model"
    root.mkdir()
    (tmp_path / "templates").mkdir()
    (root / "additional_chat_templates").symlink_to(tmp_path / "templates")
    with pytest.raises(CheckpointError, match="outside the model directory"):
        find_side_files(root)


def test_a_relative_directory(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_side_files(Path("model")) == (tmp_path / "model" / "config.json",)
