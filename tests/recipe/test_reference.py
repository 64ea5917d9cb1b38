import pytest

from rlmerge.recipe import ModelRef
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import read_model
from rlmerge.recipe.tree import from_value


def read(value):
    problems = Problems()
    return read_model(from_value(value, "model"), problems), problems


@pytest.mark.parametrize(
    ("text", "reference", "revision"),
    [
        ("org/name", "org/name", None),
        ("org/name@main", "org/name", "main"),
        ("org/name@refs/pr/1", "org/name", "refs/pr/1"),
        ("/data/me@host/model", "/data/me@host/model", None),
        ("./model", "./model", None),
    ],
)
def test_parse(text, reference, revision):
    assert ModelRef.parse(text) == ModelRef(reference, revision)


def test_a_path_that_exists_is_taken_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run@step-400").mkdir()
    (tmp_path / "sft+rl").mkdir()
    assert ModelRef.parse("run@step-400") == ModelRef("run@step-400")
    assert read("sft+rl")[0] == ModelRef("sft+rl")


def test_identity_sees_through_spellings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "link").symlink_to("base")
    assert ModelRef("base").identity == ModelRef("./base/").identity == ModelRef("link").identity
    assert ModelRef("org/a").identity != ModelRef("org/a", "v2").identity


def test_lora_is_refused_with_the_way_out():
    model, problems = read("org/base+org/adapter")
    assert model is None
    assert "LoRA" in problems.errors[0].what
    assert "merge_and_unload" in problems.errors[0].hint


def test_mergekits_mapping_form():
    nested = {"model": {"path": "org/a+b", "revision": "main"}, "override_architecture": "LlamaForCausalLM"}
    model, problems = read(nested)
    assert model == ModelRef("org/a+b", "main")
    assert not problems.errors
    assert "override_architecture" in problems.warnings[0]


@pytest.mark.parametrize("value", [None, "", ["a"], {}, {"path": None}, {"model": "a", "lora": "b"}, {"paht": "a"}])
def test_what_is_no_model_is_reported(value):
    assert read(value)[1].errors
