"""What only object stores and web servers do."""

import pytest

pytest.importorskip("obstore")

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.remote import object_store
from rlmerge.checkpoint.remote.object_store import ObjectStore
from rlmerge.errors import CheckpointError
from support.models import write_model
from support.stores import times, web_server


def test_shards_on_a_web_server_are_found_through_their_index(web, models):
    folder = models / "org" / "base"
    (folder / "model.safetensors").rename(folder / "part-a.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"model.embed_tokens.weight": "part-a.safetensors", "model.norm.weight": "part-a.safetensors"}}'
    )
    assert list(open_checkpoint(f"{web}/base").tensors) == ["model.embed_tokens.weight", "model.norm.weight"]


def test_a_server_that_knows_no_ranges(models, faults):
    with web_server(models, faults, ranges=False) as endpoint, pytest.raises(CheckpointError) as error:
        open_checkpoint(f"{endpoint}/org/base")
    assert "cannot be read in ranges" in str(error.value)


def test_no_access(web, faults):
    faults.plan = times(10**6, "403", "model.safetensors")
    with pytest.raises(CheckpointError, match="the store denies access"):
        open_checkpoint(f"{web}/base")


def test_a_bucket_of_too_many_objects(s3, monkeypatch):
    monkeypatch.setattr(object_store, "MAX_OBJECTS", 2)
    with pytest.raises(CheckpointError, match="holds more than 2 objects"):
        open_checkpoint(f"{s3}/base")


def test_a_bucket_that_is_not_there(s3):
    """Said at once: no other try would help."""
    with pytest.raises(CheckpointError, match=r"may not be read: there is no such bucket\n") as error:
        open_checkpoint("s3://no-such-bucket/base")
    assert error.value.where == "s3://no-such-bucket/base"


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_listing_that_is_denied_is_not_asked_for_again(s3, faults, status):
    faults.log.clear()
    faults.plan = lambda *_: status
    with pytest.raises(CheckpointError, match="may not be read: the store denies access") as error:
        open_checkpoint(f"{s3}/base")
    assert len(faults.log) == 1 and error.value.where == f"{s3}/base" and "hunter2" not in str(error.value)


def test_a_store_that_cannot_be_reached(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="the store cannot be reached") as error:
        open_checkpoint(f"{s3}/base")
    assert error.value.where == f"{s3}/base" and "AWS_ENDPOINT_URL (http://127.0.0.1:9)" in error.value.hint


@pytest.mark.parametrize("endpoint", ["not a url", "ftp://host", "http://", "http://h:99999", "http://h\u202ex"])
def test_an_endpoint_that_is_no_address(s3, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(CheckpointError, match="is no address") as error:
        ObjectStore(f"{s3}/base")
    assert "AWS_ENDPOINT_URL" in error.value.hint


@pytest.mark.parametrize("name", ["/x", "../x", "a\x01b"])
def test_an_object_whose_name_is_no_path_is_said_at_once(s3_endpoint, faults, name):
    boto3 = pytest.importorskip("boto3")
    boto3.client("s3", endpoint_url=s3_endpoint).put_object(Bucket="bucket", Key=f"m/{name}", Body=b"")
    faults.log.clear()
    with pytest.raises(CheckpointError, match="an object whose name is no path") as error:
        ObjectStore("s3://bucket/m").list()
    assert len(faults.log) == 1 and str(error.value).replace("\n", "").isprintable()


def test_a_scheme_in_capitals(s3):
    assert ObjectStore(f"{s3}/base".replace("s3://", "S3://")).list() == ObjectStore(f"{s3}/base").list()


def test_prefixes_that_only_begin_alike_are_apart(s3, models, s3_endpoint):
    """s3://bucket/org/base does not hold the objects of s3://bucket/org/base-2."""
    assert set(ObjectStore(f"{s3}/bas").list()) == set()
    assert set(ObjectStore(f"{s3}/base").list()) == {"config.json", "model.safetensors", "tokenizer_config.json"}


def test_an_adapter_in_a_store(web, models):
    import json

    import numpy as np

    folder = models / "org" / "lora"
    stem = "base_model.model.model.layers.0.mlp.up_proj"
    write_model(models / "org" / "base", {"model.layers.0.mlp.up_proj.weight": np.zeros((4, 3))}, "float32")
    write_model(folder, {f"{stem}.lora_A.weight": np.ones((1, 3)), f"{stem}.lora_B.weight": np.ones((4, 1))})
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "config.json").unlink()
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["up_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    base = open_checkpoint(f"{web}/base")
    found = open_checkpoint(f"{web}/lora", base=base).tensors["model.layers.0.mlp.up_proj.weight"]
    np.testing.assert_array_equal(found.read().view(np.float32), np.full(12, 2.0))
