"""Damaged and hostile model directories through the command line: exit code 2, a message, and nothing written."""

import json
import os
import re
import shutil
import struct

import numpy as np
import pytest

from support.family import cli, tree
from support.models import write_model

BASE = {"model.layers.0.w": np.ones((2, 3)), "model.norm.weight": np.ones(3)}


@pytest.fixture
def models(tmp_path):
    for name in ("base", "bad"):
        write_model(tmp_path / name, BASE)
    return tmp_path


def header(file):
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def rewrite(file, head, data):
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def truncated(model, file):
    file.write_bytes(file.read_bytes()[:-4])


def overlapping(model, file):
    head, data = header(file)
    head["model.norm.weight"]["data_offsets"] = [0, 12]
    head["model.layers.0.w"]["data_offsets"] = [0, 24]
    rewrite(file, head, data)


def out_of_bounds(model, file):
    head, data = header(file)
    head["model.norm.weight"]["data_offsets"] = [2**40, 2**40 + 12]
    rewrite(file, head, data)


def bomb(model, file):
    file.write_bytes(struct.pack("<Q", 2**62) + b"{}")


def duplicate_keys(model, file):
    head, data = header(file)
    text = json.dumps(head)
    name = '"model.norm.weight":'
    rewrite(file, (text[:-1] + f", {name} {json.dumps(head['model.norm.weight'])}}}").encode(), data)


def index_outside(model, file):
    file.rename(model / "a.safetensors")
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(BASE, "../base/model.safetensors")})
    )


def link_outside(model, file):
    file.unlink()
    file.symlink_to("/etc/passwd")


def missing_shard(model, file):
    file.unlink()
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(BASE, "model-00001-of-00001.safetensors")})
    )


def pickle_only(model, file):
    file.unlink()
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")


def no_weights(model, file):
    file.unlink()


def delta(model, file):
    head, data = header(file)
    rewrite(file, head | {"__metadata__": {"format": "pt", "delta_encoding": "sparse"}}, data)


def adapter(model, file):
    file.rename(model / "adapter_model.safetensors")
    (model / "adapter_config.json").write_text("{}")


def no_directory(model, file):
    shutil.rmtree(model)


def a_file(model, file):
    shutil.rmtree(model)
    model.write_text("")


def not_json(model, file):
    rewrite(file, b"[" * 50, b"")


DAMAGES = [
    (truncated, "is truncated: its tensors end at byte"),
    (overlapping, "overlaps tensor 'model.norm.weight' by 12 bytes"),
    (out_of_bounds, "bytes between tensor .* belong to no tensor"),
    (bomb, "claims a header of 4611686018427387904 bytes"),
    (duplicate_keys, "the key 'model.norm.weight' appears twice"),
    (index_outside, r"'\.\./base/model\.safetensors' is not a plain file name"),
    (link_outside, "is a link to /etc/passwd, outside the model directory"),
    (missing_shard, "model-00001-of-00001.safetensors: does not exist"),
    (pickle_only, "pytorch_model.bin: is no sound torch archive"),
    (no_weights, "holds no weights"),
    (delta, "holds a sparse weight delta"),
    (adapter, "names no peft_type(?s:.*)Only LoRA and DoRA adapters can be merged"),
    (no_directory, "no such directory"),
    (a_file, "is a file, not a model directory"),
    (not_json, "does not start with a safetensors header"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_a_model_that_cannot_be_used(models, damage, message):
    damage(models / "bad", models / "bad" / "model.safetensors")
    before = tree(models)
    done = cli(models, "merge", "--method", "ties", "--base", "base", "bad", "-o", "out", HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stdout) == (2, "")
    first, *rest = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert "bad" in first
    assert rest, "the next step"
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert tree(models) == before
    assert not os.path.lexists(models / "out")
    assert not os.path.lexists(models / ".out.partial")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("merge_method: tise\nbase_model: base\nmodels: [{model: bad}]\n", "recipe.yaml:1: .*Did you mean 'ties'"),
        ("merge_method: ties\nbase_model: base\nmodels: []\n", "recipe.yaml"),
        (
            "merge_method: ties\nbase_model: base\nmodels:\n- model: bad\n  parameters: {density: -0.5}\n",
            "recipe.yaml:5: .*at least 0",
        ),
        (
            "merge_method: ties\nbase_model: base\nmodels:\n- model: bad\n  parameters: {densty: 0.5}\n",
            "recipe.yaml:5: .*Did you mean 'density'",
        ),
        ("merge_method: ties\nmodels: [{model: bad}]\n", "recipe.yaml.*base"),
    ],
)
def test_a_recipe_that_makes_no_sense(models, recipe, message):
    (models / "recipe.yaml").write_text(recipe)
    before = tree(models)
    done = cli(models, "merge", "recipe.yaml", "-o", "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(message, done.stderr.replace("\n", " ")), done.stderr
    assert tree(models) == before
