import json
import re
import shutil

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32
from support.torchfiles import Obj, Tensor, pickled, save

METADATA = "torch.distributed.checkpoint.metadata"


def size(*numbers):
    return Obj("torch", "Size", (numbers,), called=True)


def write(root, items, shapes=None, **more):
    """A checkpoint of ``items``: (name, offsets, array) in order, in one file; ``more`` replaces an item's place."""
    root.mkdir(exist_ok=True)
    data, described, stored, shapes = b"", {}, {}, dict(shapes or {})
    places = []
    for name, at, array in items:
        content = save(root / "item", Tensor(array)).read_bytes()
        chunk = Obj(METADATA, "ChunkStorageMetadata", state={"offsets": size(*at), "sizes": size(*array.shape)})
        described.setdefault(name, []).append(chunk)
        shapes.setdefault(name, array.shape)
        places.append((name, at, {"relative_path": "__0_0.distcp", "offset": len(data), "length": len(content)}))
        data += content
    (root / "item").unlink()
    (root / "__0_0.distcp").write_bytes(data)
    entries = {
        name: Obj(
            METADATA, "TensorStorageMetadata", state={"properties": None, "size": size(*shapes[name]), "chunks": chunks}
        )
        for name, chunks in described.items()
    }
    entries |= more.get("entries", {})
    for i, (name, at, place) in enumerate(places):
        place |= more.get("places", {}).get(i, {})
        key = Obj(METADATA, "MetadataIndex", state={"fqn": name, "index": i, "offset": size(*at)})
        stored[id(key)] = (key, Obj("torch.distributed.checkpoint.filesystem", "_StorageInfo", state=place))
    (root / ".metadata").write_bytes(_pickled(entries, list(stored.values())))
    return root


def _pickled(entries, stored):
    """Metadata whose storage data has objects as keys."""
    body = pickled({"state_dict_metadata": entries})[2:-1]
    pairs = b"".join(pickled(key)[2:-1] + pickled(info)[2:-1] for key, info in stored)
    head = b"\x80\x02ctorch.distributed.checkpoint.metadata\nMetadata\n)\x81"
    return head + body + pickled("storage_data")[2:-1] + b"}(" + pairs + b"us" + b"b."


def values(*shape):
    return np.arange(np.prod(shape), dtype="<f4").reshape(shape)


HALVES = [("w", (0, 0), values(4, 2)[:2]), ("w", (2, 0), values(4, 2)[2:])]


@pytest.mark.parametrize(("form", "dtype"), [("dcp-app", FLOAT32), ("dcp-model", BFLOAT16)])
def test_every_form_holds_the_model(holds, fixtures, form, dtype):
    model = holds(fixtures / form)
    assert model.format == "a DCP checkpoint"
    assert model.tensors["model.norm.weight"].dtype is dtype


def test_optimizer_states_are_left_alone(fixtures):
    assert not [name for name in open_checkpoint(fixtures / "dcp-app").tensors if "exp_avg" in name or "optim" in name]


@pytest.mark.parametrize("below", ["checkpoint-20", "checkpoint-20/pytorch_model_fsdp_0"])
def test_a_checkpoint_of_accelerate(holds, copied, below):
    folder = copied("dcp-model", "checkpoint-20/pytorch_model_fsdp_0")
    above = folder.parent
    copied("dcp-app", "checkpoint-20/optimizer_0")
    (above / "config.json").write_text('{"model_type": "tiny"}')
    (above / "rng_state_0.pth").write_bytes(b"never read")
    model = holds(above.parent / below)
    assert model.config == {"model_type": "tiny"}
    assert model.side_root == above


def test_the_configuration_of_another_model_is_not_taken(copied):
    folder = copied("dcp-model", "models/mine")
    (folder.parent / "config.json").write_text('{"model_type": "other"}')
    assert open_checkpoint(folder).config is None


def test_a_step_of_prime_rl(holds, copied):
    folder = copied("dcp-app", "checkpoints/step_20/trainer")
    holds(folder.parent)
    shutil.copytree(folder.parent, folder.parents[1] / "step_100")
    with pytest.raises(CheckpointError, match=r"Did you mean '.*checkpoints/step_100', the last of 2 below it"):
        open_checkpoint(folder.parents[1])


def test_a_file_is_missing(copied):
    root = copied("dcp-model")
    (root / "__2_0.distcp").unlink()
    with pytest.raises(CheckpointError, match=r"__2_0\.distcp: does not exist"):
        open_checkpoint(root)


def test_the_metadata_is_missing(copied):
    root = copied("dcp-model")
    (root / ".metadata").unlink()
    with pytest.raises(CheckpointError, match=r"holds \.distcp files but no \.metadata(?s:.*)did not end"):
        open_checkpoint(root)


@pytest.mark.parametrize("ours", ["dcp-model", "dcp-app"])
def test_the_metadata_of_another_run(copied, fixtures, ours):
    root = copied(ours)
    other = {"dcp-model": "dcp-app", "dcp-app": "dcp-model"}[ours]
    shutil.copy(fixtures / other / ".metadata", root / ".metadata")
    with pytest.raises(CheckpointError, match=r"\.distcp: (holds no item at|ends at byte)(?s:.*)not of one save"):
        open_checkpoint(root)


def test_a_file_of_another_run(copied, fixtures):
    root = copied("dcp-model")
    shutil.copy(fixtures / "dcp-model/__3_0.distcp", root / "__0_0.distcp")
    with pytest.raises(CheckpointError, match="not of one save"):
        open_checkpoint(root)


def test_a_file_that_nothing_names(copied):
    root = copied("dcp-model")
    shutil.copy(root / "__0_0.distcp", root / "__7_0.distcp")
    assert "__7_0.distcp belongs to no item of .metadata" in open_checkpoint(root).warnings[0]


def test_worked_example(tmp_path):
    tensors = open_checkpoint(write(tmp_path, HALVES, {"w": (4, 2)})).tensors
    assert tensors["w"].read().tolist() == list(range(8))
    assert tensors["w"].read(3, 7).tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["model.embed_tokens.weight", "model.norm.weight"], None),
        (["model.embed_tokens.weight", "lm_head.weight"], None),
        (["model.model.norm.weight", "model.model.x"], ["model.norm.weight", "model.x"]),
        (["model.model.norm.weight", "model.lm_head.weight"], ["model.norm.weight", "lm_head.weight"]),
        (["model.transformer.wte.weight"], ["transformer.wte.weight"]),
        (["app.model.model.norm.weight", "app.model.lm_head.weight"], ["model.norm.weight", "lm_head.weight"]),
        (["app.model.model.norm.weight", "app.model.model.x"], ["model.norm.weight", "model.x"]),
        (["model.norm.weight", "optimizer.state.norm.weight.exp_avg"], ["norm.weight"]),
        (["dcp.model.norm.weight", "dcp.optim.state.norm.weight.step"], ["norm.weight"]),
        (["layers.0.weight", "norm.weight"], None),
        (["w"], None),
    ],
)  # fmt: skip
def test_names(tmp_path, names, found):
    write(tmp_path, [(name, (0,), values(2) + i) for i, name in enumerate(names)])
    assert list(open_checkpoint(tmp_path).tensors) == (names if found is None else found)


def test_entries_that_are_no_tensors(tmp_path):
    """A number beside the model's tensors does not make ``model.`` the path of an object."""
    entries = {"step": Obj(METADATA, "BytesStorageMetadata", state={})}
    write(tmp_path, [("model.w", at, half) for _, at, half in HALVES], {"model.w": (4, 2)}, entries=entries)
    assert set(open_checkpoint(tmp_path).tensors) == {"model.w"}


def test_fsdp_of_accelerate_always_saves_a_model_object(tmp_path):
    items = [("model.visual.w", (0,), values(2)), ("model.head.w", (0,), values(2) + 1)]
    folder = tmp_path / "pytorch_model_fsdp_0"
    assert set(open_checkpoint(write(folder, items)).tensors) == {"visual.w", "head.w"}
    assert set(open_checkpoint(write(tmp_path / "step_1", items)).tensors) == {"model.visual.w", "model.head.w"}


@pytest.mark.parametrize(
    ("items", "more", "message"),
    [
        (HALVES[:1], {}, "only 4 of its 8 elements are there"),
        ([HALVES[0], ("w", (1, 0), values(2, 2))], {}, "parts overlap"),
        ([HALVES[0], ("w", (3, 0), values(2, 2))], {}, "is no part of w"),
        (HALVES, {"places": {1: {"offset": 0}}}, "places two items at byte 0 of __0_0.distcp"),
        (HALVES, {"places": {1: {"offset": 9}}}, "__0_0.distcp: holds no item at byte 9"),
        (HALVES, {"places": {1: {"offset": 1 << 40}}}, r"ends at byte \d+, where .metadata places part of 'w' at 1099"),
        (HALVES, {"places": {1: {"offset": -1}}}, "before the beginning of a file"),
        (HALVES, {"places": {1: {"length": -1}}}, "before the beginning of a file"),
        (HALVES, {"places": {1: {"relative_path": "../x"}}}, "'../x' is not a plain file name"),
        (HALVES, {"places": {1: {"relative_path": "/etc/passwd"}}}, "is not a plain file name"),
        (HALVES, {"places": {1: {"relative_path": 7}}}, "places an item in a form that is not known"),
        (HALVES, {"places": {1: {"transform_descriptors": ("zstd",)}}}, "stored transformed, as by compression"),
        (HALVES, {"entries": {"w": Obj(METADATA, "TensorStorageMetadata", state={})}}, "in a form that is not known"),
    ],
)  # fmt: skip
def test_metadata_that_does_not_fit(tmp_path, items, more, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(write(tmp_path, items, {"w": (4, 2)}, **more))


def test_an_item_of_another_shape_or_kind(tmp_path):
    write(tmp_path, HALVES, {"w": (4, 2)})
    content = (tmp_path / "__0_0.distcp").read_bytes()
    (tmp_path / "__0_0.distcp").write_bytes(content.replace(b"\x8a\x01\x02\x8a\x01\x02t", b"\x8a\x01\x01\x8a\x01\x02t"))
    with pytest.raises(CheckpointError, match=r"holds \[1, 2\] where .metadata places \[2, 2\] of 'w'"):
        open_checkpoint(tmp_path)
    write(tmp_path, HALVES, {"w": (4, 2)})
    content = (tmp_path / "__0_0.distcp").read_bytes()
    (tmp_path / "__0_0.distcp").write_bytes(
        re.sub(rb"ctorch\._utils\n_rebuild_tensor_v2\n", b"cos\nsystem" + b"m" * 22 + b"\n", content)
    )
    with pytest.raises(CheckpointError, match="cannot be read without running it"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02N.", pickled({}), pickled({"state_dict_metadata": {}}), json.dumps({}).encode()]
)
def test_metadata_that_is_none(copied, content):
    root = copied("dcp-model")
    (root / ".metadata").write_bytes(content)
    with pytest.raises(CheckpointError):
        open_checkpoint(root)
