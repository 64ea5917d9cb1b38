"""Built-in chat templates, rendered by the library that renders them for users."""

import pytest

from rlmerge.checkpoint.templates import TEMPLATES, named_template, template_fault
from rlmerge.errors import RequestError

transformers = pytest.importorskip("transformers")

SYSTEM = {"role": "system", "content": "Be brief."}
CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]


def render(name, messages, prompt=True):
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template(
        [messages], chat_template=TEMPLATES[name], add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>"
    )
    return texts[0]


def test_chatml():
    assert render("chatml", [SYSTEM, *CHAT]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


def test_llama3():
    start, end = "<|start_header_id|>", "<|end_header_id|>\n\n"
    assert render("llama3", [SYSTEM, *CHAT]) == (
        f"<s>{start}system{end}Be brief.<|eot_id|>{start}user{end}Hi<|eot_id|>"
        f"{start}assistant{end}Hello<|eot_id|>{start}user{end}Bye<|eot_id|>{start}assistant{end}"
    )


def test_mistral():
    assert render("mistral", CHAT) == "<s>[INST] Hi [/INST] Hello</s>[INST] Bye [/INST]"
    assert render("mistral", [SYSTEM, *CHAT]) == "<s>[INST] Be brief.\n\nHi [/INST] Hello</s>[INST] Bye [/INST]"


@pytest.mark.parametrize("messages", [CHAT[1:], [CHAT[0], CHAT[0]], [CHAT[0], SYSTEM]])
def test_mistral_takes_turns(messages):
    with pytest.raises(Exception, match="take turns"):
        render("mistral", messages)


def test_alpaca():
    turns = "### Instruction:\nHi\n\n### Response:\nHello</s>\n\n### Instruction:\nBye\n\n### Response:\n"
    assert render("alpaca", [SYSTEM, *CHAT]) == f"Be brief.\n\n{turns}"
    assert render("alpaca", CHAT) == (
        "Below is an instruction that describes a task. "
        f"Write a response that appropriately completes the request.\n\n{turns}"
    )


def test_exaone():
    turns = "[|user|]Hi\n[|assistant|]Hello[|endofturn|]\n[|user|]Bye\n[|assistant|]"
    assert render("exaone", [SYSTEM, *CHAT]) == f"[|system|]Be brief.[|endofturn|]\n{turns}"
    assert render("exaone", CHAT) == f"[|system|][|endofturn|]\n{turns}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_without_a_generation_prompt_the_last_turn_ends_the_text(name):
    whole = render(name, CHAT[:2], prompt=False)
    assert whole.rstrip().endswith(("Hello</s>", "Hello<|im_end|>", "Hello<|eot_id|>", "Hello[|endofturn|]"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_they_compile(name):
    assert template_fault(TEMPLATES[name]) is None
    assert named_template(name) == TEMPLATES[name]


def test_a_text_is_taken_as_it_is():
    assert named_template("{{ messages }}") == "{{ messages }}"


@pytest.mark.parametrize(("word", "hint"), [("chatlm", "Did you mean 'chatml'"), ("nonsense", "Known: alpaca, chatml")])
def test_a_word_that_is_no_template(word, hint):
    with pytest.raises(RequestError, match=f"unknown chat template '{word}'(?s:.*){hint}"):
        named_template(word)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{% for x in messages %}", "line 1: Unexpected end of template"),
        ("\n{{ x", "line 2: unexpected end"),
        ("{{ x | nosuchfilter }}", "line 1: there is no filter 'nosuchfilter'"),
        ("{% if x is nosuchtest %}{% endif %}", "line 1: there is no test 'nosuchtest'"),
        ("{% import_secrets %}", "line 1: Encountered unknown tag"),
        ("{{ " + "9" * 5000 + " }}", "limit"),
        ("{{ " + "[" * 5000 + "]" * 5000 + " }}", "nested too deeply"),
        ("{% generation %}", "line 1: Unexpected end of template"),
    ],
)
def test_what_does_not_compile(text, fault):
    assert fault in template_fault(text)


@pytest.mark.parametrize(
    "text",
    [
        "{% generation %}{{ x }}{% endgeneration %}",
        "{% for x in y %}{% break %}{% endfor %}",
        "{{ x | tojson }}",
        "{{ raise_exception('no') }}{{ strftime_now('%Y') }}",
        "plain",
    ],
)
def test_what_transformers_adds_to_the_language(text):
    assert template_fault(text) is None


def test_nothing_is_executed():
    assert template_fault("{{ 10 ** 10 ** 10 }}{{ ''.__class__.__mro__ }}") is None
