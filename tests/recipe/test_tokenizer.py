import pytest

from rlmerge.recipe import ModelRef, ModelToken, TokenizerSpec, TokenSpec, Zero

HEAD = "merge_method: ties\nbase_model: base\nmodels: [a, b]\n"


def spec(load, text):
    return load(HEAD + text + "\n").tokenizer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("tokenizer:", None),
        ("tokenizer_source: null", None),
        ("tokenizer_source: union", TokenizerSpec("union")),
        ("tokenizer_source: base", TokenizerSpec("base")),
        ("tokenizer_source: a@v2", TokenizerSpec(ModelRef("a", "v2"))),
        ("tokenizer_source: {path: base}", TokenizerSpec(ModelRef("base"))),
        ("tokenizer: {}", TokenizerSpec("union")),
        ("tokenizer: {source: base}", TokenizerSpec("base")),
        ("tokenizer: {source: org/m}", TokenizerSpec(ModelRef("org/m"))),
        ("tokenizer: {tokens: {}}", TokenizerSpec("union")),
        ("tokenizer: {pad_to_multiple_of: 64}", TokenizerSpec("union", {}, 64)),
        ("tokenizer: {pad_to_multiple_of: '8'}", TokenizerSpec("union", {}, 8)),
        ("tokenizer: {pad_to_multiple_of: 0}", TokenizerSpec("union")),
    ],
)
def test_the_vocabulary(load, text, expected):
    assert spec(load, text) == expected


def test_rows_of_tokens(load):
    found = spec(
        load,
        "tokenizer:\n"
        "  source: union\n"
        "  tokens:\n"
        "    <|im_start|>: {source: a}\n"
        "    <|eot|>: {source: base, force: true}\n"
        "    <unused>: {source: {kind: zero}}\n"
        "    <new>: {source: {kind: model_token, model: b, token: ' old'}}\n"
        "    7: {source: {kind: model_token, model: {path: org/b}, token_id: 0}, force: false}\n"
        "    <fill>: {source: , force: yes}\n"
        "    <plain>: {}\n",
    )
    assert found.tokens == {
        "<|im_start|>": TokenSpec(ModelRef("a")),
        "<|eot|>": TokenSpec(ModelRef("base"), True),
        "<unused>": TokenSpec(Zero()),
        "<new>": TokenSpec(ModelToken(ModelRef("b"), " old", None)),
        "7": TokenSpec(ModelToken(ModelRef("org/b"), None, 0)),
        "<fill>": TokenSpec(None, True),
        "<plain>": TokenSpec(),
    }
    assert [str(model) for model in found.models] == ["a", "base", "b", "org/b"]


def test_the_models_it_names_are_the_recipes(load):
    recipe = load(HEAD + "tokenizer: {source: org/c, tokens: {x: {source: a}, y: {source: d+e}}}\n")
    assert [str(model) for model in recipe.models] == ["base", "a", "b", "org/c", "d+e"]
    renamed = recipe.map_models(lambda model: ModelRef(f"new/{model.reference}"))
    assert [str(model) for model in renamed.tokenizer.models] == ["new/org/c", "new/a", "new/d"]


TOKEN = "tokenizer: {tokens: {x: %s}}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("tokenizer_source: base\ntokenizer: {source: base}", "not both"),
        ("tokenizer: union", "`tokenizer` must be a mapping"),
        ("tokenizer: {sorce: base}", "unknown key 'sorce'"),
        ("tokenizer_source: [a]", "a tokenizer source must be text"),
        ("tokenizer: {source: a@b@c}", "is not a revision"),
        ("tokenizer: {pad_to_multiple_of: -8}", "must be a whole number from 0"),
        ("tokenizer: {pad_to_multiple_of: 1.5}", "must be a whole number"),
        ("tokenizer: {pad_to_multiple_of: 99999999}", "must be a whole number"),
        ("tokenizer: {tokens: [x]}", "`tokens` must be a mapping"),
        ("tokenizer: {tokens: {'': {source: a}}}", "a token must not be empty"),
        (TOKEN % "", "a token must be a mapping"),
        (TOKEN % "a", "a token must be a mapping"),
        (TOKEN % "{sorce: a}", "unknown key 'sorce' in a token"),
        (TOKEN % "{source: [a]}", "the source of a token must be text"),
        (TOKEN % "{source: a, force: maybe}", "`force` must be true or false"),
        (TOKEN % "{source: {kind: zeros}}", "`kind` cannot be 'zeros'"),
        (TOKEN % "{source: {kind: [zero]}}", "`kind` must be text"),
        (TOKEN % "{source: {kind: model_token, token: y}}", "needs a `model`"),
        (TOKEN % "{source: {kind: model_token, model: a}}", "either its `token` or its `token_id`"),
        (
            TOKEN % "{source: {kind: model_token, model: a, token: y, token_id: 3}}",
            "either its `token` or its `token_id`",
        ),
        (TOKEN % "{source: {kind: model_token, model: a, token_id: -1}}", "`token_id` must be a whole number"),
        (TOKEN % "{source: {kind: model_token, model: a, token_id: x}}", "`token_id` must be a whole number"),
        (TOKEN % "{source: {kind: model_token, model: a, token: [y]}}", "`token` must be text"),
        ("tokens: {x: {source: a}}", "unknown key 'tokens' in the recipe"),
    ],
)
def test_what_is_no_tokenizer(problems, text, what):
    ((where, found, _),) = problems(HEAD + text + "\n")
    assert what in found
    assert where.startswith("recipe:")
