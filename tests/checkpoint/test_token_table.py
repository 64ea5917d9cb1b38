"""tokenizer.json as the tokenizers library reads it, which is the judge here."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.checkpoint.token_table import AddedToken, edited, plain_table, read_table, shown
from rlmerge.errors import CheckpointError
from support.tokenizers import tokenizer_json

tokenizers = pytest.importorskip("tokenizers")


def encoded(content):
    return json.dumps(content, ensure_ascii=False, indent=2).encode()


def table_of(content, further=()):
    return read_table(encoded(content), "t.json", further)


def library(data):
    return tokenizers.Tokenizer.from_str(data.decode())


def test_tokens_and_added_tokens():
    table = table_of(tokenizer_json(["a", "b"], ["<x>", "<y>"]))
    assert dict(table.ids) == {"a": 0, "b": 1, "<x>": 2, "<y>": 3}
    assert table.added == {content: AddedToken(content, special=True) for content in ("<x>", "<y>")}
    assert (table.count, table.next_id, table.fault) == (4, 4, None)


def test_an_added_token_of_the_vocabulary_keeps_its_id():
    content = tokenizer_json(["a", "<x>"])
    content["added_tokens"] = [{"id": 1, "content": "<x>", "special": True, "lstrip": True}]
    table = table_of(content)
    assert dict(table.ids) == {"a": 0, "<x>": 1}
    assert table.added == {"<x>": AddedToken("<x>", special=True, lstrip=True)}
    assert table.fault is None


def test_a_unigram_model_lists_its_pieces():
    content = tokenizer_json(["a"])
    content["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁a", -1.5], ["▁b", -2.0]]}
    assert dict(table_of(content).ids) == {"<unk>": 0, "▁a": 1, "▁b": 2}


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ([(5, "<x>")], r"'<x>' is stated to be 5, but loads as 2"),
        ([(3, "<x>"), (2, "<y>")], r"'<x>' is stated to be 3, but loads as 2"),
        ([(2, "<x>"), (2, "<y>")], r"'<y>' is stated to be 2, but loads as 3"),
        ([(1, "<x>")], r"'<x>' is stated to be 1, but loads as 2"),
        ([(5, "b")], r"'b' is stated to be 5, but loads as 1"),
    ],
)
def test_ids_that_the_library_does_not_give(added, message):
    content = tokenizer_json(["a", "b"])
    content["added_tokens"] = [{"id": id, "content": text, "special": True} for id, text in added]
    table = table_of(content)
    assert message in table.fault


def test_a_gap_in_the_vocabulary_that_an_added_token_falls_into():
    content = tokenizer_json(["a", "b"])
    content["model"]["vocab"] = {"a": 0, "b": 2}
    content["added_tokens"] = [{"id": 2, "content": "<x>", "special": True}]
    assert table_of(content).fault == "its vocabulary has gaps below 2, so '<x>' loads with the id 2 there"


def test_one_id_with_two_tokens():
    content = tokenizer_json(["a", "b"])
    content["model"]["vocab"] = {"a": 0, "b": 0}
    assert table_of(content).fault == "the id 0 belongs to two tokens, 'a' and 'b'"


names = st.text(alphabet="abcd<>é🙂", min_size=1, max_size=3)


@given(st.dictionaries(names, st.integers(0, 12), min_size=1, max_size=6), st.lists(names, max_size=6), st.data())
def test_ids_are_those_of_the_library(vocabulary, added, data):
    if len(set(vocabulary.values())) < len(vocabulary):
        vocabulary = {token: index for index, token in enumerate(vocabulary)}
    content = tokenizer_json(["a"])
    content["model"] |= {"vocab": vocabulary, "unk_token": next(iter(vocabulary))}
    content["added_tokens"] = [
        {**AddedToken(text, special=True).flags(), "id": data.draw(st.integers(0, 20)), "content": text}
        for text in added
    ]
    table = table_of(content)
    assert table.ids == library(encoded(content)).get_vocab(with_added_tokens=True)
    further = edited(encoded(content), "t.json", table.places, [(AddedToken("nowhere yet"), table.next_id)], False)
    assert library(further).token_to_id("nowhere yet") == table.next_id


def test_rules_do_not_depend_on_how_a_version_spells_them():
    one, two = tokenizer_json(["a", "b", "ab"], ["<x>"]), tokenizer_json(["a", "b", "ab"])
    one["model"] = {"type": "BPE", "dropout": None, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
    two["model"] = {"type": "BPE", "fuse_unk": False, "vocab": {"ab": 2, "a": 0, "b": 1}, "merges": [["a", "b"]]}
    two |= {"truncation": {"max_length": 5}, "padding": {"pad_id": 0}, "version": "2.0"}
    assert table_of(one).rules == table_of(two).rules
    two["model"]["merges"] = [["b", "a"]]
    assert table_of(one).rules != table_of(two).rules


@pytest.mark.parametrize(
    "change", [{"normalizer": {"type": "NFC"}}, {"pre_tokenizer": None}, {"decoder": {"type": "Fuse"}}]
)
def test_rules_differ(change):
    assert table_of(tokenizer_json(["a"])).rules != table_of(tokenizer_json(["a"], **change)).rules


def test_scores_are_rules():
    content = tokenizer_json(["a"])
    content["model"] = {"type": "Unigram", "vocab": [["a", -1.0]]}
    before = table_of(content).rules
    content["model"]["vocab"] = [["a", -2.0]]
    assert table_of(content).rules != before


def test_tokens_that_only_the_configuration_lists():
    table = table_of(tokenizer_json(["a"], ["<x>"]), [(AddedToken("<y>"), 2), (AddedToken("<x>"), 1)])
    assert dict(table.ids) == {"a": 0, "<x>": 1, "<y>": 2}
    assert table.further == ((AddedToken("<y>"), 2),)


def test_an_edit_changes_the_added_tokens_and_no_other_byte():
    content = tokenizer_json(["a", "🙂é"], ["<x>", "]"])
    data = encoded(content)
    new = [(AddedToken("<y>", special=True, lstrip=True), 4), (AddedToken('"\n🙂\\'), 5)]
    changed = edited(data, "t.json", table_of(content).places, new, False)
    assert library(changed).get_vocab(with_added_tokens=True) == {
        "a": 0, "🙂é": 1, "<x>": 2, "]": 3, "<y>": 4, '"\n🙂\\': 5,
    }  # fmt: skip
    read = json.loads(changed)
    assert read["added_tokens"][-2:] == [
        {"id": 4, "content": "<y>", **AddedToken("", special=True, lstrip=True).flags()},
        {"id": 5, "content": '"\n🙂\\', **AddedToken("").flags()},
    ]
    start = data.index(b'"added_tokens"')
    assert changed.startswith(data[:start])
    rest = data[data.index(b"],", data.index(b'"]"')) :]
    assert changed.endswith(rest)
    assert read | {"added_tokens": 0} == content | {"added_tokens": 0}


@pytest.mark.parametrize("before", [b"[]", b"[ \n ]", b"null", None])
def test_the_first_added_token(before):
    data = encoded(tokenizer_json(["a"]))
    assert b'"added_tokens": []' in data
    data = data.replace(b'"added_tokens": [],', b"" if before is None else b'"added_tokens": ' + before + b",")
    table = read_table(data, "t.json")
    changed = edited(data, "t.json", table.places, [(AddedToken("<x>"), 1)], False)
    assert library(changed).get_vocab(with_added_tokens=True) == {"a": 0, "<x>": 1}


def test_nothing_to_add():
    data = encoded(tokenizer_json(["a"], ["<x>"]))
    assert edited(data, "t.json", read_table(data, "t.json").places, [], False) == data


def test_what_training_left_is_taken_out():
    content = tokenizer_json(["a"], ["<x>"]) | {"truncation": {"max_length": 3}, "padding": {"pad_id": 1}}
    data = encoded(content)
    places = read_table(data, "t.json").places
    assert edited(data, "t.json", places, [], False) == data
    changed = edited(data, "t.json", places, [(AddedToken("<y>"), 2)], True)
    assert json.loads(changed) | {"added_tokens": 0} == content | {
        "truncation": None,
        "padding": None,
        "added_tokens": 0,
    }
    assert [token["id"] for token in json.loads(changed)["added_tokens"]] == [1, 2]


def test_many_tokens_are_written_in_order():
    data = encoded(tokenizer_json(["a"]))
    new = [(AddedToken(f"t{i}"), 1 + i) for i in range(9000)]
    changed = json.loads(edited(data, "t.json", read_table(data, "t.json").places, new, False))
    assert [(t["content"], t["id"]) for t in changed["added_tokens"]] == [(f"t{i}", 1 + i) for i in range(9000)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must hold a JSON object"),
        (b"[]", "must hold a JSON object"),
        (b"{", "not valid JSON"),
        (b'{"model": {"vocab": {}}', "not valid JSON"),
        (b'{"model": {"vocab": {}},}', "not valid JSON"),
        (b'{"model" {"vocab": {}}}', "not valid JSON"),
        (b'{1: {"vocab": {}}}', "not valid JSON"),
        (b'{"model": {"vocab": {}}} x', "has more after its JSON object"),
        (b'{"model": {"vocab": {}}, "model": {"vocab": {}}}', "'model' appears twice"),
        (b"{}", r"has no model\.vocab"),
        (b'{"model": {}}', r"has no model\.vocab"),
        (b'{"model": []}', r"has no model\.vocab"),
        (b'{"model": {"vocab": 3}}', "must map tokens to ids"),
        (b'{"model": {"vocab": {"a": -1}}}', "'a' has the id '-1'"),
        (b'{"model": {"vocab": {"a": true}}}', "'a' has the id 'True'"),
        (b'{"model": {"vocab": {"a": 0.0}}}', r"'a' has the id '0\.0'"),
        (b'{"model": {"vocab": {"a": 4194304}}}', "'a' has the id '4194304'"),
        (b'{"model": {"vocab": {"a": 1' + b"0" * 5000 + b"}}}", "not valid JSON"),
        (b'{"model": {"vocab": [["a"]]}}', "pairs of a token and its score"),
        (b'{"model": {"vocab": [[1, 2]]}}', "pairs of a token and its score"),
        (b'{"model": {"vocab": {}}, "added_tokens": {"a": 1}}', "added_tokens must be a list"),
        (b'{"model": {"vocab": {}}, "added_tokens": ["a"]}', "has no content and id"),
        (b'{"model": {"vocab": {}}, "added_tokens": [{"content": "a", "id": "1"}]}', "has no content and id"),
        (b'{"model": {"vocab": {}}, "added_tokens": [{"content": 1, "id": 1}]}', "has no content and id"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b"\xff", r"not UTF-8 text \(byte 0\)"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 5\n", "Git LFS pointer of a file of 5 bytes"),
        (b"<!DOCTYPE html>", "HTML page"),
    ],
)
def test_what_is_no_tokenizer(data, message):
    with pytest.raises(CheckpointError, match=f"t.json: .*{message}"):
        read_table(data, "t.json")


def test_a_vocabulary_without_tokenizer_json():
    table = plain_table({"a": 0, "b": 1}, [(AddedToken("<x>"), 5), (AddedToken("a", special=True), 0)], "v.json")
    assert dict(table.ids) == {"a": 0, "b": 1, "<x>": 5}
    assert (table.count, table.next_id, table.fault) == (6, 6, None)
    assert "the id 0 belongs to two tokens" in plain_table({"a": 0}, [(AddedToken("<x>"), 0)], "v.json").fault


@pytest.mark.parametrize(
    ("token", "text"),
    [("a", "'a'"), ("a\nb", r"'a\nb'"), ("\ud800", r"'\ud800'"), ("é", "'é'"), ("x" * 50, f"'{'x' * 37}...'")],
)
def test_tokens_in_messages(token, text):
    assert shown(token) == text
