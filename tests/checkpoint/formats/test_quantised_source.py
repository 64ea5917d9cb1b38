"""Decoded weights as sources: the same bits whatever range is read, memory in proportion to it, a fingerprint."""

import threading
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.formats.quantised_source import segments
from support import quantised


def packed_with_zeros():
    parts, _ = quantised.int4(1, 10, 72, 24)
    rng = np.random.default_rng(2)
    zeros = torch.from_numpy(rng.integers(-(2**31), 2**31, (2, 3)).astype(np.int32))
    order = torch.from_numpy(rng.integers(0, 3, 72).astype(np.int32))
    return {f"l.weight_{end}": x for end, x in (parts | {"zero_point": zeros, "g_idx": order}).items()}


def stacked(shape, block):
    pairs = [quantised.fp8(seed, shape, block) for seed in range(3)]
    codes = torch.stack([codes.view(torch.uint8) for codes, _ in pairs]).view(torch.float8_e4m3fn)
    return {"l.weight": codes, "l.weight_scale_inv": torch.stack([scales for _, scales in pairs])}


def rows(*shape):
    codes = torch.from_numpy(np.random.default_rng(3).integers(-128, 128, shape, dtype=np.int8))
    return {"l.weight": codes, "l.weight_scale": torch.rand(shape[0], 1)}


def mx(*shape):
    blocks, scales, _ = quantised.mxfp4(4, *shape)
    return {"l_blocks": blocks, "l_scales": scales}


BLOCK = {"quant_method": "fp8", "weight_block_size": [4, 5]}
MODELS = {
    "stack of blocks": (stacked((10, 13), (4, 5)), BLOCK),
    "rows": (rows(9, 11), None),
    "packed": (packed_with_zeros(), None),
    "mxfp4": (mx(5, 64), None),
    "experts": (mx(3, 5, 64), None),
}


@pytest.fixture(scope="module", params=MODELS)
def source(request, tmp_path_factory):
    tensors, config = MODELS[request.param]
    model = open_checkpoint(quantised.write(tmp_path_factory.mktemp("m"), tensors, config))
    return next(iter(model.tensors.values()))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_range_has_the_bits_of_the_whole(source, data):
    whole = source.read()
    start = data.draw(st.integers(0, source.numel))
    stop = data.draw(st.integers(start, source.numel))
    np.testing.assert_array_equal(source.read(start, stop).view(np.uint32), whole[start:stop].view(np.uint32))


def test_what_a_source_says_of_itself(source):
    assert source.read().shape == (source.numel,)
    assert not source.read().flags.writeable
    assert (source.dtype.name, source.nominal.name) == ("float32", "bfloat16")
    assert [file.path.name for file in source.files] == ["model.safetensors"]
    assert "model.safetensors: l" in source.where
    assert source.nbytes < 4 * source.numel
    with pytest.raises(ValueError, match="not a range"):
        source.read(0, source.numel + 1)
    for start, stop in ((0, None), (3, 7), (source.numel, source.numel)):
        source.prefetch(start, stop)
        source.release(start, stop)


def test_many_threads_read_at_once(source):
    whole, found = source.read(), []
    cuts = np.linspace(0, source.numel, 9, dtype=int).tolist()

    def read(start, stop):
        found.append(np.array_equal(source.read(start, stop), whole[start:stop], equal_nan=True))

    threads = [threading.Thread(target=read, args=span) for span in pairwise(cuts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("whole", [True, False])
def test_the_fingerprint_follows_codes_and_scales(tmp_path, kind, whole):
    tensors, config = MODELS[kind]

    def fingerprint(folder, tensors):
        return next(iter(open_checkpoint(quantised.write(folder, tensors, config)).tensors.values())).fingerprint(whole)

    first = fingerprint(tmp_path / "a", tensors)
    assert fingerprint(tmp_path / "b", tensors) == first
    for name, tensor in tensors.items():
        if name.endswith("_shape"):
            continue
        changed = tensor.clone()
        changed.view(torch.uint8).reshape(-1)[0] ^= 1
        assert fingerprint(tmp_path / name, tensors | {name: changed}) != first


@pytest.mark.parametrize("kind", ["blocks", "rows", "packed", "mxfp4", "experts"])
def test_reading_takes_the_memory_it_says(tmp_path, kind):
    """A tile of a larger tensor: tracemalloc sees NumPy's buffers, and small objects, for which 64 KiB are allowed."""
    parts, _ = quantised.int4(1, 1024, 1024, 32)
    tensors = {
        "blocks": stacked((512, 1024), (128, 128)),
        "rows": rows(1024, 1024),
        "packed": {f"l.weight_{end}": part for end, part in parts.items()},
        "mxfp4": mx(1024, 1024),
        "experts": mx(2, 512, 1024),
    }[kind]
    config = {"quant_method": "fp8", "weight_block_size": [128, 128]} if kind == "blocks" else None
    source = next(iter(open_checkpoint(quantised.write(tmp_path / "m", tensors, config)).tensors.values()))
    source.read(0, 10)
    tracemalloc.start()
    try:
        kept = source.read(1000, 1000 + 2**18)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(kept) == 2**18
    assert peak <= source.scratch.fixed + source.scratch.per_element * 2**18 + 2**16


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 9))
def test_segments_are_the_range_in_order(one, other, columns):
    start, stop = sorted((one, other))
    covered = [
        row * columns + column
        for top, bottom, first, last in segments(start, stop, columns)
        for row in range(top, bottom)
        for column in range(first, last)
    ]
    assert covered == list(range(start, stop))
    assert len(list(segments(start, stop, columns))) <= 3
