import json

import pytest

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.language.characters import decode, encode, read_encoder, read_vocabulary

VOCABULARY = {"_": 0, "$": 1, "a": 2, "b": 3}


def test_read_vocabulary(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"model": {"vocab": VOCABULARY}}))
    assert read_vocabulary(tmp_path) == VOCABULARY
    file.write_text(json.dumps({"model": {"vocab": {"the": 0}}}))
    with pytest.raises(CheckpointError, match="'the' is not a single character"):
        read_vocabulary(tmp_path)
    file.write_text("{}")
    with pytest.raises(CheckpointError, match="holds no vocabulary"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"[]", b'{"model": 3}', b'{"model": {"vocab": [["a", 0]]}}', b'{"model": {"vocab": {"a": "0"}}}', b"[" * 100_000],
)
def test_a_file_of_another_shape_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: holds no vocabulary"):
        read_vocabulary(tmp_path)


def test_an_id_beyond_the_embedding_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": VOCABULARY}}))
    assert read_vocabulary(tmp_path, 4) == VOCABULARY
    with pytest.raises(CheckpointError, match=r"the id 3 of token 'b' is not in the model's embedding of 3 rows"):
        read_vocabulary(tmp_path, 3)


def test_text_and_ids():
    assert encode("ab_", VOCABULARY) == [2, 3, 0] and decode([2, 3, 0, 9], VOCABULARY) == "ab_"
    with pytest.raises(RequestError, match="no token for 'z'"):
        encode("az", VOCABULARY)


def _write_words(folder, vocabulary, **end):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if end:
        words.add_special_tokens([tokenizers.AddedToken("$", **end)])
    words.save(str(folder / "tokenizer.json"))


def test_words_are_spelled_by_the_tokenizer_that_ends_answers_with_a_special_token(tmp_path):
    _write_words(tmp_path, {"<unk>": 0, "one": 1, "two": 2}, special=True)
    assert read_encoder(tmp_path)("two one$") == [2, 1, 3]
    assert read_encoder(tmp_path, 4)("one") == [1]
    with pytest.raises(CheckpointError, match=r"token '\$' is not in the model's embedding of 3 rows"):
        read_encoder(tmp_path, 3)


def test_a_dollar_sign_among_words_ends_no_answer(tmp_path):
    """A tokenizer of text has a token for it, which a model writes before prices."""
    _write_words(tmp_path, {"<unk>": 0, "one": 1, "$": 2})
    with pytest.raises(CheckpointError, match="is not a single character"):
        read_encoder(tmp_path)
