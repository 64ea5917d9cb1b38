import json
import shutil
from pathlib import Path

import pytest

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.evaluate.subjects import open_subjects
from rlmerge.evaluate.tokenizers import check_tokenizers

MODELS = Path(__file__).parents[2] / "examples" / "checkpoints"


@pytest.fixture
def models(tmp_path):
    """A base and an expert of it, and a function that edits a file of the expert and checks the two."""
    for name in ("base", "expert"):
        shutil.copytree(MODELS / "base", tmp_path / name)

    def check(file=None, edit=None, model="expert"):
        if file is not None:
            path = tmp_path / model / file
            content = json.loads(path.read_text()) if path.exists() else {}
            edit(content)
            path.write_text(json.dumps(content))
        return check_tokenizers(open_subjects(tmp_path / "base", [tmp_path / "expert"], []))

    check.root = tmp_path
    return check


def test_equal_tokenizers_say_nothing_however_they_are_spelled(models):
    assert models() == []
    assert models("tokenizer.json", lambda found: None) == []


def test_a_token_with_another_id_is_an_error_that_names_the_file(models):
    def swap(found):
        vocabulary = found["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    with pytest.raises(RequestError, match=r"expert/tokenizer.json: gives the token 'a' the id \d+, "):
        models("tokenizer.json", swap)


def test_a_missing_tokenizer_is_an_error_with_the_command_that_helps(models):
    (models.root / "expert" / "tokenizer.json").unlink()
    with pytest.raises(RequestError, match=r"expert/tokenizer.json: is missing(.|\n)*cp '.*base/tokenizer.json'"):
        models()


def test_more_tokens_are_a_warning(models):
    (warning,) = models("tokenizer.json", lambda found: found["model"]["vocab"].update({"Z": 32}))
    assert "expert/tokenizer.json has 1 tokens more and 0 fewer" in warning


def test_another_way_to_split_is_a_warning(models):
    (warning,) = models("tokenizer.json", lambda found: found.update(normalizer={"type": "Lowercase"}))
    assert "splits or cleans text otherwise" in warning


def test_another_template_or_end_is_a_warning(models):
    def edit(found):
        found.update(chat_template="{{ x }}", eos_token="a")

    (warning,) = models("tokenizer_config.json", edit)
    assert "tokenizer_config.json: chat_template, eos_token differ from the base's" in warning
    assert (
        models("tokenizer_config.json", lambda found: found.update(chat_template="{{ x }}", eos_token="a"), "base")
        == []
    )


def test_the_template_may_have_moved_to_its_own_file(models):
    models("tokenizer_config.json", lambda found: found.update(chat_template="{{ x }}"), "base")
    (models.root / "expert" / "chat_template.jinja").write_text("{{ x }}")
    assert models() == []


def test_a_special_token_may_be_an_object(models):
    models("tokenizer_config.json", lambda found: found.update(eos_token="$"), "base")
    assert (
        models("tokenizer_config.json", lambda found: found.update(eos_token={"content": "$", "lstrip": False})) == []
    )


def test_older_tokenizers_are_compared_file_by_file(models):
    for name in ("base", "expert"):
        (models.root / name / "tokenizer.json").unlink()
        (models.root / name / "vocab.json").write_text('{"a": 0}')
    assert models() == []
    (warning,) = models("vocab.json", lambda found: found.update(a=1))
    assert "expert/vocab.json differs from the base's" in warning


@pytest.mark.parametrize("content", ["", "[]", '{"model": 3}', '{"model": {"vocab": [1]}}'])
def test_a_broken_tokenizer_is_named(models, content):
    (models.root / "expert" / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"expert/tokenizer\.json: "):
        models()


def test_unigram_vocabularies_are_lists(models):
    unigram = {"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}}
    for name in ("base", "expert"):
        (models.root / name / "tokenizer.json").write_text(json.dumps(unigram))
    assert models() == []
    with pytest.raises(RequestError, match="gives the token 'a' the id 1, and the base's 0"):
        models("tokenizer.json", lambda found: found["model"]["vocab"].reverse())
