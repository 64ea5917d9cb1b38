import json

from rlmerge.checkpoint.config import (
    find,
    render,
    text_section,
    with_dtype,
    with_rows,
    with_tied,
    with_values,
)

TEXT = {"model_type": "qwen2", "vocab_size": 9, "eos_token_id": 1, "torch_dtype": "bfloat16"}
NESTED = {
    "model_type": "llava",
    "torch_dtype": "bfloat16",
    "text_config": {"vocab_size": 9, "eos_token_id": 1, "dtype": "bfloat16"},
    "vision_config": {"dtype": "bfloat16", "deeper": {"torch_dtype": "float16"}, "hidden_size": 4},
}


def test_values_of_the_language_model():
    assert text_section(TEXT) is TEXT
    assert text_section(NESTED) is NESTED["text_config"]
    assert find(NESTED, "vocab_size") == 9
    assert find(NESTED, "torch_dtype") == "bfloat16"
    assert find(NESTED, "hidden_size") is None
    assert find({"text_config": 3, "a": 1}, "a") == 1


def test_values_are_set_where_they_are():
    assert with_values(TEXT, {"eos_token_id": [1, 2]}) == {**TEXT, "eos_token_id": [1, 2]}
    edited = with_values(NESTED, {"eos_token_id": 5, "pad_token_id": 0})
    assert edited == {**NESTED, "text_config": {**NESTED["text_config"], "eos_token_id": 5}, "pad_token_id": 0}
    both = {"eos_token_id": 1, "text_config": {"eos_token_id": 1}}
    assert with_values(both, {"eos_token_id": 2}) == {"eos_token_id": 2, "text_config": {"eos_token_id": 2}}
    assert NESTED["text_config"]["eos_token_id"] == 1


def test_rows():
    assert with_rows(TEXT, 12)["vocab_size"] == 12
    assert with_rows(NESTED, 12)["text_config"]["vocab_size"] == 12
    assert "vocab_size" not in with_rows(NESTED, 12)
    assert with_rows({}, 12) == {"vocab_size": 12}
    assert with_rows({"padded_vocab_size": 9, "vocab_size": 9}, 12) == {"padded_vocab_size": 12, "vocab_size": 12}


def test_tying_is_said_at_the_top_and_where_it_was():
    edited = with_tied({"text_config": {"tie_word_embeddings": True}}, False)
    assert edited == {"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": False}}


def test_the_type_of_every_part():
    edited = with_dtype(NESTED, "float32")
    assert edited["torch_dtype"] == edited["text_config"]["dtype"] == "float32"
    assert edited["vision_config"] == {"dtype": "float32", "deeper": {"torch_dtype": "float32"}, "hidden_size": 4}
    assert with_dtype({"model_type": "x"}, "float16") == {"model_type": "x", "torch_dtype": "float16"}
    quantised = {"dtype": "bfloat16", "quantization_config": {"dtype": "int4"}}
    assert with_dtype(quantised, "float32") == {"dtype": "float32", "quantization_config": {"dtype": "int4"}}


def test_what_is_written_can_be_read():
    config = {"é": "🙂", "nan": [1.5, None, True], "odd": "\ud800"}
    assert json.loads(render(config)) == config
    assert "🙂".encode() in render(config)
