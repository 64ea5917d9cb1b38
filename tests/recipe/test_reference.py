import pytest

from rlmerge.recipe import ModelRef
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import existing, read_model
from rlmerge.recipe.tree import from_value


def read(value, stages=()):
    problems = Problems(stages=stages)
    return read_model(from_value(value, "model"), problems), problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", ModelRef("org/name")),
        ("org/name@main", ModelRef("org/name", "main")),
        ("org/name@refs/pr/1", ModelRef("org/name", "refs/pr/1")),
        ("org/name/checkpoint-500@v2", ModelRef("org/name/checkpoint-500", "v2")),
        ("/data/me@host/model", ModelRef("/data/me@host/model")),
        ("./model@x", ModelRef("./model@x")),
        ("~/model@x", ModelRef("~/model@x")),
        ("exp a@b", ModelRef("exp a@b")),
        ("org/a+org/lora", ModelRef("org/a", adapter=ModelRef("org/lora"))),
        ("org/a@v1+org/lora@v2", ModelRef("org/a", "v1", ModelRef("org/lora", "v2"))),
        ("./a+./b", ModelRef("./a", adapter=ModelRef("./b"))),
        ("007", ModelRef("007")),
    ],
)
def test_parse_and_spell(text, expected):
    assert ModelRef.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["m1@a@b", "m1+a+b", "+a", "a+", "org/a@v 1", "m1+a@b@c"])
def test_text_that_says_two_things_is_an_error_with_the_way_out(text):
    model, problems = read(text)
    assert model is None
    assert "lora: {path: ...}" in problems.errors[0].hint


def test_a_path_that_exists_is_taken_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run@step-400").mkdir()
    (tmp_path / "sft+rl").mkdir()
    assert ModelRef.parse("run@step-400") == ModelRef("run@step-400")
    assert read("sft+rl")[0] == ModelRef("sft+rl")
    assert ModelRef.parse("sft+rl+lora") == ModelRef("sft+rl", adapter=ModelRef("lora"))


def test_identity_sees_through_spellings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base").mkdir()
    (tmp_path / "link").symlink_to("base")
    spellings = ["base", "./base/", "link", "~/base", str(tmp_path / "base"), f"{tmp_path}//base/."]
    assert {ModelRef(text).identity for text in spellings} == {str((tmp_path / "base").resolve())}
    assert ModelRef("org/a").identity != ModelRef("org/a", "v2").identity
    assert ModelRef("base", adapter=ModelRef("l")).identity == ModelRef("link", adapter=ModelRef("l")).identity
    assert ModelRef("base", adapter=ModelRef("l")).identity != ModelRef("base").identity
    assert ModelRef("base", stage=True).identity != ModelRef("base").identity


@pytest.mark.parametrize("text", ["a" * 300, "a\0b", "~nobody-of-this-name/x", "x" * 100_000, "\ud800"])
def test_names_that_no_file_can_have_exist_nowhere(text):
    assert existing(text) is None
    assert ModelRef(text).identity == text


def test_a_loop_of_links_exists_nowhere(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert existing(str(tmp_path / "loop")) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"path": "org/a+b@c", "revision": "main"}, ModelRef("org/a+b@c", "main")),
        ({"model": {"path": "org/a+b", "revision": "main"}}, ModelRef("org/a+b", "main")),
        ({"model": "org/a@v1"}, ModelRef("org/a", "v1")),
        ({"model": {"path": "a"}, "lora": {"path": "b", "revision": "r"}}, ModelRef("a", adapter=ModelRef("b", "r"))),
        ({"model": "a@x", "lora": "b"}, ModelRef("a", "x", ModelRef("b"))),
        ({"path": "a", "lora": "b"}, ModelRef("a", adapter=ModelRef("b"))),
        ({"model": "a", "lora": None}, ModelRef("a")),
        ({"path": "a", "revision": None}, ModelRef("a")),
    ],
)
def test_mergekits_mapping_form(value, expected):
    model, problems = read(value)
    assert not problems.errors
    assert model == expected


def test_override_architecture_is_ignored_with_a_warning():
    model, problems = read({"model": "a", "override_architecture": "LlamaForCausalLM"})
    assert model == ModelRef("a")
    assert "override_architecture" in problems.warnings[0]


@pytest.mark.parametrize(
    "value",
    [None, "", ["a"], {}, {"path": None}, {"paht": "a"}, {"model": "a", "revision": "b"}, {"model": "a+b", "lora": "c"},
     {"model": "a", "lora": "b+c"}, {"model": "a", "lora": ["c"]}, {"lora": "b"}, {"path": "a", "revision": ["x"]}],
)  # fmt: skip
def test_what_is_no_model_is_reported(value):
    model, problems = read(value)
    assert model is None or problems.errors
    assert len(problems.errors) >= 1


def test_the_name_of_another_recipe_comes_before_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first").mkdir()
    stages = ("first", "a+b", "org/c")
    assert read("first", stages)[0] == ModelRef("first", stage=True)
    assert read("first+lora", stages)[0] == ModelRef("first", adapter=ModelRef("lora"), stage=True)
    assert read({"path": "first"}, stages)[0] == ModelRef("first", stage=True)
    assert read("a+b", stages)[0] == ModelRef("a+b", stage=True)
    assert read("org/c", stages)[0].stage
    assert not read("./first", stages)[0].stage
    assert not read("first@v1", stages)[0].stage
