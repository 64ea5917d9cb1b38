"""Merges into an object store: the bytes of a merge on this machine, and never half a model for whoever reads there."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("obstore")
pytest.importorskip("moto")
pytest.importorskip("boto3")

import boto3
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.s3.models import s3_backends

import rlmerge
from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.remote import hold, outbox, store, upload
from rlmerge.checkpoint.remote.folder import Folder
from rlmerge.checkpoint.remote.outbox import Outbox
from rlmerge.cli.app import run as command
from rlmerge.errors import CheckpointError, RequestError, RunError
from support.family import recipe, tree
from support.models import write_model
from support.stores import Faults, s3, use_s3

SHAPES = {"model.embed_tokens.weight": (500, 600), "model.layers.0.mlp.up_proj.weight": (301, 1023), "model.s": ()}
SECRETS = {"aws_access_key_id": "key", "aws_secret_access_key": "hunter2"}
SIZE = 400_000
"""Bytes of a shard: the larger two tensors get one each."""


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """``base``, ``e0`` and ``e1``."""
    folder = tmp_path_factory.mktemp("family")
    rng = np.random.default_rng(3)
    base = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    for name in ("base", "e0", "e1"):
        changed = {k: w + (name != "base") * 0.1 * rng.standard_normal(w.shape) for k, w in base.items()}
        write_model(folder / name, changed, "bfloat16")
    return folder


@pytest.fixture(scope="module")
def server():
    """One for all tests, and Amazon's own library beside it, which takes long to start."""
    told = Faults()
    with s3(told) as endpoint:
        yield told, endpoint, boto3.client("s3", "us-east-1", endpoint_url=endpoint, **SECRETS)


@pytest.fixture
def faults(server, monkeypatch):
    monkeypatch.setattr(store, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(store, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(outbox, "ATTEMPTS", 2)
    told = server[0]
    told.plan = Faults().plan
    told.log.clear()
    return told


@pytest.fixture
def bucket(server, faults, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    use_s3(monkeypatch, server[1])
    return Bucket(server[2])


class Bucket:
    """What is in the bucket; written by Amazon's own library."""

    def __init__(self, client):
        self.client = client

    def objects(self):
        """What the server holds, read where it keeps it: a test asks often."""
        return {name: key.value for name, key in s3_backends[ACCOUNT]["aws"].buckets["bucket"].keys.items()}

    def folder(self, name):
        found = self.objects()
        return {key.removeprefix(f"{name}/"): data for key, data in found.items() if key.startswith(f"{name}/")}

    def unfinished(self):
        return self.client.list_multipart_uploads(Bucket="bucket").get("Uploads", [])

    def put(self, name, data):
        self.client.put_object(Bucket="bucket", Key=name, Body=data)


OUT = "s3://bucket/models/merged"


def asked(family, method="ties"):
    return recipe(family, method, count=2, density=0.3)


def merge(family, out, size=SIZE, **options):
    return rlmerge.merge(asked(family), out, shard_size=size, **options)


@pytest.fixture(scope="module")
def alone(family, tmp_path_factory):
    """The files of a merge into a directory, with shards of such a size."""
    place, made = tmp_path_factory.mktemp("alone"), {}

    def of(size=SIZE):
        if size not in made:
            merge(family, place / str(size), size)
            made[size] = tree(place / str(size))
        return made[size]

    return of


def left(tmp_path):
    """What uploads have left in the cache."""
    return [
        path
        for path in (tmp_path / "cache" / "rlmerge" / "uploads").rglob("*")
        if path.is_file() and path.name != "number"
    ]


@pytest.mark.parametrize("size", [SIZE, 5_000_000_000])
def test_the_objects_are_the_files_of_a_merge_here(family, bucket, tmp_path, size, alone):
    """Several shards with an index, and a single file; nothing is left here or in the store."""
    result = merge(family, OUT, size)
    assert bucket.folder("models/merged") == alone(size)
    assert set(bucket.objects()) == {f"models/merged/{name}" for name in alone(size)}
    assert bucket.unfinished() == [] and left(tmp_path) == []
    assert result.to_dict()["out"] == OUT
    assert rlmerge.verify(OUT).ok


SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]


def puts(faults):
    """Names of the objects of the target in the order in which they were put."""
    return [path.rpartition("/")[2] for verb, path, _ in faults.log if verb == "PUT" and "models/merged/" in path]


def broken(faults, suffix, after=0):
    """From the ``after``-th request to write something of that name, all fail; returns the fault's own count."""
    seen = []

    def plan(verb, path, number):
        if verb in ("PUT", "POST") and path.endswith(suffix):
            seen.append(path)
            return "500" if len(seen) > after else None
        return None

    faults.plan = plan
    return seen


def before_the_end(monkeypatch, action):
    """Do something when all has been sent but what makes a model of it."""
    check = Folder.check_unchanged
    monkeypatch.setattr(Folder, "check_unchanged", lambda *given: (action(), check(*given)))


def readable(address):
    """Whether a reader finds a model there."""
    try:
        open_checkpoint(address)
    except CheckpointError:
        return False
    return True


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


def test_another_writer_of_the_same_shards_is_noticed(family, bucket, monkeypatch):
    before_the_end(monkeypatch, lambda: bucket.put(f"models/merged/{SHARDS[0]}", b"another"))
    with pytest.raises(RunError, match="somebody else writes there"):
        merge(family, OUT)
    assert not readable(OUT)


def interrupted(family, faults, name="merged/config.json", **options):
    """A merge that ends when it writes an object of that name."""
    broken(faults, name)
    with pytest.raises(RunError):
        merge(family, OUT, **options)
    faults.plan = lambda *_: None


def test_of_two_machines_the_second_is_refused_and_writes_nothing(family, bucket, monkeypatch, tmp_path):
    refused = []

    def other():
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        before = bucket.objects()
        with pytest.raises(RequestError, match="another run is writing there") as error:
            merge(family, OUT, force=True)
        refused.append((error.value.where, bucket.objects() == before))

    before_the_end(monkeypatch, other)
    # A model of before: into its folder the first machine writes at its end only.
    bucket.put("models/merged/config.json", b"{}")
    merge(family, OUT, force=True)
    assert refused == [(OUT, True)] and rlmerge.verify(OUT).ok


def test_a_machine_that_was_overtaken_publishes_nothing(family, bucket, monkeypatch, tmp_path):
    def overtake():
        outbox = Outbox("s3://bucket/models")
        found = outbox.read_small(".merged.partial/upload.json", 10**6)
        monkeypatch.setattr(hold, "STALE", -1.0)
        other = hold.Hold(outbox, "merged", tmp_path / "other", "plan")
        other.take()
        other.end(let_go=False)
        assert found is not None

    check = hold.Hold.check
    monkeypatch.setattr(hold.Hold, "check", lambda self: (overtake(), check(self)))
    with pytest.raises(RunError, match="another run has taken over"):
        merge(family, OUT)
    assert not readable(OUT)


def test_a_run_that_is_killed_goes_on_and_keeps_others_out(family, bucket, faults, monkeypatch, tmp_path, alone):
    """By SIGKILL, when the store is asked to take the last shard; bench/kill.py does it at all moments."""
    asked = ["--method", "ties", "-p", "density=0.3", "--base", family / "base", family / "e0", family / "e1"]
    words = [sys.executable, "-c", "from rlmerge.cli import main; main()", "merge", *map(str, asked), "--quiet"]
    child = []

    def kill(verb, path, number):
        if verb == "PUT" and path.endswith(SHARDS[2]):
            os.kill(child[0].pid, signal.SIGKILL)
        return

    faults.plan = kill
    child.append(subprocess.Popen([*words, "--shard-size", "400KB", "-o", OUT], stdout=subprocess.DEVNULL))
    assert child[0].wait(60) == -signal.SIGKILL
    faults.plan = lambda *_: None
    assert not readable(OUT) and set(SHARDS) & set(bucket.folder("models/merged"))
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        with pytest.raises(RequestError, match="the output exists"):
            merge(family, OUT)
    merge(family, OUT, resume=True)
    assert bucket.folder("models/merged") == alone() and bucket.unfinished() == []
    assert set(bucket.objects()) == {f"models/merged/{name}" for name in alone()}


def test_a_run_that_is_killed_after_its_end_has_its_output(family, bucket, monkeypatch, alone):
    """The manifest is there, but so are marker and record of the run."""

    def killed(self, **given):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(Folder, "clear_staging", killed)
        with pytest.raises(KeyboardInterrupt):
            merge(family, OUT)
    assert bucket.folder("models/merged") == alone()
    with pytest.raises(RequestError, match="the output exists") as error:
        merge(family, OUT, resume=True)
    assert "rlmerge verify" in error.value.hint
    # Nothing of it is work that another merge would discard.
    merge(family, OUT, 5_000_000_000, force=True, resume=True)
    assert bucket.objects() == {f"models/merged/{name}": data for name, data in alone(5_000_000_000).items()}


def test_a_strangers_file_between_two_runs_is_not_deleted(family, bucket, faults):
    interrupted(family, faults)
    bucket.put("models/merged/notes.txt", b"mine")
    with pytest.raises(RequestError, match="is not of this merge") as error:
        merge(family, OUT, resume=True)
    assert error.value.where == f"{OUT}/notes.txt"
    assert bucket.folder("models/merged")["notes.txt"] == b"mine"


def test_a_folder_of_that_name_which_is_not_ours_is_not_touched(family, bucket):
    bucket.put("models/.merged.partial/thesis.tex", b"mine")
    with pytest.raises(RequestError, match=r"is in the way: it holds no upload\.json") as error:
        merge(family, OUT)
    assert error.value.where == "s3://bucket/models/.merged.partial"
    assert bucket.objects() == {"models/.merged.partial/thesis.tex": b"mine"}


def test_a_folder_that_a_console_has_made_is_empty(family, bucket):
    bucket.put("models/merged/", b"")
    merge(family, OUT)
    assert rlmerge.verify(OUT).ok


def test_of_an_interrupted_move_a_small_file_may_be_all_there_is(family, bucket, faults):
    merge(family, OUT, 5_000_000_000)
    interrupted(family, faults, f"models/merged/{SHARDS[2]}", force=True)
    for name in bucket.folder("models/merged"):
        if name != "README.md":
            bucket.client.delete_object(Bucket="bucket", Key=f"models/merged/{name}")
    assert set(bucket.folder("models/merged")) == {"README.md"}
    with pytest.raises(RequestError, match="the output exists") as error:
        merge(family, OUT, resume=True)
    assert "--force --resume" in error.value.hint
    merge(family, OUT, force=True, resume=True)
    assert rlmerge.verify(OUT).ok


def test_what_lies_in_the_folder_of_an_old_model_meanwhile_is_not_deleted(family, bucket, monkeypatch):
    bucket.put("models/merged/config.json", b"{}")
    before_the_end(monkeypatch, lambda: bucket.put("models/merged/runs/1/model.safetensors", b"x"))
    with pytest.raises(RunError, match="would be deleted"):
        merge(family, OUT, force=True)
    assert set(bucket.folder("models/merged")) == {"config.json", "runs/1/model.safetensors"}


def test_a_whole_model_is_none_again_while_a_shard_of_it_is_written_anew(family, bucket, faults):
    """The manifest was not written; a shard changes in the store before the run goes on."""
    interrupted(family, faults, "merged/MANIFEST.json")
    bucket.put(f"models/merged/{SHARDS[0]}", b"another")
    assert "model.safetensors.index.json" in bucket.folder("models/merged")
    broken(faults, f"merged/{SHARDS[0]}")
    with pytest.raises(RunError):
        merge(family, OUT, resume=True)
    assert "model.safetensors.index.json" not in bucket.folder("models/merged")
    faults.plan = lambda *_: None
    merge(family, OUT, resume=True)
    assert rlmerge.verify(OUT).ok


def test_an_object_of_the_same_size_by_somebody_else_is_not_taken_for_ours(family, bucket, monkeypatch):
    """It is written between our write and our look at what is there."""
    stat, done = Outbox.stat, []

    def later(self, name):
        if name.endswith(SHARDS[0]) and not done:
            done.append(name)
            size = len(bucket.folder("models/merged")[SHARDS[0]])
            bucket.put(f"models/merged/{SHARDS[0]}", bytes(size))
        return stat(self, name)

    monkeypatch.setattr(Outbox, "stat", later)
    with pytest.raises(RunError, match="is no longer the object that was uploaded: somebody else writes there"):
        merge(family, OUT)
    assert done and not readable(OUT)


def test_the_journal_comes_before_anything_else_here(family, bucket, monkeypatch):
    """Whatever a killed run leaves is then known to be ours."""
    begun = []

    class Noted(upload.Sent):
        def __init__(self, directory, *given):
            begun.append((directory / "journal.jsonl").exists())
            super().__init__(directory, *given)

    monkeypatch.setattr(upload, "Sent", Noted)
    merge(family, OUT)
    assert begun == [True]


def test_credentials_that_expire_meanwhile_do_not_cost_the_work(family, bucket, faults, tmp_path):
    """Inputs in the store, of which the last can no longer be read."""
    for name in ("base", "e0"):
        for path in (family / name).iterdir():
            bucket.put(f"{name}/{path.name}", path.read_bytes())
    asked = {"merge_method": "linear", "models": [{"model": f"s3://bucket/{name}"} for name in ("base", "e0")]}
    plan = rlmerge.plan(asked, tmp_path / "out", shard_size=SIZE)
    assert plan.digest, "which reads samples of all models, once"
    faults.plan = lambda verb, path, number: "403" if path.endswith("e0/model.safetensors") else None
    with pytest.raises(RunError, match="the store denies access") as error:
        rlmerge.api.run_plan(plan, tmp_path / "out")
    assert "--resume" in error.value.hint and (tmp_path / ".out.partial" / "journal.jsonl").exists()


def test_a_store_that_does_not_let_us_write(family, bucket, faults, tmp_path):
    """Nothing is merged then: it is found out before."""
    faults.plan = lambda verb, path, number: "403" if verb == "PUT" else None
    with pytest.raises(RequestError, match="may not be written: the store denies access") as error:
        merge(family, OUT)
    assert "hunter2" not in str(error.value) and bucket.objects() == {} and left(tmp_path) == []


def test_a_bucket_that_is_not_there(family, bucket):
    with pytest.raises(RequestError):
        merge(family, "s3://nowhere/merged")


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
