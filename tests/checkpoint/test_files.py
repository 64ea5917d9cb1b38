import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rlmerge.checkpoint import files as input_files
from rlmerge.checkpoint import read_header, syscalls
from rlmerge.errors import CheckpointError, RunError


@pytest.fixture
def tensors(tmp_path):
    """{name: array} and {name: info} of a file of 64 KiB and a little more."""
    arrays = {
        "w": np.arange(128 * 100, dtype=np.float32).reshape(128, 100),
        "half": np.arange(5, dtype=np.float16),
        "scalar": np.array(3.0, np.float64),
        "flags": np.array([True, False, True]),
        "empty": np.zeros((3, 0), np.float32),
        "ids": np.arange(4, dtype=np.int64),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "f.safetensors")
    return arrays, read_header(tmp_path / "f.safetensors").tensors


def test_reads_what_the_safetensors_library_wrote(tensors):
    arrays, infos = tensors
    for name, array in arrays.items():
        found = infos[name].read()
        assert found.dtype == array.dtype and found.ndim == 1
        np.testing.assert_array_equal(found, array.reshape(-1))


def test_bfloat16_comes_as_its_bits(tmp_path, write_raw):
    header = {"b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    file = write_raw(tmp_path / "f", header, bytes([0x80, 0x3F, 0x00, 0xC0]))
    found = read_header(file).tensors["b"].read()
    assert found.tolist() == [0x3F80, 0xC000], "1.0 and -2.0"


def test_a_flat_range(tensors):
    arrays, infos = tensors
    np.testing.assert_array_equal(infos["w"].read(100, 203), arrays["w"].reshape(-1)[100:203])
    np.testing.assert_array_equal(infos["w"].read(12_700), arrays["w"].reshape(-1)[12_700:])
    assert infos["w"].read(7, 7).size == 0


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 12_801)])
def test_a_range_outside_the_tensor(tensors, start, stop):
    with pytest.raises(ValueError, match=r"is not a range of the 12800 elements of w"):
        tensors[1]["w"].read(start, stop)


def test_nothing_is_copied_and_nothing_can_be_changed(tensors):
    info = tensors[1]["w"]
    first, second = info.read(), info.read()
    assert np.shares_memory(first, second)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


def test_badly_placed_tensors_are_aligned_by_a_copy(tmp_path, write_raw):
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
        "c": {"dtype": "F32", "shape": [2], "data_offsets": [9, 17]},
        "d": {"dtype": "U8", "shape": [2], "data_offsets": [17, 19]},
        "e": {"dtype": "F32", "shape": [2], "data_offsets": [19, 27]},
    }
    values = np.array([1.5, -2.0], "<f4")
    data = b"\1" + values.tobytes() + values.tobytes() + b"\1\1" + values.tobytes()
    infos = read_header(write_raw(tmp_path / "f", header, data)).tensors
    for name in "bce":
        found = infos[name].read()
        assert found.flags.aligned and not found.flags.writeable
        np.testing.assert_array_equal(found, values)


def test_views_outlive_the_mapping(tensors):
    arrays, infos = tensors
    found = infos["w"].read()
    infos["w"].file.close()
    np.testing.assert_array_equal(found, arrays["w"].reshape(-1))


def test_prefetch_and_release_do_not_change_what_is_read(tensors):
    arrays, infos = tensors
    infos["w"].release()
    infos["w"].prefetch(0, 4000)
    found = infos["w"].read(1000, 3000)
    infos["w"].release(1000, 3000)
    infos["empty"].release()
    np.testing.assert_array_equal(found, arrays["w"].reshape(-1)[1000:3000])


def resident_kib() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="counts pages as Linux reports them")
def test_release_keeps_the_resident_set_small(tmp_path):
    values = np.ones(16 * 2**20, np.float32)
    safetensors.numpy.save_file({"w": values}, tmp_path / "f")
    info = read_header(tmp_path / "f").tensors["w"]
    step = 2**18
    del values
    before, peak = resident_kib(), 0
    for start in range(0, info.numel, step):
        assert info.read(start, start + step).sum() == step
        peak = max(peak, resident_kib() - before)
        info.release(start, start + step)
    # One range is 1 MiB; the kernel may map a few neighbouring 2 MiB folios around it. The file is 64 MiB.
    assert peak < 16 * 1024
    assert info.read().sum() == info.numel
    assert resident_kib() - before > 48 * 1024, "the measure sees pages that are not released"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the fault instead of killing the process")
def test_a_file_cut_off_while_it_is_read_is_an_error_not_a_crash(tensors):
    info = tensors[1]["w"]
    script = (
        "import os, sys\n"
        "from rlmerge.checkpoint import read_header\n"
        "from rlmerge.errors import RunError\n"
        "from pathlib import Path\n"
        "info = read_header(Path(sys.argv[1])).tensors['w']\n"
        "info.read(0, 10)\n"
        "os.truncate(info.file.path, 8192)\n"
        "try:\n"
        "    info.read()\n"
        "except RunError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(info.file)], capture_output=True, text=True)
    assert done.returncode == 0, "a SIGBUS would have ended it"
    assert f"{info.file}: has changed since it was opened" in done.stdout


@pytest.mark.parametrize("change", ["shrunk", "empty", "overwritten", "replaced"])
def test_a_file_that_changed_after_its_header_was_read(tensors, tmp_path, change):
    file = tensors[1]["w"].file
    if change == "overwritten":
        time.sleep(0.02)  # beyond the granularity of file times
        with file.path.open("r+b") as handle:
            handle.seek(-1, os.SEEK_END)
            handle.write(b"\1")
    elif change == "replaced":
        shutil.copy(file.path, tmp_path / "other")
        (tmp_path / "other").replace(file.path)
    else:
        os.truncate(file.path, file.size - 4 if change == "shrunk" else 0)
    for read in (tensors[1]["w"].read, lambda: tensors[1]["w"].fingerprint(True)):
        with pytest.raises(RunError, match="has changed since it was opened"):
            read()
    with pytest.raises(RunError, match="has changed since it was opened"):
        file.check()


def test_a_file_that_is_gone(tensors):
    file = tensors[1]["w"].file
    file.check()
    file.path.unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        tensors[1]["w"].read()
    with pytest.raises(RunError, match="is no longer there"):
        file.check()


def test_few_files_stay_open(tmp_path, monkeypatch, write_tensors):
    monkeypatch.setattr(input_files, "MAX_OPEN", 3)
    files = [write_tensors(tmp_path / f"{index}", {"t": [index]}) for index in range(8)]
    infos = [read_header(file).tensors["t"] for file in files]
    input_files.forget()
    before = open_files()
    kept = infos[0].read()
    assert [info.read()[0] for info in infos] == list(range(8))
    assert kept[0] == 0, "a view keeps its own mapping"
    assert open_files() - before <= 2 * 3 + 1, "three files, open and mapped, and the mapping of the view"


def test_a_kernel_without_populate(tensors, monkeypatch):
    arrays, infos = tensors
    monkeypatch.setattr(input_files, "_can_populate", True)  # which is found out for good
    monkeypatch.setattr(syscalls, "MADV_POPULATE_READ", 9999)
    np.testing.assert_array_equal(infos["w"].read(), arrays["w"].reshape(-1))
    np.testing.assert_array_equal(infos["ids"].read(), arrays["ids"])


def test_many_threads_read_one_file(tensors):
    arrays, infos = tensors
    wrong = []

    def work(seed: int) -> None:
        for start in np.random.default_rng(seed).integers(0, 12_000, 200):
            found = infos["w"].read(int(start), int(start) + 800)
            if not np.array_equal(found, arrays["w"].reshape(-1)[start : start + 800]):
                wrong.append(start)
            infos["w"].release(int(start), int(start) + 800)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_ranges_are_rounded_to_pages(tensors, monkeypatch):
    info = tensors[1]["w"]
    info.read()
    calls = []
    monkeypatch.setattr(syscalls, "madvise", lambda *call: calls.append(call) or 0)
    info.release(2000, 3000)
    [(address, length, advice)] = calls
    assert address % mmap.PAGESIZE == 0 and advice == syscalls.MADV_DONTNEED
    assert length >= 4000


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="only Linux tells what is cached")
@pytest.mark.parametrize("cached", [True, False])
def test_the_kernel_is_asked_for_what_is_not_cached(tensors, monkeypatch, cached):
    def preadv(fd, buffers, offset, flags):
        assert flags == os.RWF_NOWAIT
        if not cached:
            raise BlockingIOError
        return len(buffers[0])

    asked = []
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *call: asked.append(call))
    info = tensors[1]["w"]
    info.prefetch(2000, 3000)
    assert asked == ([] if cached else [(info.start + 8000, 4000, os.POSIX_FADV_WILLNEED)])
    info.prefetch(3000, 3000)
    assert len(asked) == (not cached), "nothing is needed of an empty range"


def test_ranges_are_fed_in_pieces(tmp_path, monkeypatch):
    """Ranges longer than the buffer, empty, overlapping and as short as a byte, in their order."""
    monkeypatch.setattr(input_files, "_PIECE", 5)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(40)))
    taken = []
    file = input_files.InputFile(path)
    file.feed([(3, 4), (0, 12), (7, 7), (39, 40)], lambda piece: taken.append(bytes(piece)))
    assert b"".join(taken) == bytes([3, *range(12), 39])
    assert max(map(len, taken)) <= 5
    with pytest.raises(RunError, match="has changed"):
        file.feed([(38, 41)], taken.append)
    path.write_bytes(bytes(41))
    with pytest.raises(RunError, match="has changed"):
        file.feed([(0, 1)], taken.append)
    path.unlink()
    with pytest.raises(CheckpointError):
        file.feed([(0, 1)], taken.append)


def test_a_few_digests_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "_REMEMBERED", 2)
    (tmp_path / "file").write_bytes(b"x")
    file = input_files.InputFile(tmp_path / "file")
    asked = []

    def digest(key):
        return file.remembered(key, lambda: asked.append(key) or bytes([key]))

    assert [digest(key) for key in (1, 2, 3, 1, 2, 3)] == [bytes([key]) for key in (1, 2, 3, 1, 2, 3)]
    assert asked == [1, 2, 3, 3]
