import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
import safetensors

from rlmerge.checkpoint import (
    PartialDirectory,
    open_checkpoint,
    plan_shards,
    read_manifest,
    verify,
)
from rlmerge.checkpoint.files import InputFile
from rlmerge.errors import RequestError, RunError
from support.partial import begin_and_stop


def test_a_sealed_directory(sealed, plan, tree):
    shards, values = plan
    assert [path.name for path in sealed.parent.iterdir()] == ["out"], "nothing is left beside it"
    assert sorted(tree(sealed)) == [
        "MANIFEST.json",
        "additional_chat_templates/tools.jinja",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    model = open_checkpoint(sealed)
    assert set(model.tensors) == set(values)
    for shard in shards:
        for name, found in safetensors.deserialize((sealed / shard.name).read_bytes()):
            assert found["data"] == values[name].tobytes()
    assert verify(sealed).ok


def test_one_shard_has_no_index(tmp_path, plan, write_shards):
    shards, values = plan
    shards = plan_shards([tensor for shard in shards for tensor in shard.tensors], 10**9)
    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        write_shards(unfinished, shards, values)
        manifest = unfinished.seal(shards)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["MANIFEST.json", "model.safetensors"]
    assert manifest == read_manifest(tmp_path / "out")


def test_the_target_does_not_exist_before_it_is_complete(tmp_path, plan, write_shards):
    shards, values = plan
    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        assert not (tmp_path / "out").exists()
        write_shards(unfinished, shards, values)
        unfinished.write_file("config.json", b"{}")
        assert not (tmp_path / "out").exists()
        assert unfinished.path == tmp_path / ".out.partial" / "model"
        unfinished.seal(shards)
        assert (tmp_path / "out").exists()
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize("count", range(4))
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, sealed, plan, write_shards, tree, count):
    shards, values = plan
    begin_and_stop(tmp_path / "again", plan, count)
    read = []
    with PartialDirectory(tmp_path / "again", "plan", resume=True, advance=read.append) as resumed:
        order = [tensor.name for shard in shards for tensor in shard.tensors]
        assert list(resumed.completed()) == order[:count]
        assert all(entry.stats == {"survived": values[name].size} for name, entry in resumed.completed().items())
        assert read == [values[name].size for name in order[:count]]
        assert write_shards(resumed, shards, values) == order[count:]
        resumed.write_file("config.json", b'{"a": 1}')
        resumed.write_file("additional_chat_templates/tools.jinja", b"{{ x }}")
        resumed.seal(shards)
    assert tree(tmp_path / "again") == tree(sealed)


def test_resume_without_anything_to_resume(tmp_path, plan, write_shards):
    shards, values = plan
    with PartialDirectory(tmp_path / "out", "plan", resume=True) as fresh:
        assert fresh.completed() == {}
        write_shards(fresh, shards, values)
        fresh.seal(shards)
    assert verify(tmp_path / "out").ok


def test_altered_bytes_are_not_taken_up(tmp_path, sealed, plan, write_shards):
    shards, values = plan
    begin_and_stop(tmp_path / "again", plan, 2)
    file = tmp_path / ".again.partial" / "model" / shards[0].name
    octets = bytearray(file.read_bytes())
    octets[-1] ^= 1  # The last byte of "embed", the second tensor of the first shard.
    file.write_bytes(octets)
    with PartialDirectory(tmp_path / "again", "plan", resume=True) as resumed:
        assert list(resumed.completed()) == ["norm"]
        assert write_shards(resumed, shards, values) == ["embed", "head"]
        resumed.seal(shards)
    for shard in shards:
        assert (tmp_path / "again" / shard.name).read_bytes() == (sealed / shard.name).read_bytes()


def test_what_else_lies_in_the_partial_directory_does_not_reach_the_output(tmp_path, plan, write_shards):
    shards, values = plan
    begin_and_stop(tmp_path / "out", plan, 1)
    left = tmp_path / ".out.partial" / "model"
    (left / "evil.py").write_text("x")
    (left / "sub").mkdir()
    (left / "link").symlink_to("/etc")
    with PartialDirectory(tmp_path / "out", "plan", resume=True) as resumed:
        write_shards(resumed, shards, values)
        resumed.seal(shards)
    assert verify(tmp_path / "out").ok
    assert not {"evil.py", "sub", "link"} & {path.name for path in (tmp_path / "out").iterdir()}
    assert Path("/etc").exists()


def test_finished_work_is_not_thrown_away_unasked(tmp_path, plan):
    begin_and_stop(tmp_path / "out", plan, 2)
    with pytest.raises(RequestError, match=r"left 2 finished tensors there(?s:.*)--resume.*--force"):
        PartialDirectory(tmp_path / "out", "plan")
    with pytest.raises(RequestError, match=r"another recipe, input, option or version(?s:.*)--force"):
        PartialDirectory(tmp_path / "out", "other plan", resume=True)
    with PartialDirectory(tmp_path / "out", "plan", resume=True) as resumed:
        assert len(resumed.completed()) == 2
    with PartialDirectory(tmp_path / "out", "other plan", resume=True, force=True) as forced:
        assert forced.completed() == {}


def test_a_run_that_finished_nothing_is_no_hindrance(tmp_path, plan):
    begin_and_stop(tmp_path / "out", plan, 0)
    with PartialDirectory(tmp_path / "out", "other plan") as fresh:
        assert fresh.completed() == {}


def test_an_existing_target(sealed, plan, write_shards, tree):
    before = tree(sealed)
    shards, values = plan
    with pytest.raises(RequestError, match=r"the output directory exists(?s:.*)--force"):
        PartialDirectory(sealed, "plan")
    assert not (sealed.parent / ".out.partial").exists()
    with PartialDirectory(sealed, "plan", force=True) as unfinished:
        write_shards(unfinished, shards, values)
        unfinished.write_file("config.json", b'{"new": 1}')
        assert tree(sealed) == before, "the old one stays until the new one is complete"
        unfinished.seal(shards)
    assert (sealed / "config.json").read_text() == '{"new": 1}'
    assert [path.name for path in sealed.parent.iterdir()] == ["out"]
    assert verify(sealed).ok


def test_two_runs_on_one_target(tmp_path, plan):
    with PartialDirectory(tmp_path / "out", "plan"):
        for more in ({}, {"resume": True}, {"force": True}):
            with pytest.raises(RequestError, match=r"\.out\.partial: another process is writing there"):
                PartialDirectory(tmp_path / "out", "plan", **more)
    with PartialDirectory(tmp_path / "out", "plan"):
        pass


def test_a_second_process_leaves_the_first_alone(tmp_path, plan, write_shards):
    shards, values = plan
    script = (
        "import sys\nfrom rlmerge.checkpoint import PartialDirectory\nPartialDirectory(sys.argv[1], 'p', force=True)"
    )
    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        write_shards(unfinished, shards, values)
        command = [sys.executable, "-c", script, str(tmp_path / "out")]
        second = subprocess.run(command, capture_output=True, text=True)
        assert "RequestError" in second.stderr and "another process is writing there" in second.stderr
        unfinished.seal(shards)
    assert verify(tmp_path / "out").ok


def test_abandon_leaves_nothing(tmp_path, plan, write_shards):
    shards, values = plan
    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        write_shards(unfinished, shards[:1], values)
        unfinished.abandon()
    assert list(tmp_path.iterdir()) == []


def test_abandon_takes_back_the_parents_that_were_made(tmp_path, plan, write_shards):
    shards, values = plan
    (tmp_path / "a").mkdir()
    for left, expected in (("", ["a"]), ("a/b/mine", ["a", "a/b", "a/b/mine"])):
        with PartialDirectory(tmp_path / "a/b/c/out", "plan") as unfinished:
            write_shards(unfinished, shards[:1], values)
            if left:
                (tmp_path / left).write_text("precious")
            unfinished.abandon()
        assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == expected


def test_parents_are_created(tmp_path, plan, write_shards):
    shards, values = plan
    with PartialDirectory(tmp_path / "a/b/out", "plan") as unfinished:
        write_shards(unfinished, shards, values)
        unfinished.seal(shards)
    assert verify(tmp_path / "a/b/out").ok


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match="cannot be created there") as caught:
        PartialDirectory(tmp_path / "file/out", "plan")
    assert caught.value.exit_code == 2


def test_no_permission(common_folder, ordinary_user):
    with ordinary_user(), pytest.raises(RequestError, match="Permission denied"):
        PartialDirectory(common_folder / "out", "plan")
    assert list(common_folder.iterdir()) == []


def test_sealing_needs_every_tensor(tmp_path, plan, write_shards):
    shards, values = plan
    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        write_shards(unfinished, shards[:1], values)
        with pytest.raises(ValueError, match=f"1 tensors of {shards[1].name} have not been written"):
            unfinished.seal(shards)
    assert not (tmp_path / "out").exists()


def test_side_files(tmp_path):
    source = tmp_path / "tokenizer.json"
    source.write_bytes(b"\xef\xbb\xbf{}\r\n")
    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        unfinished.copy_file(source)
        unfinished.copy_file(source, "additional_chat_templates/x.jinja")
        assert (unfinished.path / "tokenizer.json").read_bytes() == source.read_bytes()
        assert (unfinished.path / "additional_chat_templates/x.jinja").read_bytes() == source.read_bytes()
        for name in ("tokenizer.json", "MANIFEST.json"):
            with pytest.raises(ValueError, match="is not free"):
                unfinished.write_file(name, b"")
        for name in ("../x", "/x", "a//b"):
            with pytest.raises(RequestError, match="not a plain file name"):
                unfinished.write_file(name, b"")
    assert not (tmp_path / "x").exists()


def test_order_on_disk(tmp_path, plan, write_shards, monkeypatch):
    """Every file is on disk before the manifest, that before the directory, and all before the one rename."""
    shards, values = plan
    events, lock = [], threading.Lock()
    fsync, rename = os.fsync, os.rename

    def record(event):
        with lock:
            events.append(event)

    def recorded_fsync(fd):
        fsync(fd)
        record(os.path.relpath(Path(f"/proc/self/fd/{fd}").readlink(), tmp_path))

    def recorded_rename(source, target):
        record(f"rename {Path(target).name}")
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        monkeypatch.setattr(os, "rename", recorded_rename)
        write_shards(unfinished, shards, values)
        unfinished.write_file("config.json", b"{}")
        unfinished.seal(shards)
    shard_syncs = {f".out.partial/model/{shard.name}" for shard in shards}
    assert shard_syncs < set(events)
    last = events.index("rename out") + 3
    assert events[last - 6 : last] == [
        ".out.partial/model/model.safetensors.index.json",
        ".out.partial/model/MANIFEST.json",
        ".out.partial/model",
        "rename out",
        "out",
        ".",
    ]
    assert sum(event.startswith("rename") for event in events) == 1


def test_what_was_planned_to_be_copied_and_cannot_be_is_a_failure_of_the_run(tmp_path):
    source = tmp_path / "tokenizer.json"
    source.write_bytes(bytes(3_000_000))
    seen = InputFile(source)
    os.mkfifo(tmp_path / "pipe")
    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        unfinished.copy_file(seen)
        assert (unfinished.path / "tokenizer.json").read_bytes() == bytes(3_000_000)
        source.write_bytes(b"changed")
        for file, message in (
            (seen, "changed"),
            (tmp_path / "absent", "does not exist"),
            (tmp_path / "pipe", "regular"),
        ):
            with pytest.raises(RunError, match=message) as caught:
                unfinished.copy_file(file, str(message))
            assert "--resume" in str(caught.value)


def test_large_files_are_copied_in_pieces(tmp_path):
    source = tmp_path / "tokenizer.json"
    with source.open("wb") as handle:
        handle.truncate(200_000_000)
    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        tracemalloc.start()
        unfinished.copy_file(source)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("name", [b"\xff\xfe", "é".encode() * 127, b"x" * 255, b"a b'\"", b"-x"])
def test_any_name_that_a_directory_can_have(tmp_path, plan, write_shards, name):
    shards, values = plan
    with PartialDirectory(tmp_path / os.fsdecode(name), "plan") as unfinished:
        write_shards(unfinished, shards, values)
        unfinished.seal(shards)
    assert [os.fsencode(path.name) for path in tmp_path.iterdir()] == [name]
    assert verify(tmp_path / os.fsdecode(name)).ok


@pytest.mark.parametrize("name", ["x" * 256, "a\0b", "loop/out"])
def test_names_that_no_directory_can_have(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RequestError):
        PartialDirectory(tmp_path / name, "plan")
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_a_file_that_cannot_be_closed_does_not_keep_the_lock(tmp_path, plan, write_shards, monkeypatch):
    shards, values = plan
    unfinished = PartialDirectory(tmp_path / "out", "plan")
    write_shards(unfinished, shards[:1], values)
    with monkeypatch.context() as patch:
        patch.setattr(unfinished._writers[shards[0].name], "close", lambda: (_ for _ in ()).throw(OSError(5, "x")))
        with pytest.raises(OSError, match="x"):
            unfinished.close()
    PartialDirectory(tmp_path / "out", "plan", resume=True).close()
