"""Tied models beside models whose head is their own."""

import json

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.untied import untied_config, with_own_head
from support.models import write_model

TABLE = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def model(tmp_path):
    def make(tensors, **config):
        folder = write_model(tmp_path / "model", tensors, "bfloat16")
        (folder / "config.json").write_text(json.dumps(config))
        return open_checkpoint(folder)

    return make


def test_the_head_gets_the_embeddings_values(model):
    tied = model({"model.embed_tokens.weight": TABLE}, tie_word_embeddings=True)
    found = with_own_head(tied)
    head = found.tensors["lm_head.weight"]
    assert (head.name, head.shape, head.dtype.name, head.nominal.name) == ("lm_head.weight", (4, 3), *["bfloat16"] * 2)
    assert np.array_equal(head.read(), tied.tensors["model.embed_tokens.weight"].read())
    assert (found.tied_embeddings, tied.tied_embeddings) == (False, True)
    assert found.fingerprint() != tied.fingerprint()
    assert "lm_head.weight" not in tied.tensors


def test_a_head_that_is_stored_counts(model):
    tied = model({"model.embed_tokens.weight": TABLE, "lm_head.weight": TABLE + 1}, tie_word_embeddings=True)
    found = with_own_head(tied)
    assert found.tensors["lm_head.weight"] is tied.tensors["lm_head.weight"]
    assert found.config["tie_word_embeddings"] is False


def test_an_untied_model_is_itself(model):
    own = model({"model.embed_tokens.weight": TABLE, "lm_head.weight": TABLE}, tie_word_embeddings=False)
    assert with_own_head(own) is own


def test_a_model_without_an_embedding_is_itself(model):
    odd = model({"w": TABLE}, tie_word_embeddings=True)
    assert with_own_head(odd) is odd


def test_the_part_for_text_is_told_too():
    config = {"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": True, "a": 1}, "vision_config": {}}
    assert untied_config(config) == {
        "tie_word_embeddings": False,
        "text_config": {"tie_word_embeddings": False, "a": 1},
        "vision_config": {},
    }
    assert config["text_config"]["tie_word_embeddings"] is True
    assert untied_config(None) is None
