import pytest

HEAD = "merge_method: ties\nbase_model: base\nmodels: [a, b]\n"


@pytest.mark.parametrize(
    "text",
    [
        "tokenizer_source: base",
        "tokenizer_source: base_alias",
        "tokenizer: {source: base}",
        "tokenizer: {source: base, tokens: {}}",
    ],
)
def test_the_bases_tokenizer_by_any_name(load, text):
    recipe = load(HEAD.replace("base_model: base", "base_model: base_alias") + text + "\n")
    assert recipe.tokenizer_source == "base"


def test_without_a_base_the_first_model_is_the_donor(load):
    assert load("merge_method: linear\nmodels: [a, b]\ntokenizer_source: a\n").tokenizer_source == "base"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("tokenizer_source: union", "tokenizer source 'union' is not supported yet"),
        ("tokenizer_source: a", "tokenizer source 'a' is not supported yet"),
        ("tokenizer: {source: base, pad_to_multiple_of: 8}", "`tokenizer.pad_to_multiple_of` is not supported yet"),
        ("tokenizer: {tokens: {x: {source: a}}}", "`tokenizer.tokens` is not supported yet"),
        ("tokenizer: {sorce: base}", "unknown key 'sorce'"),
        ("tokenizer_source: base\ntokenizer: {source: base}", "not both"),
        ("chat_template: chatml", "'chatml' is not supported"),
        ("chat_template: []", "`chat_template` must be text"),
        ("dtype: int64", "'int64' is not a type to merge in"),
        ("out_dtype: [float32]", "a dtype must be text"),
    ],
)
def test_what_this_version_does_not_do(problems, text, what):
    found = problems(HEAD + text + "\n")
    assert len(found) == 1
    assert what in found[0][1]
    assert found[0][0].startswith("recipe:")


def test_chat_template_keeps_its_white_space(load):
    template = "  {% for m in messages %}\n{{ m }}\n{% endfor %}\n"
    assert load({"merge_method": "linear", "models": ["a"], "chat_template": template}).chat_template == template


def test_auto_chat_template_is_the_bases(load):
    recipe = load(HEAD + "chat_template: auto\n")
    assert recipe.chat_template is None
    assert "copies the base's" in recipe.warnings[0]
