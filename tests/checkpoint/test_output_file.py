"""Files written past the page cache: the same bytes as through it, in whatever pieces, and what fails on the way."""

import errno
import fcntl
import os
import random
import weakref
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.checkpoint import output_file, syscalls
from rlmerge.checkpoint.journal import Journal, read_journal
from rlmerge.checkpoint.layout import OutputTensor, ShardPlan
from rlmerge.checkpoint.output_file import PAGE, DirectFile, OutputFile, page_aligned, takes_direct
from rlmerge.checkpoint.recheck import recheck
from rlmerge.checkpoint.shard_writer import ShardWriter, new_pools
from rlmerge.errors import RunError
from rlmerge.kernels.dtypes import BY_NAME

SMALL = 4 * PAGE


@pytest.fixture(scope="module", autouse=True)
def small_requests():
    """Requests of a few pages, so that small files take many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_file, "STAGING", SMALL)
        patch.setattr(output_file, "DIRECT_MEMORY", (output_file.IN_FLIGHT + 1) * SMALL)
        patch.setattr(output_file, "_IN_PLACE", 2 * PAGE)
        yield


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(3) as threads:
        yield threads


def opened(path: Path, offset: int, pool) -> DirectFile:
    return DirectFile(os.open(path, os.O_WRONLY | os.O_CREAT), offset, path, pool)


def placed(data: bytes, shift: int) -> memoryview:
    """A copy of ``data`` that begins ``shift`` bytes behind the start of a page."""
    memory = page_aligned(shift + len(data) + 1)[shift : shift + len(data)]
    memory[:] = np.frombuffer(data, np.uint8)
    return memory.data


lengths = st.one_of(st.integers(0, 64), st.integers(PAGE - 3, PAGE + 3), st.integers(0, 9 * PAGE))


@settings(max_examples=150, deadline=None)
@given(
    begun=st.one_of(st.integers(0, 64), st.integers(PAGE - 2, 3 * PAGE)),
    pieces=st.lists(st.tuples(lengths, st.booleans()), max_size=12),
    flushed=st.sets(st.integers(0, 11)),
    seed=st.integers(0, 2**32),
)
def test_pieces_of_any_length_and_place_give_the_same_file(tmp_path_factory, pool, begun, pieces, flushed, seed):
    rng = random.Random(seed)
    path = tmp_path_factory.mktemp("direct") / "file"
    expected = rng.randbytes(begun)
    path.write_bytes(expected)
    file = opened(path, begun, pool)
    for index, (length, in_place) in enumerate(pieces):
        data = rng.randbytes(length)
        memory = placed(data, len(expected) % PAGE if in_place else rng.randrange(PAGE))
        if (sent := file.append(memory)) is not None:
            wait([sent])
        memory[:] = bytes(length)  # as the owner may do then
        expected += data
        if index in flushed:
            file.flush()
            assert file.landed == len(expected)
            assert path.read_bytes() == expected
        landed = file.landed
        assert path.read_bytes()[:landed] == expected[:landed]
    file.flush()
    file.sync()
    file.close()
    assert path.read_bytes() == expected


def is_direct(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.fixture
def requests(tmp_path, monkeypatch):
    """Every write with whether it was direct: (fd is direct, length, offset, address)."""
    if not takes_direct(tmp_path, output_file.DIRECT_FROM):
        pytest.skip("no file system that is written past the cache")
    seen = []
    whole = os.pwrite

    def pwrite(fd, data, offset):
        address = np.frombuffer(data, np.uint8).ctypes.data if len(data) else 0
        seen.append((is_direct(fd), len(data), offset, address))
        return whole(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return seen


def test_requests_are_whole_pages_past_the_cache_but_for_the_end(tmp_path, pool, requests):
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    file = opened(path, 100, pool)
    file.append(placed(bytes(3 * SMALL), 0))
    file.append(placed(bytes(5 * PAGE), (100 + 3 * SMALL) % PAGE))
    file.append(placed(bytes(7), 3))
    file.flush()
    file.close()
    *direct, last = sorted(requests, key=lambda request: request[2])
    assert all(past and not (size % PAGE or offset % PAGE or place % PAGE) for past, size, offset, place in direct)
    assert last[:3] == (False, 107, 3 * SMALL + 5 * PAGE)


def test_a_large_aligned_piece_is_written_from_where_it_is(tmp_path, pool, requests):
    path = tmp_path / "file"
    path.write_bytes(bytes(64))
    file = opened(path, 64, pool)
    memory = placed(bytes(10 * PAGE), 64)
    address = np.frombuffer(memory, np.uint8).ctypes.data
    file.append(memory)
    file.close()
    # The rest of the first page is collected with what was there; whole pages follow from the caller's memory.
    first, second = sorted(requests, key=lambda request: request[2])
    assert (first[1:3], second[1:3]) == ((PAGE, 0), (9 * PAGE, PAGE))
    assert second[3] == address + PAGE - 64
    assert file.landed == 10 * PAGE


@pytest.mark.parametrize("refusal", ["not direct", "cut short", "cut off"])
def test_a_file_system_that_takes_no_direct_request(tmp_path, pool, monkeypatch, refusal):
    """Offsets or lengths it does not take, or all of a request: what is left goes through the cache."""
    whole = os.pwrite

    def pwrite(fd, data, offset):
        if is_direct(fd) and refusal == "not direct":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if is_direct(fd) and refusal == "cut short":
            return whole(fd, data[:PAGE], offset)
        if is_direct(fd):
            monkeypatch.undo()
            output_file._set_direct(fd, False)
            return whole(fd, data[: PAGE + 5], offset)
        return whole(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    path = tmp_path / "file"
    path.touch()
    data = random.Random(0).randbytes(5 * SMALL + 77)
    file = opened(path, 0, pool)
    file.append(placed(data[:SMALL], 0))
    file.append(placed(data[SMALL:], 1))
    file.flush()
    file.close()
    assert path.read_bytes() == data


def test_nothing_lands_behind_a_request_that_failed(tmp_path, pool, monkeypatch):
    whole = os.pwrite

    def pwrite(fd, data, offset):
        if offset == SMALL:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return whole(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    path = tmp_path / "file"
    path.touch()
    file = opened(path, 0, pool)
    with pytest.raises(OSError, match="Input/output error"):
        for _ in range(12):
            file.append(placed(bytes(SMALL), 1))
    for again in (file.flush, lambda: file.append(placed(bytes(1), 0))):
        with pytest.raises(OSError, match="Input/output error"):
            again()
    file.close()
    assert file.landed == SMALL


def test_a_file_that_is_finished_holds_no_memory(tmp_path, pool):
    path = tmp_path / "file"
    path.touch()
    file = opened(path, 0, pool)
    assert not len(file._filling), "nothing is written yet, and maybe nothing will be"
    file.append(placed(bytes(3 * SMALL + 5), 1))
    memory = weakref.ref(file._filling.base)
    file.flush()
    assert memory() is None
    file.close()


def test_small_files_and_those_of_other_file_systems_stay_in_the_cache(tmp_path, monkeypatch):
    large = output_file.DIRECT_FROM
    for magic, expected in ((0xEF53, True), (0x58465342, True), (0x01021994, False), (0x6969, False), (0, False)):
        monkeypatch.setattr(syscalls, "file_system", lambda path, magic=magic: magic)
        assert takes_direct(tmp_path, large) is expected
        assert takes_direct(tmp_path, large - 1) is False
    monkeypatch.setattr(syscalls, "file_system", lambda path: 0xEF53)
    monkeypatch.delattr(os, "O_DIRECT")
    assert takes_direct(tmp_path, large) is False


PLAN = ShardPlan("f", tuple(OutputTensor(name, BY_NAME["uint8"], (SMALL,)) for name in "abcdef"))


@pytest.fixture
def writer(tmp_path, monkeypatch):
    monkeypatch.setattr(output_file, "DIRECT_FROM", 0)
    monkeypatch.setattr(syscalls, "file_system", lambda path: 0xEF53)
    journal = Journal(tmp_path, "plan")
    writers, pools = [], new_pools()

    def start(**more):
        writers.append(ShardWriter(tmp_path / "f", PLAN, journal, pools=pools, **more))
        return writers[-1]

    yield start
    for each in writers:
        each.close()
    pools.shutdown()
    journal.close()


VALUES = {tensor.name: np.frombuffer(random.Random(tensor.name).randbytes(SMALL), np.uint8) for tensor in PLAN.tensors}


def journaled(folder: Path) -> list[str]:
    return [entry.tensor for entry in read_journal(folder)[1]]


def test_a_tensor_is_in_the_journal_once_its_bytes_are_in_the_file(tmp_path, writer):
    current = writer()
    assert isinstance(current._file, DirectFile)
    for name in "abcde":
        current.write(name, VALUES[name])
        current.finish_tensor(name, {})
        claimed, on_disk = journaled(tmp_path), (tmp_path / "f").read_bytes()
        place = len(PLAN.header)
        for done in claimed:
            assert on_disk[place : place + SMALL] == VALUES[done].tobytes()
            place += SMALL
    assert len(journaled(tmp_path)) < 5, "the last one's end is still in memory"
    current.write("f", VALUES["f"])
    current.finish_tensor("f", {})
    assert journaled(tmp_path) == list("abcdef")
    assert (tmp_path / "f").read_bytes() == PLAN.header + b"".join(VALUES[name].tobytes() for name in "abcdef")


def test_what_is_finished_when_a_run_is_stopped_is_kept(tmp_path, writer):
    current = writer()
    for name in "abc":
        current.write(name, VALUES[name])
        current.finish_tensor(name, {})
    current.write("d", VALUES["d"][:5])
    current.close()
    assert journaled(tmp_path) == list("abc")
    kept = recheck(tmp_path / "f", {entry.tensor: entry for entry in read_journal(tmp_path)[1]}, lambda _: None)
    assert kept.names == ("a", "b", "c")
    following = writer(kept=kept)
    for name in "def":
        following.write(name, VALUES[name])
        following.finish_tensor(name, {})
    assert (tmp_path / "f").read_bytes() == PLAN.header + b"".join(VALUES[name].tobytes() for name in "abcdef")


def test_what_did_not_get_to_the_disk_is_not_claimed(tmp_path, writer, monkeypatch):
    current = writer()

    def pwrite(fd, data, offset):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(RunError, match="Input/output error"):
        for name in "abcdef":
            current.write(name, VALUES[name])
            current.finish_tensor(name, {})
    current.close()
    assert journaled(tmp_path) == []


def test_what_somebody_reads_at_once_goes_through_the_cache(writer):
    assert type(writer(direct=False)._file) is OutputFile
