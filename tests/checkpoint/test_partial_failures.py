"""Failures, kills and forged journals: what was finished is kept, what is not whole is never taken for it."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rlmerge.checkpoint import (
    OutputTensor,
    PartialDirectory,
    ShardPlan,
    journal,
    partial,
    syscalls,
    target,
    verify,
)
from rlmerge.errors import RequestError, RunError
from support.partial import again, begin_and_stop


def test_a_failed_rename_keeps_the_work(tmp_path, sealed, plan, write_shards):
    shards, values = plan
    target = tmp_path / "late"
    with PartialDirectory(target, "plan") as unfinished:
        write_shards(unfinished, shards, values)
        shutil.copytree(sealed, target)
        with pytest.raises(RunError, match="appeared while the merge ran"):
            unfinished.seal(shards)
    shutil.rmtree(target)
    with PartialDirectory(target, "plan", resume=True) as resumed:
        assert len(resumed.completed()) == 3
        resumed.seal(shards)
    assert verify(target).ok


def test_a_disk_that_fails_after_the_rename_is_reported_and_the_output_stays(tmp_path, plan, write_shards, monkeypatch):
    shards, values = plan
    fsync = os.fsync

    def fail_once_renamed(fd):
        if (tmp_path / "out").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        write_shards(unfinished, shards, values)
        monkeypatch.setattr(os, "fsync", fail_once_renamed)
        with pytest.raises(RunError, match=r"out: is complete, but the disk did not") as caught:
            unfinished.seal(shards)
        monkeypatch.undo()
    assert "--resume" not in str(caught.value)
    assert verify(tmp_path / "out").ok
    again(tmp_path / "out", plan, write_shards)


def test_a_shard_that_could_not_reach_the_disk_is_not_sealed(tmp_path, plan, write_shards, monkeypatch):
    shards, values = plan

    def fail_for_shards(fd):
        if Path(f"/proc/self/fd/{fd}").readlink().suffix == ".safetensors":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        monkeypatch.setattr(os, "fsync", fail_for_shards)
        write_shards(unfinished, shards, values)
        with pytest.raises(RunError, match="Input/output error"):
            unfinished.seal(shards)
    assert not (tmp_path / "out").exists()


def test_a_lock_is_let_go_when_opening_fails(tmp_path, plan, monkeypatch):
    begin_and_stop(tmp_path / "out", plan, 1)
    with pytest.raises(RequestError):
        PartialDirectory(tmp_path / "out", "plan")
    monkeypatch.setattr(partial, "recheck_shards", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        PartialDirectory(tmp_path / "out", "plan", resume=True)
    monkeypatch.undo()
    with PartialDirectory(tmp_path / "out", "plan", resume=True) as resumed:
        assert len(resumed.completed()) == 1


@pytest.mark.parametrize("more", [{}, {"resume": True}, {"force": True}, {"resume": True, "force": True}])
@pytest.mark.parametrize(
    "content", [{"thesis.tex": "x"}, {"model/config.json": "{}"}, {"journal.jsonl": "no", "a": ""}]
)
def test_a_directory_of_somebody_else_is_never_touched(tmp_path, more, content, tree):
    for name, text in content.items():
        (tmp_path / ".out.partial" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".out.partial" / name).write_text(text)
    before = tree(tmp_path)
    with pytest.raises(RequestError, match=r"\.out\.partial: is in the way(?s:.*)choose another output directory"):
        PartialDirectory(tmp_path / "out", "plan", **more)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("names", [[], ["journal.new"], ["journal.jsonl"], ["journal.jsonl", "journal.new"]])
def test_a_run_that_was_killed_before_its_journal_was_whole_is_no_hindrance(tmp_path, plan, write_shards, names):
    (tmp_path / ".out.partial").mkdir()
    for name in names:
        (tmp_path / ".out.partial" / name).write_bytes(b"")
    shards, values = plan
    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        write_shards(unfinished, shards, values)
        unfinished.seal(shards)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class Killed(BaseException):
    """Ends a run where a signal would."""


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("moment", range(4))
def test_a_swap_killed_at_any_moment_leaves_one_whole_target_and_nothing_for_good(
    tmp_path, sealed, plan, write_shards, monkeypatch, can_exchange, moment
):
    shards, values = plan
    (sealed / "config.json").write_text('{"old": 1}')
    exchange, rename, count = syscalls.exchange, os.rename, iter(range(100))

    def killed_before_or_after(call):
        def counted(*paths):
            if next(count) == moment:
                raise Killed
            done = call(*paths)
            if next(count) == moment:
                raise Killed
            return done

        return counted

    swap = killed_before_or_after(exchange) if can_exchange else lambda first, second: False
    with pytest.raises(Killed), PartialDirectory(sealed, "plan", force=True) as unfinished:
        write_shards(unfinished, shards, values)
        unfinished.write_file("config.json", b'{"new": 1}')
        monkeypatch.setattr(syscalls, "exchange", swap)
        monkeypatch.setattr(os, "rename", killed_before_or_after(rename))
        # A kill gives no chance to undo anything.
        monkeypatch.setattr(target, "_undo", lambda *_: None)
        unfinished.seal(shards)
        raise Killed
    monkeypatch.undo()
    if sealed.exists():
        assert (sealed / "config.json").read_text() in ('{"old": 1}', '{"new": 1}')
    else:
        assert not can_exchange
        with pytest.raises(RequestError, match="the output directory exists"):
            PartialDirectory(sealed, "plan", resume=True)
        assert (sealed / "config.json").read_text() == '{"old": 1}'
    again(sealed, plan, write_shards)


def test_a_run_killed_after_its_output_appeared_does_not_look_unfinished(tmp_path, plan, write_shards, monkeypatch):
    shards, values = plan
    with pytest.raises(Killed), PartialDirectory(tmp_path / "out", "plan") as unfinished:
        write_shards(unfinished, shards, values)
        monkeypatch.setattr(PartialDirectory, "_remove", raise_killed)
        unfinished.seal(shards)
    monkeypatch.undo()
    assert verify(tmp_path / "out").ok
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with PartialDirectory(tmp_path / "out", "plan") as fresh:
        assert fresh.completed() == {}


def raise_killed(*_):
    raise Killed


def test_a_shard_whose_fsync_failed_is_written_again(tmp_path, plan, write_shards, monkeypatch):
    """The page cache may hold what the disk does not: a resumed run must not believe it."""
    shards, values = plan
    fsync = os.fsync

    def fail_for_the_first_shard(fd):
        if Path(f"/proc/self/fd/{fd}").readlink().name == shards[0].name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    with PartialDirectory(tmp_path / "out", "plan") as unfinished:
        monkeypatch.setattr(os, "fsync", fail_for_the_first_shard)
        write_shards(unfinished, shards, values)
        with pytest.raises(RunError, match="Input/output error"):
            unfinished.seal(shards)
    monkeypatch.undo()
    with PartialDirectory(tmp_path / "out", "plan", resume=True) as resumed:
        assert list(resumed.completed()) == [tensor.name for tensor in shards[1].tensors]
        assert write_shards(resumed, shards, values) == [tensor.name for tensor in shards[0].tensors]
        resumed.seal(shards)
    assert verify(tmp_path / "out").ok


def test_a_shard_of_another_layout_is_not_taken_up(tmp_path, plan, write_shards):
    shards, _ = plan
    begin_and_stop(tmp_path / "out", plan, 3)
    turned = tuple(OutputTensor(tensor.name, tensor.dtype, tensor.shape[::-1]) for tensor in shards[0].tensors)
    with PartialDirectory(
        tmp_path / "out", "plan", resume=True, shards=[ShardPlan(shards[0].name, turned), shards[1]]
    ) as resumed:
        assert list(resumed.completed()) == [tensor.name for tensor in shards[1].tensors]


def test_a_tensor_with_stats_that_make_no_sense_is_not_taken_up(tmp_path, plan):
    begin_and_stop(tmp_path / "out", plan, 3)
    small = min(tensor.nbytes for shard in plan[0] for tensor in shard.tensors)
    with PartialDirectory(
        tmp_path / "out", "plan", resume=True, accepts=lambda entry: entry.stats["survived"] != small
    ) as resumed:
        assert len(resumed.completed()) == 1, "what follows it in its shard goes too"


@pytest.mark.parametrize("shard", ["../../precious", "/etc/passwd", "sub/x", "link"])
def test_a_forged_journal_leads_nowhere(tmp_path, plan, shard):
    shards, _ = plan
    begin_and_stop(tmp_path / "out", plan, 3)
    home = tmp_path / ".out.partial"
    (tmp_path / "precious").write_bytes((home / "model" / shards[0].name).read_bytes())
    (home / "model" / "link").symlink_to(tmp_path / "precious")
    digest, entries = journal.read_journal(home)
    journal.Journal(home, digest, [replace(entry, shard=shard) for entry in entries]).close()
    with PartialDirectory(tmp_path / "out", "plan", resume=True) as resumed:
        assert resumed.completed() == {}
    assert (tmp_path / "precious").exists()
