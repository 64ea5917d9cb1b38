"""Merges into an object store: the bytes of a merge on this machine, and never half a model for whoever reads there."""

import numpy as np
import pytest

pytest.importorskip("obstore")
pytest.importorskip("moto")
pytest.importorskip("boto3")


import rlmerge
from rlmerge.checkpoint.remote import outbox
from rlmerge.cli.app import run as command
from rlmerge.errors import RequestError, RunError
from support.models import write_model
from support.uploads import (
    OUT,
    SHAPES,
    SHARDS,
    SIZE,
    alone,
    asked,
    before_the_end,
    broken,
    bucket,
    family,
    faults,
    left,
    merge,
    puts,
    readable,
    server,
)

__all__ = ["alone", "bucket", "family", "faults", "server"]  # fixtures


@pytest.mark.parametrize("size", [SIZE, 5_000_000_000])
def test_the_objects_are_the_files_of_a_merge_here(family, bucket, tmp_path, size, alone):
    """Several shards with an index, and a single file; nothing is left here or in the store."""
    result = merge(family, OUT, size)
    assert bucket.folder("models/merged") == alone(size)
    assert set(bucket.objects()) == {f"models/merged/{name}" for name in alone(size)}
    assert bucket.unfinished() == [] and left(tmp_path) == []
    assert result.to_dict()["out"] == OUT
    assert rlmerge.verify(OUT).ok


def test_index_and_manifest_come_last(family, bucket, faults):
    merge(family, OUT)
    order = puts(faults)
    assert sorted(order[:3]) == SHARDS and order[-2:] == ["model.safetensors.index.json", "MANIFEST.json"]
    assert "config.json" in order[3:-2]


def test_of_one_file_the_weights_come_after_what_lies_beside_them(family, bucket, faults):
    merge(family, OUT, 5_000_000_000)
    assert puts(faults)[-2:] == ["model.safetensors", "MANIFEST.json"]


def test_failures_that_pass_are_tried_again(family, bucket, faults, monkeypatch, alone):
    monkeypatch.setattr(outbox, "ATTEMPTS", 4)
    faults.plan = lambda verb, path, number: "503" if number % 3 == 0 else None
    merge(family, OUT)
    faults.plan = lambda *_: None
    assert bucket.folder("models/merged") == alone()


@pytest.mark.parametrize("name", [SHARDS[1], "config.json", "model.safetensors.index.json", "MANIFEST.json"])
def test_a_store_that_fails_leaves_no_model_and_work_to_resume(family, bucket, faults, tmp_path, name, alone):
    broken(faults, f"merged/{name}")
    with pytest.raises(RunError, match="cannot be written") as error:
        merge(family, OUT)
    assert error.value.where == f"{OUT}/{name}" and "--resume" in error.value.hint
    faults.plan = lambda *_: None
    assert "MANIFEST.json" not in bucket.folder("models/merged")
    assert readable(OUT) == (name == "MANIFEST.json"), "without its manifest it is whole, but not proven"
    with pytest.raises(RequestError, match=r"left .* finished tensors there"):
        merge(family, OUT)
    faults.log.clear()
    result = merge(family, OUT, resume=True)
    assert result.resumed > 0 and SHARDS[0] not in puts(faults)
    assert bucket.folder("models/merged") == alone()
    assert left(tmp_path) == [] and set(bucket.objects()) == {f"models/merged/{x}" for x in alone()}


def test_a_shard_that_changed_in_the_store_is_merged_again(family, bucket, faults, tmp_path):
    broken(faults, "config.json")
    with pytest.raises(RunError):
        merge(family, OUT)
    faults.plan = lambda *_: None
    bucket.put(f"models/merged/{SHARDS[0]}", b"another")
    faults.log.clear()
    merge(family, OUT, resume=True)
    assert SHARDS[0] in puts(faults) and SHARDS[1] not in puts(faults)
    assert rlmerge.verify(OUT).ok


def test_work_that_is_discarded_with_force(family, bucket, faults, alone):
    """A merge of other shards takes the place of what a failed one had sent, of which nothing stays."""
    broken(faults, "config.json")
    with pytest.raises(RunError):
        merge(family, OUT)
    faults.plan = lambda *_: None
    merge(family, OUT, 5_000_000_000, force=True)
    assert bucket.folder("models/merged") == alone(5_000_000_000)


def test_a_target_that_exists_is_refused(family, bucket, tmp_path):
    merge(family, OUT)
    for action in (merge, lambda family, out: rlmerge.plan(asked(family), out)):
        with pytest.raises(RequestError, match="the output exists") as error:
            action(family, OUT)
        assert error.value.where == OUT and "--force" in error.value.hint


@pytest.mark.parametrize("names", [["notes.txt"], ["config.json", "a/model.safetensors"], ["a/config.json"]])
def test_force_replaces_the_folder_of_one_model_only(family, bucket, names):
    for name in names:
        bucket.put(f"models/merged/{name}", b"{}")
    with pytest.raises(RequestError, match="is not the folder of a model"):
        merge(family, OUT, force=True)
    assert set(bucket.folder("models/merged")) == set(names)


def test_an_old_model_stays_until_the_new_one_is_whole(family, bucket, faults, alone):
    """Uploads go beside it; a failure there leaves it as it was; in the end nothing of it is left."""
    merge(family, OUT, 5_000_000_000)
    bucket.put("models/merged/old.txt", b"old")
    before = bucket.folder("models/merged")
    broken(faults, ".merged.partial/config.json")
    with pytest.raises(RunError):
        merge(family, OUT, force=True)
    assert bucket.folder("models/merged") == before and SHARDS[0] in bucket.folder("models/.merged.partial")
    faults.plan = lambda *_: None
    faults.log.clear()
    merge(family, OUT, force=True, resume=True)
    assert bucket.folder("models/merged") == alone()
    assert bucket.folder("models/.merged.partial") == {}
    written = [path for verb, path, _ in faults.log if verb == "PUT"]
    assert not any(".merged.partial/model-00001" in path for path in written), "what was sent is not sent again"
    assert written[-1].endswith("/models/merged/MANIFEST.json")


def test_while_an_old_model_is_replaced_there_is_none_rather_than_a_mixture(family, bucket, faults, alone):
    merge(family, OUT, SIZE, dtype="float32")
    broken(faults, f"models/merged/{SHARDS[2]}")
    with pytest.raises(RunError):
        merge(family, OUT, force=True)
    faults.plan = lambda *_: None
    assert not readable(OUT)
    merge(family, OUT, force=True, resume=True)
    assert bucket.folder("models/merged") == alone()


def test_what_appears_in_the_folder_meanwhile(family, bucket, monkeypatch):
    plan = rlmerge.plan(asked(family), OUT, shard_size=SIZE)
    bucket.put("models/merged/other.safetensors", b"x")
    with pytest.raises(RequestError, match="the output exists"):
        rlmerge.api.run_plan(plan, OUT)
    bucket.client.delete_object(Bucket="bucket", Key="models/merged/other.safetensors")
    before_the_end(monkeypatch, lambda: bucket.put("models/merged/other.safetensors", b"x"))
    with pytest.raises(RunError, match="appeared while the merge ran") as error:
        rlmerge.api.run_plan(plan, OUT)
    assert error.value.where == f"{OUT}/other.safetensors" and not readable(OUT)


def test_an_input_that_turns_out_wrong_leaves_nothing(family, bucket, tmp_path):
    """The last tensor is not finite: what was sent before that was seen is removed."""
    folder = tmp_path / "broken"
    tensors = {name: np.ones(shape) for name, shape in SHAPES.items()}
    tensors["model.layers.0.mlp.up_proj.weight"][-1, -1] = np.nan
    write_model(folder, tensors, "bfloat16")
    wrong = {"merge_method": "linear", "models": [{"model": str(family / "e0")}, {"model": str(folder)}]}
    with pytest.raises(RequestError):
        rlmerge.merge(wrong, OUT, shard_size=SIZE)
    assert bucket.objects() == {} and bucket.unfinished() == [] and left(tmp_path) == []


@pytest.mark.parametrize("place", ["s3://bucket/models/e0", "s3://bucket/models/e0/merged", "s3://bucket/models"])
def test_an_input_is_not_replaced(family, bucket, place):
    for path in (family / "e0").iterdir():
        bucket.put(f"models/e0/{path.name}", path.read_bytes())
    models = {"merge_method": "linear", "models": [{"model": "s3://bucket/models/e0"}, {"model": str(family / "e1")}]}
    with pytest.raises(RequestError, match="an input of the merge"):
        rlmerge.plan(models, place, force=True)


def test_from_store_to_store(family, bucket, alone):
    for name in ("base", "e0", "e1"):
        for path in (family / name).iterdir():
            bucket.put(f"{name}/{path.name}", path.read_bytes())
    models = [{"model": f"s3://bucket/{name}"} for name in ("e0", "e1")]
    there = {"merge_method": "ties", "base_model": "s3://bucket/base", "models": models, "parameters": {"density": 0.3}}
    rlmerge.merge(there, OUT, shard_size=SIZE)
    weights = {name: data for name, data in alone().items() if "safetensors" in name}
    assert {name: data for name, data in bucket.folder("models/merged").items() if name in weights} == weights


def test_a_large_shard_goes_in_parts(bucket, faults, tmp_path, monkeypatch):
    """11 MB in parts of 5 MiB; when a part fails for good, the others are given up in the store, too."""
    monkeypatch.setattr(outbox, "_PART", 5 * 2**20)
    for seed, name in enumerate(("a", "b")):
        values = np.random.default_rng(seed).random((1400, 2000), np.float32)
        write_model(tmp_path / name, {"model.embed_tokens.weight": values, "model.norm.weight": values[0]}, "float32")
    both = {"merge_method": "linear", "models": [{"model": str(tmp_path / "a")}, {"model": str(tmp_path / "b")}]}
    name = "model-00001-of-00002.safetensors"
    seen = broken(faults, f"merged/{name}", after=2)
    with pytest.raises(RunError, match="cannot be written"):
        rlmerge.merge(both, OUT, shard_size=10_000_000)
    assert len(seen) > 2 and bucket.unfinished() == []
    faults.plan = lambda *_: None
    rlmerge.merge(both, OUT, shard_size=10_000_000, resume=True)
    assert rlmerge.verify(OUT).ok and bucket.unfinished() == []


def test_a_plan_says_what_goes_up_and_what_stays_here(family, bucket, tmp_path):
    plan = rlmerge.plan(asked(family), OUT, shard_size=SIZE, memory="512MiB")
    here = rlmerge.plan(asked(family), tmp_path / "here", shard_size=SIZE, memory="512MiB")
    told = plan.to_dict()
    assert (told["out"], told["bytes_sent"]) == (OUT, sum(shard.size for shard in plan.shards))
    assert told["bytes_here"] <= told["bytes_sent"] and here.to_dict()["bytes_sent"] == 0
    assert plan.peak_memory == here.peak_memory + 64 * 2**20 and plan.digest == here.digest
    assert bucket.objects() == {} and left(tmp_path) == []


def test_one_flipped_bit_in_the_store_is_named(family, bucket):
    merge(family, OUT)
    data = bytearray(bucket.folder("models/merged")[SHARDS[1]])
    data[-1] ^= 1
    bucket.put(f"models/merged/{SHARDS[1]}", bytes(data))
    bucket.put("models/merged/extra.bin", b"x")
    found = rlmerge.verify(OUT)
    assert len(found.problems) == 2 and not found.ok
    assert SHARDS[1] in found.problems[0] and "was altered" in found.problems[0]
    assert found.problems[1] == "extra.bin: is not in MANIFEST.json"


def test_no_secret_is_written(family, bucket):
    merge(family, OUT)
    assert not any(b"hunter2" in data for data in bucket.objects().values())


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://bucket", "names no folder"),
        ("s3://key:hunter2@bucket/merged", "user name or a secret"),
        ("https://host/merged", "nothing can be written to https://"),
        ("hf://org/name", "rlmerge push"),
    ],
)
def test_addresses_that_nothing_is_written_to(family, address, reason):
    with pytest.raises(RequestError, match=reason) as error:
        merge(family, address)
    assert "hunter2" not in str(error.value)


def test_from_the_command_line(family, bucket, tmp_path, capsys, monkeypatch):
    """Merge, plan and verify name the address; what writes directories only refuses it."""
    models = ["--method", "ties", "--base", family / "base", family / "e0", "-o", OUT]
    merge_it = [*map(str, models), "--shard-size", "400KB"]
    assert command(["plan", *merge_it, "--bandwidth", "1MB"]) == 0
    told = capsys.readouterr().out
    assert OUT in told and "to upload" in told and "on this disk at a time" in told
    assert command(["merge", *merge_it, "--quiet"]) == 0
    assert f"→ {OUT}" in capsys.readouterr().out
    assert command(["verify", OUT, "--quiet"]) == 0
    assert capsys.readouterr().out.startswith(f"{OUT}: ok (")
    assert command(["merge", *merge_it, "--quiet"]) == 2
    assert "the output exists" in capsys.readouterr().err
    for further in (["--shards", "1/2"], ["--as", "adapter"], ["--keep-stages"], ["--executor", "ray"]):
        assert command(["merge", *merge_it, *further]) == 2
    assert command(["convert", str(family / "e0"), "-o", OUT]) == 2
    assert "is no place on this machine" in capsys.readouterr().err
    assert command(["verify", OUT, "--load"]) == 2
