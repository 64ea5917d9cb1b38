import pickle
from pathlib import Path

import pytest

from rlmerge.checkpoint.side_files import find_side_files, left_behind, open_side_file
from rlmerge.errors import CheckpointError

WANTED = [
    "1_Pooling/config.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE-MODEL",
    "Llama_3_COMMUNITY_LICENSE.md",
    "NOTICE",
    "Notice.txt",
    "USE_POLICY.md",
    "added_tokens.json",
    "additional_chat_templates/tools.jinja",
    "bpe.codes",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "config_sentence_transformers.json",
    "configuration.json",
    "dict.txt",
    "dtypes.json",
    "generation_config.json",
    "ice_text.model",
    "lab_vocab.json",
    "merges.txt",
    "model_card.md",
    "modules.json",
    "normalizer.json",
    "params.json",
    "preprocessor_config.json",
    "processor_config.json",
    "qwen.tiktoken",
    "sentence_bert_config.json",
    "sentencepiece.bpe.model",
    "source.spm",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "target.spm",
    "tekken.json",
    "tiktoken.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.model.v3",
    "tokenizer_config.json",
    "unigram.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
]

UNWANTED = [
    "._tokenizer.json",
    "._config.json",
    ".gitattributes",
    "1_Pooling/model.safetensors",
    "1_Pooling/._config.json",
    "LICENSE.py",
    "README.md",
    "adapter_config.json",
    "fsdp_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "MANIFEST.json",
    "modeling_llama.py",
    "optimizer.pt",
    "pytorch_model.bin",
    "quantize_config.json",
    "tokenization_custom.py",
    "trainer_state.json",
    "training_args.bin",
    "vocab.pkl",
    "additional_chat_templates/run.py",
    "additional_chat_templates/._tools.jinja",
]


def test_exactly_the_files_a_model_needs(tmp_path):
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "1_Pooling").mkdir()
    for name in WANTED + UNWANTED:
        (tmp_path / name).write_bytes(b"\n\x07x")
    (tmp_path / "tokenizer_old.json").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_side_files(tmp_path)] == sorted(WANTED)


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


def test_what_is_left_behind_is_named_where_somebody_may_miss_it(tmp_path):
    for name in ("1_Pooling/model.safetensors", "speech_tokenizer/config.json", "checkpoint-500/config.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    for name in [*UNWANTED, *WANTED, "spk_dict.pt", "cal.json", "chat.txt", "run.log"]:
        if "/" not in name:
            (tmp_path / name).write_text("x")
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    copied = [path.relative_to(tmp_path).as_posix() for path in find_side_files(tmp_path)]
    expected = ["1_Pooling/model.safetensors", "LICENSE.py", "cal.json", "chat.txt", "speech_tokenizer/"]
    assert left_behind(tmp_path, copied) == [name for name in expected if name != "LICENSE.py"]


def test_a_file_is_opened_with_its_stamp(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    file = open_side_file(tmp_path / "tokenizer.json")
    assert (file.path, file.size) == (tmp_path / "tokenizer.json", 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "tokenizer.json",
            "version https://git-lfs.github.com/spec/v1\nsize 9\n",
            "Git LFS pointer of a file of 9 bytes",
        ),
        ("tokenizer.model", "version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("chat_template.jinja", "<!DOCTYPE html>", "HTML page"),
        ("preprocessor_config.json", "{", "not valid JSON"),
        ("special_tokens_map.json", "x", "not valid JSON"),
    ],
)
def test_a_file_that_would_not_load(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=f"{name}: .*{message}"):
        open_side_file(tmp_path / name)


def test_a_licence_may_be_a_page(tmp_path):
    (tmp_path / "LICENSE.html").write_text("<!DOCTYPE html>")
    assert open_side_file(tmp_path / "LICENSE.html").size == 15


def test_a_file_that_is_too_large(tmp_path):
    with (tmp_path / "tokenizer.model").open("wb") as handle:
        handle.truncate(2**30 + 1)
    with pytest.raises(CheckpointError, match="at most 1073741824 are copied"):
        open_side_file(tmp_path / "tokenizer.model")
