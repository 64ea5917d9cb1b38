import pytest

from rlmerge.recipe import ChatTemplate, ModelRef

HEAD = "merge_method: ties\nbase_model: base\nmodels: [a, org/b]\n"


def template(load, text):
    return load(HEAD + f"chat_template: {text}\n").chat_template


@pytest.mark.parametrize("name", ["alpaca", "chatml", "exaone", "llama3", "mistral"])
def test_built_in_names(load, name):
    assert template(load, name) == ChatTemplate("built_in", name)


def test_auto(load):
    assert template(load, "auto") == ChatTemplate("auto", "auto")


def test_nothing(load):
    assert load(HEAD).chat_template is None
    assert template(load, "") is None


@pytest.mark.parametrize("text", ["  {% for m in messages %}\n{{ m }}\n{% endfor %}\n", "{{ x }}", "chatml {# not #}"])
def test_jinja_keeps_its_white_space(load, text):
    recipe = load({"merge_method": "linear", "models": ["a"], "chat_template": text})
    assert recipe.chat_template == ChatTemplate("jinja", text)


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("a", ModelRef("a")),
        ("org/other@v2", ModelRef("org/other", "v2")),
        ("{path: chatml}", ModelRef("chatml")),
        ("{model: a, lora: b}", ModelRef("a", adapter=ModelRef("b"))),
    ],
)
def test_the_template_of_a_model(load, text, model):
    assert template(load, text) == ChatTemplate("model", str(model), model)


def test_a_directory_here_is_a_model(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    assert template(load, "elsewhere").model == ModelRef("elsewhere")


KNOWN = "Give auto, one of alpaca, chatml, exaone, llama3, mistral, a model, or Jinja text."


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("chatmll", "'chatmll' is not a chat template", "Did you mean 'chatml'?"),
        ("vicuna", "'vicuna' is not a chat template", KNOWN),
        ("[chatml]", "`chat_template` must be text", None),
    ],
)
def test_what_is_no_template(problems, text, what, hint):
    assert problems(HEAD + f"chat_template: {text}\n") == [("recipe:4", what, hint)]
