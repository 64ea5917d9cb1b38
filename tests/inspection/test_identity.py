import json

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.inspection.identity import compare_identities
from support.models import write_model


@pytest.fixture
def pair(tmp_path):
    for name in ("base", "expert"):
        write_model(tmp_path / name, {"w": np.ones(2)})
    return tmp_path


def differences(folder):
    models = [open_checkpoint(folder / name) for name in ("base", "expert")]
    return [(d.aspect, d.detail) for d in compare_identities(models, ["base", "expert"])]


def test_equal_models_do_not_differ(pair):
    assert differences(pair) == []


def test_another_configuration(pair):
    for name, theta in (("base", 10000.0), ("expert", 500000.0)):
        (pair / name / "config.json").write_text(json.dumps({"rope_theta": theta, "torch_dtype": name}))
    assert differences(pair) == [("config", "rope_theta is 500000.0, the base has 10000.0")]


def test_vocabularies_are_compared_by_their_tokens(pair):
    (pair / "base" / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "x": 1}))
    (pair / "expert" / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"b": 1, "a": 0}}, "x": 2}))
    assert differences(pair) == []
    (pair / "expert" / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<tool>"}]})
    )
    assert differences(pair) == [("vocabulary", "3 tokens against 2")]
    (pair / "expert" / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [["b", 0.1], ["a", 0.2]]}}))
    assert differences(pair) == [("vocabulary", "same size, other tokens")]


@pytest.mark.parametrize("content", ["not json", "[]", '{"model": {"vocab": 3}}', "{}" * 3])
def test_a_broken_tokenizer_is_compared_byte_for_byte(pair, content):
    for name in ("base", "expert"):
        (pair / name / "tokenizer.json").write_text(content)
    assert differences(pair) == []


def test_chat_templates(pair):
    (pair / "base" / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ a }}"}))
    (pair / "expert" / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ b }}"}))
    assert differences(pair) == [("chat template", "differs from the base's")]
