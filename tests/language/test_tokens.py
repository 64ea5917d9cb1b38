from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from rlmerge.errors import RequestError
from rlmerge.language.data import Example
from rlmerge.language.tokens import encode_prompt, encode_references, encode_text, total_tokens
from support import tiny

USER = {"role": "user", "content": "1+1"}
ASSISTANT = {"role": "assistant", "content": "2"}


def text_of(ids) -> str:
    return "".join(tiny.VOCABULARY[i] for i in ids)


def encoded(example, *, chat=False, max_length=64, ends=()):
    result = encode_references(tiny.tokenizer(chat=chat), [example], max_length, ends=ends)
    (sequence,) = result.sequences
    return text_of(sequence.ids[: sequence.start]), text_of(sequence.ids[sequence.start :]), result


def test_a_pair_is_prompt_response_and_end_of_sequence():
    prompt, response, result = encoded(Example("w", "1+1=", "2"))
    assert (prompt, response) == ("<s>1+1=", "2</s>")
    assert (result.truncated, result.dropped, total_tokens(result.sequences)) == (0, 0, 2)


def test_of_plain_text_all_but_the_first_token_is_predicted():
    assert encoded(Example("w", "abc", text=True))[:2] == ("<s>", "abc</s>")


@pytest.mark.parametrize(
    ("example", "response", "appended"),
    [
        (Example("w", "1+1=", "2"), "2</s>", 1),
        (Example("w", "1+1=", "2</s>"), "2</s>", 0),
        (Example("w", "abc", text=True), "abc</s>", 1),
        (Example("w", "abc</s>", text=True), "abc</s>", 0),
        (Example("w", (USER,), ASSISTANT), "2</s>", 0),
    ],
)
def test_an_end_is_appended_where_there_is_none_and_only_there(example, response, appended):
    _, found, result = encoded(example, chat=True)
    assert found == response and result.eos_appended == appended


def test_a_chat_whose_template_writes_no_end_gets_one():
    tokenizer = tiny.tokenizer(chat=True)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'][0] + ' ' + m['content'] + ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'a ' }}{% endif %}"
    )
    result = encode_references(tokenizer, [Example("w", (USER,), ASSISTANT)], 64)
    (sequence,) = result.sequences
    assert text_of(sequence.ids[sequence.start :]) == "2 </s>" and result.eos_appended == 1


def test_every_end_of_the_model_ends_a_response():
    """Chat models list several in their generation config: here 5, the character 2, as well."""
    assert tiny.VOCABULARY[5] == "2"
    _, response, result = encoded(Example("w", "1+1=", "a2"), ends=(5,))
    assert response == "a2" and result.eos_appended == 0
    # Of a chat turn, what the template writes after the last end is cut, whichever end that is.
    turn = {"role": "assistant", "content": "2"}
    tokenizer = tiny.tokenizer(chat=True)
    tokenizer.chat_template = tokenizer.chat_template.replace("</s>", "")
    result = encode_references(tokenizer, [Example("w", (USER,), turn)], 64, ends=(5,))
    assert text_of(result.sequences[0].ids[-2:]) == " 2" and result.eos_appended == 0


def test_an_end_in_the_prompt_does_not_end_an_empty_response():
    result = encode_references(tiny.tokenizer(), [Example("w", "12", "")], 64, ends=(5,))
    assert text_of(result.sequences[0].ids) == "<s>12</s>" and result.eos_appended == 1


def test_an_end_that_is_cut_off_is_not_counted():
    assert encoded(Example("w", "1", "23"), max_length=4)[2].eos_appended == 0
    assert encoded(Example("w", "1", "23"), max_length=5)[2].eos_appended == 1


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
    with pytest.raises(RequestError, match=r"f:4: the example has no response"):
        encoded(Example("f:4", "1+1="))
    with pytest.raises(RequestError, match=r"f:5: the example has no response"):
        encoded(Example("f:5", (USER,)), chat=True)
    tokenizer = tiny.tokenizer(chat=True)
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RequestError, match=r"f:6: .*roles must alternate"):
        encode_references(tokenizer, [Example("f:6", (USER,), ASSISTANT)], 64)
    tokenizer.chat_template = "{{ messages | length }}"
    with pytest.raises(RequestError, match=r"f:7: the chat template rewrites the prompt"):
        encode_references(tokenizer, [Example("f:7", (USER,), ASSISTANT)], 64)


def test_a_prompt_without_tokens_is_refused():
    def silent(prompt, **_):
        return {"input_ids": []}

    with pytest.raises(RequestError, match=r"prompt ' ' has no tokens"):
        encode_text(silent, " ", "model", chat=False)
