from pathlib import Path

import numpy as np
import pytest

from rlmerge.checkpoint import ArraySource
from rlmerge.checkpoint.compose import Renamed
from rlmerge.checkpoint.formats import state_dict
from rlmerge.checkpoint.formats.state_dict import find_side_root, finish, unwrap
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import FLOAT32

ROOT = Path("/model")


def source(name, *numbers):
    return ArraySource(name, FLOAT32, np.array(numbers, "<f4"), "memory")


def test_a_source_under_its_own_name_is_kept():
    plain, wrapped = source("w", 1), source("_orig_mod.v", 2)
    found = finish({"w": plain, "_orig_mod.v": wrapped}, None, ROOT)
    assert found["w"] is plain
    assert isinstance(found["v"], Renamed) and found["v"].name == "v"


def test_a_shared_head_is_not_read():
    class Unread(ArraySource):
        def read(self, start=0, stop=None):
            raise AssertionError

    embedding = Unread("model.embed_tokens.weight", FLOAT32, np.zeros(4, "<f4"), "memory")
    head = Renamed(embedding, "lm_head.weight")
    assert list(finish({embedding.name: embedding, head.name: head}, None, ROOT)) == [embedding.name]


def test_heads_are_compared_up_to_the_first_difference(monkeypatch):
    monkeypatch.setattr(state_dict, "_CHUNK", 2)
    seen = []

    class Watched(ArraySource):
        def read(self, start=0, stop=None):
            seen.append((start, stop))
            return super().read(start, stop)

    def tensors(*head):
        pair = ("model.embed_tokens.weight", [1, 2, 3, 4, 5]), ("lm_head.weight", head)
        return {name: Watched(name, FLOAT32, np.array(numbers, "<f4"), "memory") for name, numbers in pair}

    assert list(finish(tensors(1, 2, 3, 4, 5), {}, ROOT)) == ["model.embed_tokens.weight"]
    assert seen == [(0, 2)] * 2 + [(2, 4)] * 2 + [(4, 5)] * 2
    seen.clear()
    assert len(finish(tensors(1, 2, 9, 4, 5), {}, ROOT)) == 2
    assert seen == [(0, 2)] * 2 + [(2, 4)] * 2
    assert len(finish(tensors(1, 2, 3, 4), {}, ROOT)) == 2


def test_zeros_of_two_signs_are_other_bits():
    tensors = {"model.embed_tokens.weight": source("model.embed_tokens.weight", 0.0)}
    tensors["lm_head.weight"] = source("lm_head.weight", -0.0)
    assert len(finish(tensors, None, ROOT)) == 2


@pytest.mark.parametrize(
    "key", ["q.lora_A.weight", "q.lora_B.default.weight", "e.lora_embedding_A", "q.lora_magnitude_vector"]
)
def test_adapters(key):
    with pytest.raises(CheckpointError, match="holds a LoRA adapter among its weights"):
        finish({"q.weight": source("q.weight", 1), key: source(key, 1)}, None, ROOT)


def test_unwrapping():
    inner = {"w": 1}
    assert unwrap(inner, "f") is inner
    assert unwrap({"model": inner, "step": 2}, "f") is inner
    assert unwrap({"state_dict": {"module": inner}}, "f") is inner
    for other in ({}, {1: 2}, [], None, {"model": {}}):
        with pytest.raises(CheckpointError, match="f: holds no state dict"):
            unwrap(other, "f")


def test_where_the_configuration_is(tmp_path):
    one, two, three = (tmp_path / name for name in "abc")
    assert find_side_root([one, two]) is None
    for folder in (one, two, three):
        folder.mkdir()
    assert find_side_root([one, two]) is None
    (one / "tokenizer.json").write_text("{}")
    assert find_side_root([one, two, three]) == one
    (three / "config.json").write_text("{}")
    assert find_side_root([one, two, three]) == three
