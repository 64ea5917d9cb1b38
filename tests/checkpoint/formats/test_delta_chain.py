"""Chains of published deltas: decoded in sequence, read at random, with one clear error for what is broken."""

import json
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import zstandard
from safetensors import deserialize

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.formats import delta_chain, delta_zstd
from rlmerge.checkpoint.formats.delta_apply import apply, check
from rlmerge.checkpoint.formats.delta_chain import PatchedSource
from rlmerge.checkpoint.formats.delta_extract import extract
from rlmerge.errors import CheckpointError, RequestError, RunError
from support import published

SHAPES = {"a.w": (40, 50), "b.w": (300, 7), "c.n": (90,), "d.same": (5,)}


def states(count, seed=1):
    """A model and what became of it in ``count`` steps, one of which turns a sign of zero."""
    rng = np.random.default_rng(seed)
    found = [{name: rng.integers(0, 2**16, shape, dtype=np.uint16) for name, shape in SHAPES.items()}]
    found[0]["a.w"][3, 4] = 0
    for _ in range(count):
        after = {name: x.copy() for name, x in found[-1].items()}
        for name in ("a.w", "b.w", "c.n"):
            mask = rng.random(SHAPES[name]) < 0.1
            after[name][mask] += np.uint16(1)
        found.append(after)
    return found


STATES = states(3)
PUBLISH = {
    "slime xor": lambda i, folder: published.slime(STATES[i], STATES[i + 1], folder, "xor", i + 1),
    "slime overwrite": lambda i, folder: published.slime(STATES[i], STATES[i + 1], folder, "overwrite", i + 1),
    "skyrl": lambda i, folder: published.skyrl(STATES[i], STATES[i + 1], folder, i + 1),
    "trl": lambda i, folder: published.trl(STATES[i], STATES[i + 1], folder, i + 11),
    "grail": lambda i, folder: published.grail(STATES[i], STATES[i + 1], folder, 30 * (i + 1), 30 * i),
    "grail layout 3": lambda i, folder: published.grail(STATES[i], STATES[i + 1], folder, 30 * (i + 1), 30 * i, 3),
    "grail layout 2": lambda i, folder: published.grail(STATES[i], STATES[i + 1], folder, 30 * (i + 1), 30 * i, 2),
}


@pytest.fixture(params=PUBLISH)
def kind(request):
    return request.param


@pytest.fixture
def base(tmp_path):
    return open_checkpoint(published.model(tmp_path / "base", STATES[0]))


def assert_is(model, state):
    assert list(model.tensors) == list(state)
    for name, array in state.items():
        assert model.tensors[name].shape == array.shape
        assert model.tensors[name].read().tobytes() == array.tobytes(), name


def test_one_version(kind, base, tmp_path):
    root = PUBLISH[kind](0, tmp_path / "run")
    assert_is(open_checkpoint(tmp_path / "run", base=base), STATES[1])
    if root.is_dir():
        assert_is(open_checkpoint(root, base=base), STATES[1])


def test_a_chain(kind, base, tmp_path):
    roots = [PUBLISH[kind](i, tmp_path / "run") for i in range(3)]
    model = open_checkpoint(tmp_path / "run", base=base)
    assert_is(model, STATES[3])
    assert model.config == base.config
    assert [path.name for path in model.side_files] == ["config.json"]
    if roots[1].is_dir():
        assert_is(open_checkpoint(roots[1], base=base), STATES[2])


def test_the_end_of_a_chain_on_its_own_base(kind, tmp_path):
    """Training that resumed, or whose first versions were cleared away: the base is then what the first one changed."""
    for i in (1, 2):
        PUBLISH[kind](i, tmp_path / "run")
    base = open_checkpoint(published.model(tmp_path / "base", STATES[1]))
    assert_is(open_checkpoint(tmp_path / "run", base=base), STATES[3])


def test_a_gap_is_an_error(kind, base, tmp_path):
    for i in (0, 2):
        PUBLISH[kind](i, tmp_path / "run")
    missing = r"which is missing; \d+ is the last before it|lacks step 12 between 11 and 13"
    with pytest.raises(CheckpointError, match=missing):
        open_checkpoint(tmp_path / "run", base=base)


def test_any_range_and_thread(kind, base, tmp_path, monkeypatch):
    monkeypatch.setattr(delta_chain, "_PIECE", 64)
    monkeypatch.setattr(delta_chain, "_PLACES", 7)
    for i in range(3):
        PUBLISH[kind](i, tmp_path / "run")
    source = open_checkpoint(tmp_path / "run", base=base).tensors["b.w"]
    whole, found = STATES[3]["b.w"].reshape(-1), []

    def read(start, stop):
        found.append(np.array_equal(source.read(start, stop), whole[start:stop]))
        source.release(start, stop)

    threads = [threading.Thread(target=read, args=(start, start + 300)) for start in range(0, 2100, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 7
    assert np.array_equal(source.read(5, 2000), whole[5:2000])


def test_what_cannot_be_checked_is_a_warning(base, tmp_path):
    PUBLISH["trl"](0, tmp_path / "run")
    (warning,) = open_checkpoint(tmp_path / "run", base=base).warnings
    assert "is the right base cannot be checked" in warning


@pytest.mark.parametrize("kind", [kind for kind in PUBLISH if kind != "trl"], indirect=True)
def test_another_base_is_an_error(kind, tmp_path):
    PUBLISH[kind](0, tmp_path / "run")
    base = open_checkpoint(published.model(tmp_path / "other", STATES[2]))
    model = open_checkpoint(tmp_path / "run", base=base)
    found = check(model, base)
    assert not found.ok
    assert "does not give the bytes" in found.problems[0] or "do not have the checksum" in found.problems[0]
    with pytest.raises(CheckpointError):
        apply(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_applying_and_extracting(kind, base, tmp_path):
    """A chain becomes the expert's directory, or one delta with the bytes that the expert itself would give."""
    for i in range(3):
        PUBLISH[kind](i, tmp_path / "run")
    model = open_checkpoint(tmp_path / "run", base=base)
    assert check(model, base).ok
    apply(model, tmp_path / "out")
    assert_is(open_checkpoint(tmp_path / "out"), STATES[3])
    extract(base, open_checkpoint(tmp_path / "run", base=base), tmp_path / "one")
    extract(base, open_checkpoint(published.model(tmp_path / "last", STATES[3])), tmp_path / "two")
    file = "delta.safetensors"
    assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_base_without_a_tensor(kind, tmp_path):
    PUBLISH[kind](0, tmp_path / "run")
    base = open_checkpoint(published.model(tmp_path / "base", {"a.w": STATES[0]["a.w"]}))
    with pytest.raises(CheckpointError, match=r"changes tensor '[bc]\.[wn]', which .* lacks"):
        open_checkpoint(tmp_path / "run", base=base)


def test_a_base_of_another_size_or_type(kind, tmp_path):
    PUBLISH[kind](0, tmp_path / "run")
    wider = {name: x.astype(np.float32) for name, x in STATES[0].items()}
    base = open_checkpoint(published.model(tmp_path / "base", wider))
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / "run", base=base).tensors["a.w"].read()


def test_no_base_is_an_error(kind, tmp_path):
    PUBLISH[kind](0, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"weight delta.* needs the model it belongs to"):
        open_checkpoint(tmp_path / "run")


def payload_of(kind, folder):
    return next(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".zst"))


@pytest.mark.parametrize("kind", [kind for kind in PUBLISH if kind != "trl"], indirect=True)
def test_one_flipped_bit_is_an_error(kind, base, tmp_path):
    PUBLISH[kind](0, tmp_path / "run")
    file = payload_of(kind, tmp_path / "run")
    content = bytearray(file.read_bytes())
    content[-30] ^= 4
    file.write_bytes(content)
    with pytest.raises(CheckpointError):
        for tensor in open_checkpoint(tmp_path / "run", base=base).tensors.values():
            tensor.read()


def test_the_fingerprint_follows_base_and_payload(kind, base, tmp_path):
    PUBLISH[kind](0, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    first = open_checkpoint(tmp_path / "run", base=base).fingerprint()
    assert open_checkpoint(tmp_path / "copy", base=base).fingerprint() == first
    other = open_checkpoint(published.model(tmp_path / "other", STATES[2]))
    assert open_checkpoint(tmp_path / "run", base=other).fingerprint() != first
    PUBLISH[kind](1, tmp_path / "copy")
    assert open_checkpoint(tmp_path / "copy", base=base).fingerprint() != first


def test_scratch_space_goes_when_all_is_released(base, tmp_path):
    published.slime(STATES[0], STATES[1], tmp_path / "run", "xor")
    source = open_checkpoint(tmp_path / "run", base=base).tensors["a.w"]
    assert isinstance(source, PatchedSource)
    kept = source.read(0, 10)
    source.release(0, 1000)
    assert source._decoded is not None
    source.release(1000, 2000)
    assert source._decoded is None
    assert kept.tobytes() == STATES[1]["a.w"].reshape(-1)[:10].tobytes()
    assert source.read(1990, 2000).tobytes() == STATES[1]["a.w"].reshape(-1)[1990:].tobytes()


def test_a_full_scratch_disk(base, tmp_path, monkeypatch):
    published.slime(STATES[0], STATES[1], tmp_path / "run", "xor")
    monkeypatch.setattr(delta_zstd.tempfile, "TemporaryFile", lambda dir: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(RunError, match="the disk is full; 4,000 bytes of scratch space are needed\n  Set TMPDIR"):
        open_checkpoint(tmp_path / "run", base=base).tensors["a.w"].read()


def reframe(folder, change):
    """Replace the payload of tensor a.w in a slime version by what ``change`` makes of its content."""
    root = folder / "weight_v000001"
    file = root / "model-00000-of-00001.safetensors"
    raw = file.read_bytes()
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    tensors = {name: np.frombuffer(x["data"], np.uint8) for name, x in deserialize(raw)}
    tensors["a.w"] = change(tensors["a.w"])
    published.save(file, tensors, metadata)


def content(payload):
    return zstandard.ZstdDecompressor().decompress(payload.tobytes())


def places(*numbers, values=b"\1\1\1"):
    return published.frame(np.array([len(numbers), *numbers], "<u4").tobytes() + values)


XOR = {
    "is truncated": lambda x: x[:-9],
    "is truncated: 100 bytes more were due": lambda x: published.frame(content(x)[:-100]),
    "holds more bytes than the tensor has": lambda x: published.frame(content(x) + b"\0"),
    "is no sound zstd data": lambda x: np.concatenate([x[:40], x[40:] ^ 0xFF]),
    "does not give the bytes whose xxh3-128": lambda x: published.frame(b"\0" * len(content(x))),
}
OVERWRITE = {
    "its positions do not increase": lambda x: places(5, 5, 6),
    "its positions do not increase within the 4000": lambda x: places(5, 6, 4000),
    "overwrites 5000 bytes of 4000": lambda x: published.frame(np.array([5000], "<u4").tobytes()),
    "is truncated": lambda x: places(5, 6, 7, values=b"\1"),
    "holds more bytes": lambda x: places(5, 6, 7, values=b"\1\1\1\1"),
}


@pytest.mark.parametrize(("encoding", "message"), [*(("xor", m) for m in XOR), *(("overwrite", m) for m in OVERWRITE)])
def test_a_broken_payload_is_one_error(base, tmp_path, encoding, message):
    published.slime(STATES[0], STATES[1], tmp_path / "run", encoding)
    reframe(tmp_path / "run", {**XOR, **OVERWRITE}[message])
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(tmp_path / "run", base=base).tensors["a.w"].read()
    assert "weight_v000001" in str(error.value.where)
    assert error.value.hint


def test_what_is_no_zstd_is_refused_when_opened(base, tmp_path):
    published.slime(STATES[0], STATES[1], tmp_path / "run", "xor")
    reframe(tmp_path / "run", lambda x: np.zeros(30, np.uint8))
    with pytest.raises(CheckpointError, match="is no sound zstd data"):
        open_checkpoint(tmp_path / "run", base=base)


def test_a_window_that_needs_too_much_memory_is_refused(base, tmp_path):
    """A frame header of a 1 GiB window: magic, no single segment, exponent 20 above 1 KiB."""
    published.slime(STATES[0], STATES[1], tmp_path / "run", "xor")
    header = np.frombuffer(b"\x28\xb5\x2f\xfd\x00" + bytes([20 << 3]) + bytes(20), np.uint8)
    reframe(tmp_path / "run", lambda x: header)
    with pytest.raises(CheckpointError, match="needs 1,073,741,824 bytes of memory to decompress"):
        open_checkpoint(tmp_path / "run", base=base)


@pytest.mark.parametrize("algorithm", ["adler32", "sha256"])
def test_other_checksums(base, tmp_path, algorithm):
    published.slime(STATES[0], STATES[1], tmp_path / "run", "xor", algorithm=algorithm)
    assert_is(open_checkpoint(tmp_path / "run", base=base), STATES[1])
    other = open_checkpoint(published.model(tmp_path / "other", STATES[2]))
    with pytest.raises(CheckpointError, match=f"does not give the bytes whose {algorithm} it states"):
        open_checkpoint(tmp_path / "run", base=other).tensors["a.w"].read()


def test_a_missing_package_is_named(base, tmp_path, monkeypatch):
    published.slime(STATES[0], STATES[1], tmp_path / "run", "xor")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(RequestError, match=r"needs the package 'zstandard'.*\n  pip install 'rlmerge\[deltas\]'"):
        open_checkpoint(tmp_path / "run", base=base)
