import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlmerge.checkpoint import syscalls
from rlmerge.checkpoint.target import check_target, lock, partial_path, publish
from rlmerge.errors import RequestError, RunError


def model(path: Path, who: str) -> Path:
    path.mkdir()
    (path / "config.json").write_text(who)
    return path


def test_a_target_that_does_not_exist(tmp_path):
    check_target(tmp_path / "out", force=False)
    check_target(tmp_path / "out", force=True)


def test_an_existing_target_needs_force(tmp_path):
    for target in (model(tmp_path / "out", "old"), tmp_path / "empty"):
        target.mkdir(exist_ok=True)
        with pytest.raises(RequestError, match=r"the output directory exists(?s:.*)--force"):
            check_target(target, force=False)
        check_target(target, force=True)


def test_force_replaces_nothing_but_model_directories(tmp_path):
    home = tmp_path / "home"
    (home / "documents").mkdir(parents=True)
    with pytest.raises(RequestError, match="is not a model directory, and would be deleted"):
        check_target(home, force=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(model(tmp_path / "out", "old"))
    (tmp_path / "dangling").symlink_to("absent")
    for name in ("file", "link", "dangling"):
        with pytest.raises(RequestError, match="exists and is not a directory"):
            check_target(tmp_path / name, force=True)


def test_the_root_is_no_target():
    with pytest.raises(RequestError, match="is not a name for an output directory"):
        check_target(Path("/"), force=True)


def test_lock_creates_the_directory_and_its_parents(tmp_path):
    os.close(lock(tmp_path / "a/b/c"))
    assert (tmp_path / "a/b/c").is_dir()


def test_a_second_lock_is_refused_until_the_first_is_closed(tmp_path):
    held = lock(tmp_path / "d")
    with pytest.raises(RequestError, match="another process is writing there"):
        lock(tmp_path / "d")
    os.close(held)
    os.close(lock(tmp_path / "d"))


def test_a_lock_dies_with_its_process(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom rlmerge.checkpoint.target import lock\nlock(Path(sys.argv[1]))\n"
    )
    script += "print('locked', flush=True)\nsys.stdin.read()\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "d")], **pipes) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(RequestError, match="another process is writing there"):
            lock(tmp_path / "d")
        holder.kill()
        holder.wait()
        os.close(lock(tmp_path / "d"))


def test_a_directory_renamed_while_we_waited_for_its_lock_is_not_taken(tmp_path, monkeypatch):
    real, calls = os.open, []

    def open_then_rename(path, *flags):
        fd = real(path, *flags)
        if not calls:
            (tmp_path / "d").rename(tmp_path / "renamed")
        calls.append(fd)
        return fd

    monkeypatch.setattr(os, "open", open_then_rename)
    held = lock(tmp_path / "d")
    monkeypatch.undo()
    assert len(calls) == 2
    assert os.path.samestat(os.fstat(held), (tmp_path / "d").stat())
    os.close(held)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_the_place_of_the_directory_is_taken(tmp_path, kind):
    if kind == "file":
        (tmp_path / "d").write_text("x")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "d").symlink_to("elsewhere")
    with pytest.raises(RequestError, match="the output cannot be created there"):
        lock(tmp_path / "d")


def test_a_parent_without_permission(common_folder, ordinary_user):
    with ordinary_user(), pytest.raises(RequestError, match=r"cannot be created there \(Permission denied\)"):
        lock(common_folder / "d")


def test_publish(tmp_path):
    publish(model(tmp_path / "new", "new"), tmp_path / "out", False, tmp_path / "aside")
    assert (tmp_path / "out/config.json").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_publish_replaces_an_old_target_which_takes_the_place_of_the_new_or_goes_aside(
    tmp_path, monkeypatch, can_exchange
):
    if not can_exchange:
        monkeypatch.setattr(syscalls, "exchange", lambda first, second: False)
    target, new, aside = model(tmp_path / "out", "old"), model(tmp_path / "new", "new"), tmp_path / "aside"
    publish(new, target, True, aside)
    replaced = new if can_exchange else aside
    assert (target / "config.json").read_text() == "new"
    assert (replaced / "config.json").read_text() == "old"
    assert sorted(tmp_path.iterdir()) == sorted([target, replaced])


def test_publish_does_not_replace_what_appeared_meanwhile(tmp_path):
    other, new = model(tmp_path / "out", "other"), model(tmp_path / "new", "new")
    with pytest.raises(RunError, match=r"appeared while the merge ran(?s:.*)--resume"):
        publish(new, other, False, tmp_path / "aside")
    assert (other / "config.json").read_text() == "other"
    assert (new / "config.json").read_text() == "new"


def test_a_swap_that_fails_half_way_is_undone(tmp_path, monkeypatch):
    target, new = model(tmp_path / "out", "old"), model(tmp_path / "new", "new")
    rename = os.rename

    def fail(source, place):
        if source == new:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, place)

    monkeypatch.setattr(syscalls, "exchange", lambda first, second: False)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(RunError, match="Input/output error"):
        publish(new, target, True, tmp_path / "aside")
    assert (target / "config.json").read_text() == "old"
    assert (new / "config.json").read_text() == "new"
    assert not (tmp_path / "aside").exists()


@pytest.mark.parametrize("length", range(240, 256))
@pytest.mark.parametrize("letter", ["x", "é"])
def test_every_name_that_a_file_can_have_is_a_target(tmp_path, length, letter):
    target = tmp_path / (letter * (length // len(letter.encode())))
    check_target(target, force=False)
    hidden = partial_path(target)
    os.close(lock(hidden))
    assert hidden.parent == tmp_path and hidden.name.startswith(".") and hidden.name.endswith(".partial")
    target.mkdir()
    assert hidden != partial_path(target.with_name(target.name[:-1] + "y"))


def test_names_that_no_file_can_have(tmp_path):
    for name, message in (("x" * 256, "the name has 256 bytes"), ("a\0b", "embedded null")):
        with pytest.raises(RequestError, match=message):
            check_target(tmp_path / name, force=False)


def test_a_target_that_cannot_be_looked_at(common_folder, ordinary_user):
    (common_folder / "closed").mkdir(mode=0)
    with ordinary_user(), pytest.raises(RequestError, match=r"cannot be created there \(Permission denied\)"):
        check_target(common_folder / "closed" / "out", force=False)
