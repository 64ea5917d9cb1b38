import json

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.inspection.identity import compare_identities
from support.models import write_model
from support.tokenizers import write_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\nsize 7\n"


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
    for name in ("base", "expert"):
        write_tokenizer(pair / name, ["a", "b"], ["<x>"], chat="c", eos_token="a", generation={"eos_token_id": 0})
    assert differences(pair) == []


def test_another_configuration(pair):
    for name, theta in (("base", 10000.0), ("expert", 500000.0)):
        (pair / name / "config.json").write_text(json.dumps({"rope_theta": theta, "torch_dtype": name}))
    assert differences(pair) == [("config", "rope_theta is 500000.0, the base has 10000.0")]


def test_rotary_embeddings_of_two_versions_of_transformers(pair):
    (pair / "base" / "config.json").write_text(json.dumps({"rope_theta": 1e4}))
    rope = {"rope_theta": 1e6, "rope_type": "default"}
    (pair / "expert" / "config.json").write_text(json.dumps({"rope_parameters": rope, "max_position_embeddings": 9}))
    assert differences(pair) == [("config", "rope_theta is 1000000.0, the base has 10000.0")]


@pytest.mark.parametrize(
    ("base", "expert", "expected"),
    [
        (["u", "a", "b"], ["u", "b", "a"], ("vocabulary", "the id 1 is 'b', in the base 'a' (2 such ids)")),
        (["a", "b"], ["a", "c"], ("vocabulary", "the id 1 is 'c', in the base 'b'")),
        (["a", "b"], ["a", "b", "c"], ("tokens", "has 'c', which the base lacks")),
        (["a", "b"], ["a"], ("tokens", "lacks 'b' of the base")),
    ],
)
def test_vocabularies_are_compared_by_their_tokens(pair, base, expert, expected):
    write_tokenizer(pair / "base", base)
    write_tokenizer(pair / "expert", expert)
    assert differences(pair) == [expected]


def test_rules_and_special_tokens(pair):
    write_tokenizer(pair / "base", ["a", "b"], eos_token="a")
    write_tokenizer(pair / "expert", ["a", "b"], eos_token="b", add_bos_token=True)
    path = pair / "expert" / "tokenizer.json"
    path.write_text(path.read_text().replace("WhitespaceSplit", "Whitespace"))
    assert differences(pair) == [
        ("tokenizer", "splits text by other rules than the base's"),
        ("special tokens", "add_bos_token is true, the base has unset"),
        ("special tokens", 'eos_token is "b", the base has "a"'),
    ]


def test_formats_that_are_not_read(pair):
    for name, content in (("base", b"\n\x07x"), ("expert", b"\n\x07x")):
        (pair / name / "tokenizer.model").write_bytes(content)
    assert differences(pair) == []
    (pair / "expert" / "tokenizer.model").write_bytes(b"\n\x07y")
    detail = "tokenizer.model cannot be compared with the base's tokenizer.model, which differs"
    assert differences(pair) == [("tokenizer", detail)]


@pytest.mark.parametrize(
    ("content", "message"), [("not json", "must hold a JSON object"), (POINTER, "is a Git LFS pointer")]
)
def test_a_broken_tokenizer_is_said_to_be_broken(pair, content, message):
    (pair / "expert" / "tokenizer.json").write_text(content)
    ((aspect, detail),) = differences(pair)
    assert aspect == "tokenizer"
    assert detail.startswith("cannot be read: ") and "tokenizer.json" in detail and message in detail


def test_chat_templates(pair):
    write_tokenizer(pair / "base", ["a"], chat_template="{{ a }}")
    write_tokenizer(pair / "expert", ["a"], chat_template="{{ b }}")
    assert differences(pair) == [("chat template", "differs from the base's")]
    write_tokenizer(pair / "base", ["a"])
    assert differences(pair) == [("chat template", "the base has none")]
    assert differences_of_swapped(pair) == []


def differences_of_swapped(folder):
    """What the base has and the expert lacks is nothing that a merge could lose."""
    models = [open_checkpoint(folder / name) for name in ("expert", "base")]
    return [(d.aspect, d.detail) for d in compare_identities(models, ["base", "expert"])]


def test_stop_tokens(pair):
    (pair / "base" / "generation_config.json").write_text('{"eos_token_id": 0}')
    (pair / "expert" / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    assert differences(pair) == [("generation", "stops at [2, 0], the base at [0]")]
    (pair / "expert" / "generation_config.json").write_text("[]")
    ((aspect, detail),) = differences(pair)
    assert aspect == "generation" and "must hold a JSON object" in detail
