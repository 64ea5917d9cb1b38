"""A sparse delta opened as its expert: every bit comes back, whatever range is read, from its own base alone."""

import json
import threading
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import TensorSpec, deserialize, serialize_file

from rlmerge.checkpoint import fingerprint, open_checkpoint
from rlmerge.checkpoint.formats.delta import DeltaSource, named_base
from rlmerge.checkpoint.formats.delta_extract import extract
from rlmerge.checkpoint.formats.delta_file import BLOCK, FILE
from rlmerge.errors import CheckpointError

CODES = {"bfloat16": np.uint16, "float16": np.float16, "float32": np.float32, "float64": np.float64, "int64": np.int64}
NAMES = {"BF16": "u2", "F16": "f2", "F32": "f4", "F64": "f8", "U8": "u1", "U32": "u4", "I64": "i8"}


def write(folder, tensors):
    """A model of {name: (type, array of storage values)}."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, (_, array) in tensors.items()}
    specs = {
        name: TensorSpec(dtype=tensors[name][0], shape=list(x.shape), data_ptr=x.ctypes.data, data_len=x.nbytes)
        for name, x in arrays.items()
    }
    serialize_file(specs, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def arrays_of(file):
    """The tensors of a safetensors file as storage values."""
    found = deserialize(file.read_bytes())
    return {name: np.frombuffer(x["data"], NAMES[x["dtype"]]).reshape(x["shape"]) for name, x in found}


def words(seed, *shape, dtype=np.uint16):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def changed(array, share, seed):
    """The same storage values with about ``share`` of them replaced."""
    rng = np.random.default_rng(seed)
    out = array.copy()
    mask = rng.random(array.shape) < share
    view = out.view(f"u{out.dtype.itemsize}")
    view[mask] = rng.integers(0, np.iinfo(view.dtype).max, int(mask.sum()), dtype=view.dtype)
    return out


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A base and an expert whose tensors changed in all the ways there are, and the delta between them."""
    root = tmp_path_factory.mktemp("pair")
    long = words(1, 3, 70_000)
    base = {
        "sparse": ("bfloat16", long),
        "odd": ("bfloat16", words(2, 67)),
        "same": ("float32", np.arange(10, dtype=np.float32)),
        "dense": ("float16", words(3, 50).view(np.float16)),
        "wide": ("float64", words(4, 9, 300, dtype=np.uint64).view(np.float64)),
        "ids": ("int64", np.arange(500)),
        "resized": ("bfloat16", words(5, 10, 4)),
        "retyped": ("bfloat16", words(6, 8)),
        "dropped": ("bfloat16", words(7, 8)),
        "scalar": ("float32", np.float32(3)),
        "empty": ("float32", np.empty((0, 4), np.float32)),
    }
    head = long.copy()
    head[2, 5:9] += 1
    head[0, :300] ^= 0x8000
    expert = {
        "sparse": ("bfloat16", changed(head, 0.01, 8)),
        "odd": ("bfloat16", changed(base["odd"][1], 0.2, 9)),
        "same": base["same"],
        "dense": ("float16", changed(base["dense"][1], 0.99, 10)),
        "wide": ("float64", changed(base["wide"][1], 0.05, 11)),
        "ids": ("int64", np.where(np.arange(500) == 17, -1, np.arange(500))),
        "resized": ("bfloat16", words(12, 11, 4)),
        "retyped": ("float32", np.arange(8, dtype=np.float32)),
        "added": ("bfloat16", words(13, 5)),
        "scalar": ("float32", np.float32(4)),
        "empty": base["empty"],
    }
    write(root / "base", base), write(root / "expert", expert)
    extract(open_checkpoint(root / "base"), open_checkpoint(root / "expert"), root / "delta")
    return root


@pytest.fixture(scope="module")
def models(pair):
    base = open_checkpoint(pair / "base")
    return base, open_checkpoint(pair / "expert"), open_checkpoint(pair / "delta", base=base)


def octets(source, *span):
    return source.read(*span).tobytes()


def test_every_bit_of_the_expert_comes_back(models):
    _, expert, delta = models
    assert list(delta.tensors) == list(expert.tensors)
    for name, tensor in expert.tensors.items():
        found = delta.tensors[name]
        assert (found.name, found.dtype, found.shape) == (name, tensor.dtype, tensor.shape)
        assert octets(found) == octets(tensor), name
    assert delta.format == "a sparse delta"
    assert delta.config == expert.config
    assert [path.name for path in delta.side_files] == ["config.json"]


def test_what_the_file_holds(pair):
    """Bitmap, counts and values for what changed; what would not be smaller, or has no like in the base, whole."""
    content = arrays_of(pair / "delta" / FILE)
    kinds = {key.split("/")[1]: key.split("/")[0] for key in content if key.split("/")[0] in ("values", "dense")}
    assert kinds == {
        "sparse": "values",
        "odd": "values",
        "wide": "values",
        "ids": "values",
        "dense": "dense",
        "resized": "dense",
        "retyped": "dense",
        "added": "dense",
        "scalar": "dense",
    }
    base, new = (arrays_of(pair / name / "model.safetensors")["sparse"].reshape(-1) for name in ("base", "expert"))
    mask = base != new
    assert (
        content["bitmap/sparse"].tolist() == np.packbits(np.pad(mask, (0, -len(mask) % 64)), bitorder="little").tolist()
    )
    assert content["counts/sparse"].tolist() == [mask[i : i + BLOCK].sum() for i in range(0, len(mask), BLOCK)]
    assert content["values/sparse"].tolist() == new[mask].tolist()
    assert content["bitmap/ids"].nonzero()[0].tolist() == [2]
    assert content["values/ids"].tolist() == [-1]


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_range_has_the_bits_of_the_expert(models, data):
    _, expert, delta = models
    name = data.draw(st.sampled_from(["sparse", "odd", "wide"]))
    total = expert.tensors[name].numel
    borders = st.sampled_from(range(0, total, BLOCK))
    near = borders.flatmap(lambda x: st.integers(max(0, x - 9), min(total, x + 9)))
    start, stop = sorted(data.draw(st.tuples(near, st.one_of(near, st.integers(0, total)))))
    assert octets(delta.tensors[name], start, stop) == octets(expert.tensors[name], start, stop)


BITS = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}


@given(
    dtype=st.sampled_from(list(BITS)),
    before=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40),
    places=st.dictionaries(st.integers(0, 39), st.integers(0, 2**64 - 1), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_any_bits_survive_extraction(tmp_path_factory, dtype, before, places):
    """Among them negative zeros, infinities, and NaNs with any payload."""
    root = tmp_path_factory.mktemp("bits")
    word = np.dtype(f"u{BITS[dtype]}")
    one = np.array(before, np.uint64).astype(word)
    other = one.copy()
    for place, bits in places.items():
        if place < len(other):
            other[place] = np.uint64(bits).astype(word)
    base = open_checkpoint(write(root / "base", {"w": (dtype, one.view(CODES[dtype]))}))
    expert = open_checkpoint(write(root / "expert", {"w": (dtype, other.view(CODES[dtype]))}))
    found = extract(base, expert, root / "delta")
    assert found.changed == np.count_nonzero(one != other)
    assert octets(open_checkpoint(root / "delta", base=base).tensors["w"]) == other.tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_zeros_and_nans_by_hand(tmp_path, dtype):
    """A change of sign of zero, of a NaN's payload and of its quiet bit are changes; the rest is not."""
    kind = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}[dtype]
    word = np.dtype(f"u{kind.itemsize}")
    quiet, signalling = (0x7FC0, 0x7F81) if dtype == "bfloat16" else (0x7FC00000, 0x7F800001)
    one = np.array([0, 0, quiet, quiet, quiet], word)
    other = np.array([0, 1 << (8 * kind.itemsize - 1), quiet, quiet + 1, signalling], word)
    pad = np.zeros(300, word)
    base = write(tmp_path / "base", {"w": (dtype, np.concatenate([one, pad]).view(CODES[dtype]))})
    expert = write(tmp_path / "expert", {"w": (dtype, np.concatenate([other, pad]).view(CODES[dtype]))})
    base, expert = open_checkpoint(base), open_checkpoint(expert)
    assert extract(base, expert, tmp_path / "delta").changed == 3
    delta = open_checkpoint(tmp_path / "delta", base=base).tensors["w"]
    assert isinstance(delta, DeltaSource)
    assert octets(delta) == octets(expert.tensors["w"])


@pytest.mark.parametrize("whole", [True, False])
def test_a_delta_is_its_expert_to_caches_and_locks(models, monkeypatch, whole):
    _, expert, delta = models
    monkeypatch.setattr(fingerprint, "WHOLE", 2**40 if whole else 0)
    assert fingerprint.fingerprint(delta.tensors) == fingerprint.fingerprint(expert.tensors)


def test_the_fingerprint_of_a_large_tensor_is_sampled_alike(tmp_path):
    """More than four blocks apart, of a type whose size does not divide the samples' offsets."""
    one = words(20, 3, 900_001, dtype=np.uint32)
    base = open_checkpoint(write(tmp_path / "base", {"w": ("float32", one.view(np.float32))}))
    other = changed(one, 0.001, 21).view(np.float32)
    expert = open_checkpoint(write(tmp_path / "expert", {"w": ("float32", other)}))
    extract(base, expert, tmp_path / "delta")
    delta = open_checkpoint(tmp_path / "delta", base=base).tensors["w"]
    assert delta.fingerprint(False) == expert.tensors["w"].fingerprint(False) != base.tensors["w"].fingerprint(False)


def test_a_delta_over_a_delta(tmp_path, models):
    _, expert, delta = models
    write(tmp_path / "last", {"odd": ("bfloat16", changed(expert.tensors["odd"].read(), 0.3, 30))})
    extract(delta, open_checkpoint(tmp_path / "last"), tmp_path / "delta")
    again = open_checkpoint(tmp_path / "delta", base=delta)
    assert octets(again.tensors["odd"]) == octets(open_checkpoint(tmp_path / "last").tensors["odd"])
    dense = open_checkpoint(tmp_path / "delta", base=expert)
    assert octets(dense.tensors["odd"]) == octets(again.tensors["odd"])


def test_many_threads_read_at_once(models):
    _, expert, delta = models
    whole, found = octets(expert.tensors["sparse"]), []

    def read(start, stop):
        found.append(octets(delta.tensors["sparse"], start, stop) == whole[2 * start : 2 * stop])
        delta.tensors["sparse"].release(start, stop)

    threads = [threading.Thread(target=read, args=(start, start + 30_000)) for start in range(0, 210_000, 30_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 7


def test_reading_takes_the_memory_it_says(models):
    """tracemalloc sees NumPy's buffers, and small objects, for which 64 KiB are allowed."""
    source = models[2].tensors["sparse"]
    source.read(0, 1)
    source.prefetch()
    tracemalloc.start()
    try:
        kept = source.read(100, 200_100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(kept) == 200_000
    assert peak <= source.scratch.fixed + source.scratch.per_element * 200_000 + 2**16


def test_what_a_source_says_of_itself(models, pair):
    base, _, delta = models
    source = delta.tensors["sparse"]
    assert source.nominal is source.dtype
    assert {file.path.parent.name for file in source.files} == {"base", "delta"}
    assert source.where == f"{pair / 'delta' / FILE}: sparse"
    assert not source.read().flags.writeable
    assert delta.tensors["same"] is base.tensors["same"]
    with pytest.raises(ValueError, match="not a range"):
        source.read(5, 4)


def test_another_base_is_refused(pair, models, tmp_path):
    with pytest.raises(CheckpointError, match="is a delta of another model than") as error:
        open_checkpoint(pair / "delta", base=models[1])
    assert models[0].fingerprint() in str(error.value.hint)
    with pytest.raises(CheckpointError, match="holds a sparse delta, which needs the model it belongs to"):
        open_checkpoint(pair / "delta")


def test_only_a_base_of_the_hub_is_named(pair):
    assert named_base(pair / "delta", [FILE]) is None
    assert named_base(pair / "base", ["model.safetensors"]) is None


def rewrite(folder, change_metadata=lambda metadata: None, change_tensors=lambda tensors: None):
    """Change a delta's file in place."""
    file = folder / FILE
    raw = file.read_bytes()
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    codes = {name: x["dtype"] for name, x in deserialize(raw)}
    tensors = {name: array.copy() for name, array in arrays_of(file).items()}
    change_metadata(metadata)
    change_tensors(tensors)
    spelt = {"BF16": "bfloat16", "U8": "uint8", "U32": "uint32"}
    specs = {
        name: TensorSpec(dtype=spelt[codes[name]], shape=list(x.shape), data_ptr=x.ctypes.data, data_len=x.nbytes)
        for name, x in tensors.items()
    }
    serialize_file(specs, file, metadata)


@pytest.fixture
def small(tmp_path):
    """A base of two blocks, and the delta of an expert that changed three elements."""
    one = words(40, BLOCK + 100)
    other = one.copy()
    other[[3, 70, BLOCK + 5]] ^= 1
    base = open_checkpoint(write(tmp_path / "base", {"w": ("bfloat16", one)}))
    extract(base, open_checkpoint(write(tmp_path / "expert", {"w": ("bfloat16", other)})), tmp_path / "delta")
    return base, tmp_path / "delta"


def entry(metadata, **fields):
    names = ["code", "shape", "kind", "changed", "base", "result"]
    table = json.loads(metadata["tensors"])
    table["w"] = [fields.get(name, value) for name, value in zip(names, table["w"], strict=True)]
    metadata["tensors"] = json.dumps(table)


BROKEN_METADATA = {
    "has version '2' of the layout of deltas": lambda m: m.update(rlmerge_delta="2"),
    "has version None of the layout of deltas": lambda m: m.pop("rlmerge_delta"),
    "is not valid JSON": lambda m: m.update(tensors="{"),
    "lacks the base or the tensors": lambda m: m.update(tensors="{}"),
    "lacks the base or the tensors ": lambda m: m.pop("base"),
    "w: its entry in the metadata is malformed": lambda m: entry(m, kind="other"),
    "w: its entry in the metadata is malformed ": lambda m: entry(m, shape=[-1]),
    "w: its entry in the metadata is malformed  ": lambda m: entry(m, changed=BLOCK * 9),
    "w: its entry in the metadata is malformed   ": lambda m: entry(m, code="X8"),
    "w: its entry in the metadata is malformed    ": lambda m: m.update(tensors='{"w": 5}'),
    "tensor 'values/w' is not what the metadata says": lambda m: entry(m, changed=4),
    "tensor 'bitmap/w' is not what the metadata says": lambda m: entry(m, kind="same"),
    "is a delta of another model": lambda m: m.update(base="0" * 32),
}


@pytest.mark.parametrize("message", BROKEN_METADATA)
def test_broken_metadata_is_refused_when_opened(small, message):
    base, folder = small
    rewrite(folder, BROKEN_METADATA[message])
    with pytest.raises(CheckpointError, match=message.strip()) as error:
        open_checkpoint(folder, base=base)
    assert error.value.hint


def test_a_shape_that_the_base_does_not_have(small):
    base, folder = small
    rewrite(folder, lambda metadata: entry(metadata, shape=[1, BLOCK + 100]))
    with pytest.raises(CheckpointError, match=r"tensor 'w' of the base is not the bfloat16 \[1, 65636\]"):
        open_checkpoint(folder, base=base)


BROKEN_TENSORS = {
    "do not add up to 3 changes": lambda t: t["counts/w"].__setitem__(0, 7),
    "block 0 of the bitmap does not have the 2 changes": lambda t: t["bitmap/w"].__setitem__(9, 255),
    "block 1 of the bitmap does not have the 1 changes": lambda t: t["bitmap/w"].__setitem__(-1, 128),
    "block 0 of the bitmap does not have the 1 changes": lambda t: t["counts/w"].__setitem__(slice(None), [1, 2]),
}


@pytest.mark.parametrize("message", BROKEN_TENSORS)
def test_broken_parts_are_refused_when_read(small, message):
    base, folder = small
    rewrite(folder, change_tensors=BROKEN_TENSORS[message])
    source = open_checkpoint(folder, base=base).tensors["w"]
    with pytest.raises(CheckpointError, match=message):
        source.read()


def test_a_truncated_file(small):
    base, folder = small
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is truncated"):
        open_checkpoint(folder, base=base)
