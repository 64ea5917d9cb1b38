"""Which chat template stands beside merged weights: the base's, the experts', or the one that the recipe asks for."""

import pytest

from rlmerge.checkpoint.identity import plan_identity
from rlmerge.checkpoint.vocabulary import TokenizerSpec
from rlmerge.errors import RequestError
from support.identity import content, copied, make_model

__all__ = ["make_model"]  # a fixture


def test_a_chat_template_by_name(make):
    base = make("base", chat_template="{{ old }}", files={"chat_template.json": {"chat_template": "{{ older }}"}})
    found = plan_identity(base, [make("e1")], chat_template="llama3")
    assert content(found, "chat_template.jinja").startswith("{{- bos_token -}}")
    assert "chat_template" not in content(found, "tokenizer_config.json")
    assert "chat_template.json" not in found.files
    assert any("'<|end_header_id|>', '<|eot_id|>', '<|start_header_id|>', no token" in w for w in found.warnings)


@pytest.mark.parametrize(("chosen", "text"), [("auto", "two"), ("e1", "one"), ("{{ mine }}", "{{ mine }}")])
def test_a_chat_template_that_the_recipe_chooses(make, chosen, text):
    base, one = make("base", chat="zero"), make("e1", chat="one")
    others = [make("e2", chat="two"), make("e3", chat=" two\n")]
    found = plan_identity(base, [one, *others], chat_template=one if chosen == "e1" else chosen)
    assert content(found, "chat_template.jinja").strip() == text
    assert not any("chat template" in warning for warning in found.warnings)


def test_auto_takes_the_first_of_equals(make):
    base, one = make("base", chat="zero"), make("e1", chat="one")
    assert content(plan_identity(base, [one], chat_template="auto"), "chat_template.jinja") == "zero"
    found = plan_identity(make("none"), [make("neither")], chat_template="auto")
    assert "chat_template.jinja" not in found.files
    assert "no model has a chat template" in found.notes[0]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("{% for x in y %}", r"chat_template: the chat template does not compile: line 1"),
        ("chatlm", "unknown chat template 'chatlm'"),
    ],
)
def test_a_chat_template_that_is_none(make, wish, message):
    with pytest.raises(RequestError, match=message):
        plan_identity(make("base"), [make("e1")], chat_template=wish)


def test_a_model_without_the_chat_template_it_should_lend(make):
    base = make("base", chat="x")
    for other in (make("e1"), make("e2", tokenizer=False)):
        with pytest.raises(RequestError, match="the model has no chat template"):
            plan_identity(base, [other], chat_template=other)


def test_a_broken_template_that_is_only_copied_is_a_warning(make):
    found = plan_identity(make("base", chat="{% for %}"), [make("e1", chat="{% for %}")])
    assert any("the chat template does not compile" in warning for warning in found.warnings)


def test_named_templates_of_the_base_stay_beside_what_the_experts_share(make):
    named = [{"name": "default", "template": "old"}, {"name": "tool_use", "template": "tools"}]
    base = make("base", chat_template=named)
    found = plan_identity(base, [make("e1", chat="new"), make("e2", chat="new")])
    assert content(found, "chat_template.jinja") == "new"
    assert content(found, "additional_chat_templates/tool_use.jinja") == "tools"
    assert "chat_template" not in content(found, "tokenizer_config.json")
    # An expert that repeats the default takes nothing away either.
    assert copied(plan_identity(base, [make("e3", chat="old")]))["tokenizer_config.json"] == "base"


def test_a_template_whose_tokens_the_output_lacks_is_not_taken(make):
    base, one, two = make("base"), make("e1", ["<x>"], chat="<x>{{ a }}"), make("e2", chat="<x>{{ a }}")
    found = plan_identity(base, [one, two], tokenizer=TokenizerSpec("union"))
    assert content(found, "chat_template.jinja") == "<x>{{ a }}"
    lost = plan_identity(base, [one], tokenizer=TokenizerSpec("base"), chat_template=one)
    assert any("the output's tokenizer lacks '<x>'" in warning for warning in lost.warnings)
