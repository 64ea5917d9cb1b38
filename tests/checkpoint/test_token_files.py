import json

from rlmerge.checkpoint.chat import Templates
from rlmerge.checkpoint.token_files import edited_tokenizer
from rlmerge.checkpoint.token_table import AddedToken
from rlmerge.checkpoint.tokenizer import TokenizerReader
from support.tokenizers import write_tokenizer

NEW = [(AddedToken("<y>", special=True), 3)]


def read(folder):
    return TokenizerReader().read(folder.resolve())


def edit(folder, appended=(), templates=None, roles=None, fresh=False):
    names = [path.name for path in folder.iterdir()]
    files = edited_tokenizer(read(folder), appended, templates, roles or {}, names, fresh=fresh)
    return {name: json.loads(data) for name, data in files.items()}


def test_nothing_changes(tmp_path):
    write_tokenizer(tmp_path, ["a", "b"], ["<x>"])
    assert edit(tmp_path) == {}
    assert edit(tmp_path, fresh=True) == {}


def test_a_token_enters_all_files_that_list_added_tokens(tmp_path):
    decoder = {"2": {"content": "<x>", "special": True}}
    write_tokenizer(tmp_path, ["a", "b"], ["<x>"], added_tokens_decoder=decoder, eos_token="é")
    (tmp_path / "added_tokens.json").write_text('{"<x>": 2}')
    found = edit(tmp_path, NEW)
    assert [token["content"] for token in found["tokenizer.json"]["added_tokens"]] == ["<x>", "<y>"]
    assert found["added_tokens.json"] == {"<x>": 2, "<y>": 3}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    assert found["tokenizer_config.json"] == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {**decoder, "3": {"content": "<y>", **flags}},
        "eos_token": "é",
    }


def test_tokens_that_only_the_configuration_had_come_first(tmp_path):
    write_tokenizer(tmp_path, ["a", "b"], added_tokens_decoder={"2": {"content": "<x>", "special": True}})
    found = edit(tmp_path, NEW)["tokenizer.json"]["added_tokens"]
    assert [(token["content"], token["id"]) for token in found] == [("<x>", 2), ("<y>", 3)]


def test_a_template_in_the_configuration_gives_way(tmp_path):
    write_tokenizer(tmp_path, ["a"], chat_template="old", eos_token="a")
    assert edit(tmp_path, templates=Templates("new")) == {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "a"}
    }


def test_a_role_is_set_where_roles_are_listed(tmp_path):
    write_tokenizer(tmp_path, ["a"], eos_token="a")
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "a"}')
    assert edit(tmp_path, roles={"pad_token": "a"}) == {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "a", "pad_token": "a"},
        "special_tokens_map.json": {"eos_token": "a", "pad_token": "a"},
    }


def test_a_tokenizer_without_tokenizer_json(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    assert edit(tmp_path, NEW, Templates("x"), {"pad_token": "a"}, fresh=True) == {}
