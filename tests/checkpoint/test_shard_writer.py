import errno
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
import safetensors
import xxhash
from blake3 import blake3

from rlmerge.checkpoint import output_file, syscalls
from rlmerge.checkpoint.hashing import PIECE
from rlmerge.checkpoint.journal import Journal, read_journal
from rlmerge.checkpoint.layout import OutputTensor, ShardPlan
from rlmerge.checkpoint.recheck import recheck
from rlmerge.checkpoint.shard_writer import Pools, ShardWriter
from rlmerge.errors import RequestError, RunError
from rlmerge.kernels.dtypes import ALL, BY_NAME

PLAN = ShardPlan("f", (OutputTensor("a", BY_NAME["float32"], (2, 2)), OutputTensor("b", BY_NAME["bfloat16"], (3,))))


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path, "plan")
    yield journal
    journal.close()


@pytest.fixture
def begin(tmp_path, journal):
    """Begin a shard at tmp_path / f."""
    writers = []

    def start(plan=PLAN, **more):
        writers.append(ShardWriter(tmp_path / "f", plan, journal, **more))
        return writers[-1]

    yield start
    for writer in writers:
        writer.close()


def write_all(writer, values):
    for tensor in writer.pending:
        writer.write(tensor.name, values[tensor.name])
        writer.finish_tensor(tensor.name, {"size": tensor.nbytes})


VALUES = {"a": np.arange(4, dtype=np.float32).reshape(2, 2), "b": np.array([1, 2, 3], np.uint16)}


def test_file_and_journal(tmp_path, begin):
    writer = begin()
    write_all(writer, VALUES)
    octets = VALUES["a"].tobytes() + VALUES["b"].tobytes()
    assert (tmp_path / "f").read_bytes() == PLAN.header + octets
    assert writer.digest.hexdigest() == blake3(PLAN.header + octets).hexdigest()
    _, [first, second] = read_journal(tmp_path)
    assert (first.tensor, first.shard, first.stats) == ("a", "f", {"size": 16})
    assert first.xxh3 == xxhash.xxh3_64_hexdigest(VALUES["a"].tobytes())
    assert second.xxh3 == xxhash.xxh3_64_hexdigest(VALUES["b"].tobytes())


def test_every_element_type_and_shape_as_the_safetensors_library_reads_it(tmp_path, begin):
    rng = np.random.default_rng(0)
    shapes = [(), (0,), (3,), (2, 0, 4), (2, 3, 4)]
    tensors = [OutputTensor(f"{dtype.name}{shape}", dtype, shape) for dtype in ALL for shape in shapes]
    tensors.sort(key=lambda tensor: -tensor.dtype.itemsize)
    values = {}
    for tensor in tensors:
        octets = rng.integers(0, 2 if tensor.dtype.name == "bool" else 256, tensor.nbytes, np.uint8)
        values[tensor.name] = octets.view(tensor.dtype.storage).reshape(tensor.shape)
    write_all(begin(ShardPlan("f", tuple(tensors))), values)
    found = dict(safetensors.deserialize((tmp_path / "f").read_bytes()))
    for tensor in tensors:
        assert found[tensor.name]["dtype"] == tensor.dtype.code
        assert found[tensor.name]["shape"] == list(tensor.shape)
        assert found[tensor.name]["data"] == values[tensor.name].tobytes()


@pytest.mark.parametrize("cut", [1, 7, 16])
def test_pieces_of_any_kind_give_the_same_file(tmp_path, begin, cut):
    octets = VALUES["a"].tobytes()
    writer = begin()
    writer.write("a", memoryview(octets[:cut]))
    writer.write("a", np.frombuffer(octets[cut:], np.uint8))
    writer.finish_tensor("a", {})
    writer.write("b", memoryview(VALUES["b"]))
    entry = writer.finish_tensor("b", {})
    assert (tmp_path / "f").read_bytes() == PLAN.header + octets + VALUES["b"].tobytes()
    assert entry.xxh3 == xxhash.xxh3_64_hexdigest(VALUES["b"].tobytes())


def test_an_array_larger_than_a_piece(tmp_path, begin):
    values = np.arange(PIECE + 77, dtype=np.uint16)
    plan = ShardPlan("f", (OutputTensor("w", BY_NAME["bfloat16"], values.shape),))
    write_all(begin(plan), {"w": values})
    assert (tmp_path / "f").read_bytes()[len(plan.header) :] == values.tobytes()


def test_the_file_has_its_final_size_from_the_start(tmp_path, begin):
    begin()
    assert (tmp_path / "f").read_bytes() == PLAN.header + bytes(22)


def test_writing_copies_nothing(begin):
    values = np.ones(2**22, np.float32)
    writer = begin(ShardPlan("f", (OutputTensor("w", BY_NAME["float32"], values.shape),)))
    tracemalloc.start()
    writer.write("w", values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 16 MiB pass through; views and counters are all that is allocated.
    assert peak < 100_000


def test_pending_and_completion(begin):
    done = []
    writer = begin(when_complete=done.append)
    assert [tensor.name for tensor in writer.pending] == ["a", "b"]
    writer.write("a", VALUES["a"])
    writer.finish_tensor("a", {})
    assert [tensor.name for tensor in writer.pending] == ["b"]
    assert not done
    writer.write("b", VALUES["b"])
    writer.finish_tensor("b", {})
    assert writer.pending == () and done == [writer]


def test_a_shard_without_tensors_is_complete_at_once(tmp_path, begin):
    done = []
    writer = begin(ShardPlan("f", ()), when_complete=done.append)
    assert done == [writer]
    assert safetensors.deserialize((tmp_path / "f").read_bytes()) == []


def test_misuse(begin):
    writer = begin()
    with pytest.raises(ValueError, match="tensor 'b' is out of order: f expects 'a'"):
        writer.write("b", VALUES["b"])
    with pytest.raises(ValueError, match="tensor 'b' is out of order"):
        writer.finish_tensor("b", {})
    writer.write("a", VALUES["a"][:1])
    with pytest.raises(ValueError, match="8 bytes of tensor 'a' are missing"):
        writer.finish_tensor("a", {})
    with pytest.raises(ValueError, match="8 bytes too many for tensor 'a'"):
        writer.write("a", VALUES["a"])
    with pytest.raises(ValueError, match="only C-contiguous"):
        writer.write("a", np.zeros((4, 4), np.float32)[:, :2])


def test_nothing_follows_the_last_tensor(begin):
    writer = begin()
    write_all(writer, VALUES)
    with pytest.raises(ValueError, match="f expects nothing"):
        writer.write("a", VALUES["a"])


def test_continue_after_the_kept_tensors(tmp_path, begin, journal):
    first = begin()
    first.write("a", VALUES["a"])
    first.finish_tensor("a", {})
    first.write("b", VALUES["b"][:1])
    first.close()
    second = begin(kept=recheck(tmp_path / "f", journal.entries, lambda _: None))
    assert [tensor.name for tensor in second.pending] == ["b"]
    write_all(second, VALUES)
    octets = PLAN.header + VALUES["a"].tobytes() + VALUES["b"].tobytes()
    assert (tmp_path / "f").read_bytes() == octets
    assert second.digest.hexdigest() == blake3(octets).hexdigest()


def test_kept_tensors_of_another_layout(tmp_path, begin, journal):
    begin().close()
    kept = recheck(tmp_path / "f", journal.entries, lambda _: None)
    with pytest.raises(RequestError, match="was begun with another layout"):
        begin(ShardPlan("f", PLAN.tensors[:1]), kept=kept)


def test_an_existing_file_is_not_written_over(tmp_path, begin):
    (tmp_path / "f").write_text("mine")
    with pytest.raises(RunError, match="File exists"):
        begin()
    assert (tmp_path / "f").read_text() == "mine"


def test_short_writes_are_completed(tmp_path, begin, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, data[:5], offset))
    write_all(begin(), VALUES)
    assert (tmp_path / "f").read_bytes() == PLAN.header + VALUES["a"].tobytes() + VALUES["b"].tobytes()


def test_writeback_begins_before_the_end(begin, monkeypatch):
    monkeypatch.setattr(output_file, "_WRITEBACK", 10)
    calls = []
    monkeypatch.setattr(syscalls, "start_writeback", lambda fd, offset, length: calls.append((offset, length)))
    writer = begin()
    begun = len(PLAN.header)
    writer.write("a", VALUES["a"][:1])
    assert not calls
    writer.write("a", VALUES["a"][1:])
    assert calls == [(begun, 16)]


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_cannot_reserve_space(tmp_path, begin, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    begin()
    assert (tmp_path / "f").stat().st_size == PLAN.size
    (tmp_path / "f").unlink()
    monkeypatch.delattr(os, "posix_fallocate")
    begin()
    assert (tmp_path / "f").stat().st_size == PLAN.size


def test_a_disk_too_full_for_the_shard_shows_before_its_first_byte(tmp_path, begin, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(RunError, match="the disk is full"):
        begin()


def test_the_thread_that_hashes_gives_the_same_digests(tmp_path, begin):
    rng = np.random.default_rng(3)
    plan = ShardPlan("f", tuple(OutputTensor(name, BY_NAME["uint8"], (3 * PIECE + 5,)) for name in "ab"))
    values = {name: rng.integers(0, 256, 3 * PIECE + 5, np.uint8) for name in "ab"}
    with ThreadPoolExecutor(1) as hasher:
        writer = begin(plan, pools=Pools(hasher, hasher))
        for name in "ab":
            for piece in np.split(values[name], [7, 2 * PIECE]):
                buffer = piece.copy()
                writer.write(name, buffer)
                buffer[:] = 0  # As the owner of a buffer may do once the call has returned.
            assert writer.finish_tensor(name, {}).xxh3 == xxhash.xxh3_64_hexdigest(values[name])
    octets = (tmp_path / "f").read_bytes()
    assert octets == plan.header + values["a"].tobytes() + values["b"].tobytes()
    assert writer.digest.hexdigest() == blake3(octets).hexdigest()


def test_what_is_submitted_may_change_once_its_futures_are_done(tmp_path, begin):
    plan = ShardPlan(
        "f", (OutputTensor("a", BY_NAME["uint8"], (4 * PIECE,)), OutputTensor("b", BY_NAME["uint8"], (3,)))
    )
    values = np.random.default_rng(4).integers(0, 256, 4 * PIECE, np.uint8)
    with ThreadPoolExecutor(1) as hasher:
        writer = begin(plan, pools=Pools(hasher, hasher))
        pieces = [values[: 2 * PIECE].copy(), values[2 * PIECE :].copy()]
        busy = [writer.submit("a", piece) for piece in pieces]
        assert all(busy), "large pieces are hashed meanwhile"
        for piece, futures in zip(pieces, busy, strict=True):
            wait(futures)
            piece[:] = 0
        assert writer.finish_tensor("a", {}).xxh3 == xxhash.xxh3_64_hexdigest(values)
        assert writer.submit("b", np.arange(3, dtype=np.uint8)) == [], "a small one is done at once"
        writer.finish_tensor("b", {})
    octets = (tmp_path / "f").read_bytes()
    assert octets == plan.header + values.tobytes() + bytes([0, 1, 2])
    assert writer.digest.hexdigest() == blake3(octets).hexdigest()


def test_a_failing_write_waits_for_the_thread_that_hashes(begin, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with ThreadPoolExecutor(1) as hasher:
        writer = begin(
            ShardPlan("f", (OutputTensor("a", BY_NAME["uint8"], (2 * PIECE,)),)), pools=Pools(hasher, hasher)
        )
        monkeypatch.setattr(os, "pwrite", fail)
        with pytest.raises(RunError, match="Input/output error"):
            writer.write("a", np.zeros(2 * PIECE, np.uint8))


def test_after_a_failing_fsync_nothing_of_the_shard_is_left_to_believe(tmp_path, begin, monkeypatch):
    writer = begin()

    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match="Input/output error"):
        writer.sync()
    assert not (tmp_path / "f").exists()
