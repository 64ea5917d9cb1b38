"""Remote models as a whole: opened, read, refused; the same for every kind of store."""

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.remote import mirror
from rlmerge.errors import CheckpointError, RunError
from support.models import write_model
from support.stores import commit_of, times


def values(source):
    return (source.read().astype(np.uint32) << 16).view(np.float32).reshape(source.shape)


def test_a_remote_model_is_what_the_directory_is(address, models):
    here, there = open_checkpoint(models / "org" / "base"), open_checkpoint(f"{address}/base")
    assert list(there.tensors) == list(here.tensors)
    assert there.fingerprint() == here.fingerprint()
    assert there.config == here.config and there.format == "safetensors"
    assert [path.name for path in there.side_files] == ["config.json", "tokenizer_config.json"]
    for name, source in there.tensors.items():
        np.testing.assert_array_equal(values(source), values(here.tensors[name]))
        assert source.where == f"{address}/base/model.safetensors: {name}"
        assert source.scratch.per_element == 2, "what is read takes memory"
    assert there.path.name == "base"


def test_opening_reads_headers_alone(address, faults, tmp_path, models):
    rows = np.zeros((2000, 64))
    write_model(models / "org" / "large", {"model.embed_tokens.weight": rows}, "float32")
    if address.startswith("s3"):
        pytest.skip("the folder is uploaded before")
    open_checkpoint(f"{address}/large")
    assert 0 < faults.bytes_of("large/model.safetensors") < 2000


@pytest.mark.parametrize("fault", ["500", "503", "cut"])
def test_failures_that_pass_change_nothing(address, faults, fault, models):
    found = open_checkpoint(f"{address}/base").tensors["model.embed_tokens.weight"]
    faults.plan = times(3, fault, "model.safetensors")
    np.testing.assert_array_equal(values(found), np.arange(24.0).reshape(6, 4))


def test_a_store_that_keeps_failing(address, faults):
    found = open_checkpoint(f"{address}/base").tensors["model.norm.weight"]
    faults.plan = times(1000, "500", "model.safetensors")
    with pytest.raises(CheckpointError, match="8 requests failed") as error:
        found.read()
    assert error.value.where == f"{address}/base/model.safetensors"


def test_the_secrets_of_the_environment_are_in_no_message(address, faults):
    faults.plan = times(1000, "500")
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(f"{address}/base")
    assert not any(secret in str(error.value) for secret in ("hunter2", "hf_secret", "signature"))


def test_nothing_is_there(address):
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(f"{address}/nothing")
    assert error.value.where == f"{address}/nothing"


def test_weights_of_other_formats(address, models, upload):
    folder = models / "org" / "pickled"
    folder.mkdir()
    for name in ("pytorch_model.bin", "config.json"):
        (folder / name).write_bytes(b"{}")
    upload("org/pickled/config.json", b"{}")
    with pytest.raises(CheckpointError, match="but no safetensors weights"):
        open_checkpoint(f"{address}/pickled")


def test_messages_about_what_is_in_a_model_name_its_address(web, models):
    (models / "org" / "base" / "config.json").write_text("{broken")
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(f"{web}/base")
    assert error.value.where.startswith(f"{web}/base/config.json")


def test_warnings_name_the_address(web, models):
    (models / "org" / "base" / "config.json").unlink()
    (warning,) = open_checkpoint(f"{web}/base").warnings
    assert warning.startswith(f"{web}/base has no config.json")


def test_a_commit_of_the_hub(hub):
    found = open_checkpoint(f"{hub}/base")
    assert found.revision == commit_of("org/base")


@pytest.mark.parametrize("name", ["base@other", "missing"])
def test_what_the_hub_does_not_have(hub, name):
    with pytest.raises(CheckpointError, match="no revision 'other'" if "@" in name else "no such repository"):
        open_checkpoint(f"{hub}/{name}")


def test_a_revision_where_there_are_none(web):
    with pytest.raises(CheckpointError, match="has no revisions"):
        open_checkpoint(f"{web}/base", revision="main")


def test_secrets_in_an_address():
    with pytest.raises(CheckpointError, match="secret") as error:
        open_checkpoint("https://me:hunter2@host/x")
    assert "hunter2" not in str(error.value)


def test_large_side_files_are_refused(web, monkeypatch):
    monkeypatch.setattr(mirror, "MAX_SMALL", 1)
    with pytest.raises(CheckpointError, match="at most 1 of a file beside weights"):
        open_checkpoint(f"{web}/base")
    monkeypatch.setattr(mirror, "MAX_SMALL", 1000)
    monkeypatch.setattr(mirror, "MAX_FETCHED", 10)
    with pytest.raises(CheckpointError, match="at most 10 are fetched"):
        open_checkpoint(f"{web}/base")


def test_a_side_file_that_changes_while_it_is_fetched(web, faults, models):
    def plan(method, path, number):
        if method == "GET" and path.endswith("/config.json"):
            (models / "org" / "base" / "config.json").write_text('{"a": 1}')

    faults.plan = plan
    with pytest.raises(RunError, match="changed while it was fetched"):
        open_checkpoint(f"{web}/base")
