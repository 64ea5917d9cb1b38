"""Code of earlier runs: what is kept, what is believed, and that everything else is compiled again."""

import ctypes
import os

import numpy as np
import pytest

from rlmerge.kernels import code_cache, compiler

IR = "define void @kernel(ptr %out) {\nstore i64 7, ptr %out\nret void\n}"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "rlmerge" / "kernels"


def test_what_was_saved_comes_back(folder):
    assert code_cache.load("name") is None
    code_cache.save("name", b"code")
    assert code_cache.load("name") == b"code"
    assert folder.stat().st_mode & 0o77 == 0
    assert [file.name for file in folder.iterdir()] == ["name"]


def test_the_key_tells_parts_apart():
    keys = {code_cache.key(*parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""])}
    assert len(keys) == 4
    assert code_cache.key("a", "b") == code_cache.key("a", "b")


def flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def link(file):
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


def foreign(file):
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(file, 12345, -1)


def fifo(file):
    file.unlink()
    os.mkfifo(file)


def other(file):
    file.with_name("other").rename(file)


@pytest.mark.parametrize(
    "spoil",
    [
        flip,
        link,
        foreign,
        fifo,
        other,
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(file.read_bytes()[:32]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes() + bytes(2**22)),
        lambda file: file.chmod(0o620),
        lambda file: file.chmod(0o602),
    ],
    ids=["bit", "link", "owner", "fifo", "name", "short", "digest alone", "empty", "large", "group", "world"],
)
def test_what_somebody_else_may_have_written_is_not_believed(folder, spoil):
    code_cache.save("other", b"other code")
    code_cache.save("name", b"code")
    spoil(folder / "name")
    assert code_cache.load("name") is None


def test_a_folder_that_cannot_be_written(folder):
    folder.parent.mkdir()
    folder.write_text("a file")
    code_cache.save("name", b"code")
    assert code_cache.load("name") is None


def test_without_a_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def none():
        raise RuntimeError("no home")

    monkeypatch.setattr(code_cache.Path, "home", none)
    code_cache.save("name", b"code")
    assert code_cache.load("name") is None


def test_the_oldest_go(folder, monkeypatch):
    monkeypatch.setattr(code_cache, "MAX_FILES", 8)
    for i in range(9):
        code_cache.save(f"name{i}", b"code")
        os.utime(folder / f"name{i}", ns=(i, i))
    assert sorted(file.name for file in folder.iterdir()) == [f"name{i}" for i in range(2, 9)]


def run(address):
    out = np.zeros(1, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(out.ctypes.data)
    return out[0]


def test_a_kernel_is_compiled_once(folder, monkeypatch):
    engine, address = compiler.compile_kernel(IR, compiler.find_host())
    assert run(address) == 7
    (kept,) = folder.iterdir()

    def refuse(*_):
        raise AssertionError("compiled again")

    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_optimized", refuse)
        again, address = compiler.compile_kernel(IR, compiler.find_host())
        assert run(address) == 7
    flip(kept)
    third, address = compiler.compile_kernel(IR, compiler.find_host())
    assert run(address) == 7
    assert code_cache.load(kept.name)
    del engine, again, third


def test_another_processor_has_code_of_its_own(folder):
    host = compiler.find_host()
    compiler.compile_kernel(IR, host)
    compiler.compile_kernel(IR, compiler.Host(host.cpu, "", host.converts_float16))
    assert len(list(folder.iterdir())) == 2
