"""Merges into an object store that others write to, or that is killed: nobody's work is lost or mixed."""

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("obstore")
pytest.importorskip("moto")
pytest.importorskip("boto3")


import rlmerge
from rlmerge.checkpoint.remote import hold, upload
from rlmerge.checkpoint.remote.folder import Folder
from rlmerge.checkpoint.remote.outbox import Outbox
from rlmerge.errors import RequestError, RunError
from support.uploads import (
    OUT,
    SHARDS,
    SIZE,
    alone,
    before_the_end,
    broken,
    bucket,
    family,
    faults,
    left,
    merge,
    readable,
    server,
)

__all__ = ["alone", "bucket", "family", "faults", "server"]  # fixtures


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
