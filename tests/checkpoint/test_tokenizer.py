import json

import pytest

from rlmerge.checkpoint.chat import Templates
from rlmerge.checkpoint.token_table import AddedToken
from rlmerge.checkpoint.tokenizer import TokenizerReader, is_tokenizer_file
from rlmerge.errors import CheckpointError
from support.tokenizers import PLAIN, write_tokenizer


def read(folder):
    return TokenizerReader().read(folder.resolve())


def test_a_fast_tokenizer(tmp_path):
    write_tokenizer(tmp_path, ["a", "b"], ["<x>"], chat="{{ c }}", eos_token="<x>", pad_token={"content": "a"})
    found = read(tmp_path)
    assert found.file == tmp_path / "tokenizer.json"
    assert found.editable
    assert dict(found.table.ids) == {"a": 0, "b": 1, "<x>": 2}
    assert found.special == {"eos_token": "<x>", "pad_token": "a"}
    assert (found.id("eos_token"), found.id("pad_token"), found.id("bos_token")) == (2, 0, None)
    assert found.templates == Templates("{{ c }}")


def test_no_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert read(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert read(tmp_path) is None


def test_roles_come_from_the_configuration_and_else_from_the_map(tmp_path):
    write_tokenizer(tmp_path, ["a", "b", "c"], eos_token=None, bos_token="b", add_bos_token=True, add_eos_token=None)
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": "a", "unk_token": {"content": "c"}}')
    assert read(tmp_path).special == {"bos_token": "b", "unk_token": "c", "add_bos_token": True}


def test_tokens_that_the_configuration_lists_are_added(tmp_path):
    decoder = {"3": {"content": "<y>", **PLAIN}, "2": {"content": "<x>", "special": False, "lstrip": True}}
    write_tokenizer(tmp_path, ["a", "b"], added_tokens_decoder=decoder)
    table = read(tmp_path).table
    assert dict(table.ids) == {"a": 0, "b": 1, "<x>": 2, "<y>": 3}
    assert table.added["<x>"] == AddedToken("<x>", lstrip=True, normalized=True)
    assert [id for _, id in table.further] == [2, 3]


def test_equal_files_are_parsed_once(tmp_path):
    reader = TokenizerReader()
    tables = []
    for name in "abc":
        write_tokenizer(tmp_path / name, ["a", "b"] if name != "c" else ["a", "c"])
        tables.append(reader.read((tmp_path / name).resolve()).table)
    assert tables[0] is tables[1]
    assert tables[0] is not tables[2]


def test_a_vocabulary_and_merges(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    (tmp_path / "added_tokens.json").write_text('{"<x>": 2, "<y>": 3}')
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": {"3": {"content": "<y>", "special": True}}})
    )
    found = read(tmp_path)
    assert not found.editable
    assert dict(found.table.ids) == {"a": 0, "b": 1, "<x>": 2, "<y>": 3}
    assert found.table.added["<y>"].special
    digest = found.digest
    (tmp_path / "merges.txt").write_text("#version: 0.2\nb a\n")
    assert read(tmp_path).digest != digest


def test_one_token_a_line(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\nthe\n##e\n")
    assert dict(read(tmp_path).table.ids) == {"[PAD]": 0, "the": 1, "##e": 2}


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model", "qwen.tiktoken", "tekken.json", "source.spm"])
def test_formats_that_are_told_by_their_bytes(tmp_path, name):
    (tmp_path / name).write_bytes(b"\n\x07one")
    one = read(tmp_path)
    assert one.table is None
    assert not one.editable
    assert one.id("eos_token") is None
    assert read(tmp_path).digest == one.digest
    (tmp_path / "added_tokens.json").write_text('{"<x>": 7}')
    assert read(tmp_path).digest != one.digest
    (tmp_path / "added_tokens.json").unlink()
    (tmp_path / name).write_bytes(b"\n\x07two")
    assert read(tmp_path).digest != one.digest


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", "[]", "must hold a JSON object"),
        ("tokenizer_config.json", "{", "not valid JSON"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}', "must map ids to tokens"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"1": {"content": 1}}}', "must map ids to tokens"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"99999999999": {"content": "a"}}}', "must map ids"),
        ("added_tokens.json", '{"a": "b"}', "must map tokens to ids"),
        ("tokenizer.json", "<html>", "HTML page"),
        ("vocab.txt", b"\xff", "not UTF-8"),
        ("vocab.json", "[1]", "pairs of a token"),
        ("tokenizer.model", "version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def test_a_broken_map_of_special_tokens(tmp_path):
    write_tokenizer(tmp_path, ["a"])
    (tmp_path / "special_tokens_map.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match=r"special_tokens_map\.json: is a Git LFS pointer"):
        read(tmp_path)


def test_a_link_out_of_the_directory(tmp_path):
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="outside the model directory"):
        read(tmp_path / "model")


def test_which_files_go_with_a_tokenizer():
    files = [
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "merges.txt", "tokenizer.model", "tokenizer.model.v3", "spm.model", "qwen.tiktoken", "tekken.json",
        "chat_template.jinja", "chat_template.json", "additional_chat_templates/tool_use.jinja", "source.spm",
    ]  # fmt: skip
    assert all(is_tokenizer_file(name) for name in files)
    others = ["config.json", "generation_config.json", "preprocessor_config.json", "params.json", "LICENSE"]
    assert not any(is_tokenizer_file(name) for name in others)
