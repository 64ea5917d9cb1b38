from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from rlmerge.errors import RequestError
from rlmerge.sensitivity.data import Example
from rlmerge.sensitivity.tokens import encode_prompt, encode_references, total_tokens

from . import tiny

USER = {"role": "user", "content": "1+1"}
ASSISTANT = {"role": "assistant", "content": "2"}


def text_of(ids) -> str:
    return "".join(tiny.VOCABULARY[i] for i in ids)


def encoded(example, *, chat=False, max_length=64):
    result = encode_references(tiny.tokenizer(chat=chat), [example], max_length)
    (sequence,) = result.sequences
    return text_of(sequence.ids[: sequence.start]), text_of(sequence.ids[sequence.start :]), result


def test_a_pair_is_prompt_response_and_end_of_sequence():
    prompt, response, result = encoded(Example("w", "1+1=", "2"))
    assert (prompt, response) == ("<s>1+1=", "2</s>")
    assert (result.truncated, result.dropped, total_tokens(result.sequences)) == (0, 0, 2)


def test_of_plain_text_all_but_the_first_token_is_predicted():
    assert encoded(Example("w", "abc", text=True))[:2] == ("<s>", "abc")


def test_a_chat_goes_through_the_template_and_ends_with_its_last_end_token():
    # The template also writes blanks after the turn; the model never samples those.
    prompt, response, _ = encoded(Example("w", (USER,), ASSISTANT), chat=True)
    assert (prompt, response) == ("<s>? 1+1</s>  <s>a ", "2</s>")


def test_reasoning_gym_questions_use_the_template_where_there_is_one():
    example = Example("w", "1+1", "2", entry={})
    assert text_of(encode_prompt(tiny.tokenizer(chat=True), example)) == "<s>? 1+1</s>  <s>a "
    assert text_of(encode_prompt(tiny.tokenizer(), example)) == "<s>1+1"


def test_long_sequences_are_cut_and_counted_and_lost_ones_dropped():
    examples = [Example("w", "1", "23"), Example("w", "1", "2345"), Example("w", "12345", "6")]
    result = encode_references(tiny.tokenizer(), examples, 5)
    assert [text_of(s.ids) for s in result.sequences] == ["<s>123</s>", "<s>1234"]
    # The third is cut within its prompt: truncated, and then without a response.
    assert (result.truncated, result.dropped) == (2, 1)
    with pytest.raises(RequestError, match="none of the 3 sequences has a response within 2 tokens"):
        encode_references(tiny.tokenizer(), examples, 2)


def test_a_tokenizer_that_closes_its_texts_does_not_end_the_prompt():
    tokenizer = tiny.tokenizer()
    from tokenizers import processors

    specials = [("<s>", 1), ("</s>", 2)]
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=specials)
    assert text_of(encode_prompt(tokenizer, Example("w", "1+1="))) == "<s>1+1="


def test_refusals_name_the_line():
    with pytest.raises(RequestError, match=r"f:3: .*no chat template"):
        encoded(Example("f:3", (USER,), ASSISTANT))
    with pytest.raises(RequestError, match=r"f:4: an example without response"):
        encoded(Example("f:4", "1+1="))
    with pytest.raises(RequestError, match=r"f:5: an example without response"):
        encoded(Example("f:5", (USER,)), chat=True)
    tokenizer = tiny.tokenizer(chat=True)
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RequestError, match=r"f:6: .*roles must alternate"):
        encode_references(tokenizer, [Example("f:6", (USER,), ASSISTANT)], 64)
    tokenizer.chat_template = "{{ messages | length }}"
    with pytest.raises(RequestError, match=r"f:7: the chat template rewrites the prompt"):
        encode_references(tokenizer, [Example("f:7", (USER,), ASSISTANT)], 64)
