"""Files to test on: safetensors written byte by byte, small models, and a process without root's rights."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from rlmerge.checkpoint import OutputTensor, PartialDirectory, plan_shards
from rlmerge.kernels.dtypes import BY_NAME

NOBODY = 65534


@pytest.fixture
def write_raw():
    """Write a file of a header, given as a dictionary or as raw bytes, and data; its header is not padded."""

    def write(path: Path, header: dict | bytes, data: bytes = b"") -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        return path

    return write


@pytest.fixture
def write_tensors(write_raw):
    """Write a well-formed safetensors file of float32 tensors, given as {name: list of numbers}."""

    def write(path: Path, tensors: dict[str, list[float]], metadata: dict[str, str] | None = None) -> Path:
        header, data = {"__metadata__": metadata or {"format": "pt"}}, b""
        for name, values in tensors.items():
            octets = np.array(values, "<f4").tobytes()
            header[name] = {
                "dtype": "F32",
                "shape": [len(values)],
                "data_offsets": [len(data), len(data) + len(octets)],
            }
            data += octets
        return write_raw(path, header, data)

    return write


@pytest.fixture
def two_shards(tmp_path, write_tensors):
    """A model directory of two shards, with an index and a configuration."""
    root = tmp_path / "model"
    root.mkdir()
    write_tensors(root / "a.safetensors", {"x": [1, 2, 3], "y": [4]})
    write_tensors(root / "b.safetensors", {"z": [5, 6]})
    placed = {"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"}
    (root / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    (root / "config.json").write_text('{"model_type": "llama"}')
    return root


@pytest.fixture
def plan():
    """Three small tensors in two shards, and their values."""
    rng = np.random.default_rng(7)
    tensors = [
        OutputTensor("embed", BY_NAME["bfloat16"], (10, 8)),
        OutputTensor("norm", BY_NAME["float32"], (8,)),
        OutputTensor("head", BY_NAME["bfloat16"], (6, 8)),
    ]
    shards = plan_shards(tensors, 200)
    values = {tensor.name: rng.integers(0, 256, tensor.nbytes, np.uint8) for tensor in tensors}
    return shards, values


@pytest.fixture
def write_shards():
    """Write all pending tensors of a plan, each in two pieces."""

    def write(partial: PartialDirectory, shards, values) -> list[str]:
        written = []
        for shard in shards:
            writer = partial.shard_writer(shard)
            for tensor in writer.pending:
                half = tensor.nbytes // 2
                writer.write(tensor.name, values[tensor.name][:half])
                writer.write(tensor.name, values[tensor.name][half:])
                writer.finish_tensor(tensor.name, {"survived": tensor.nbytes})
                written.append(tensor.name)
        return written

    return write


@pytest.fixture
def sealed(tmp_path, plan, write_shards):
    """A complete output directory."""
    shards, values = plan
    with PartialDirectory(tmp_path / "out", "plan") as partial:
        write_shards(partial, shards, values)
        partial.write_file("config.json", b'{"a": 1}')
        partial.write_file("additional_chat_templates/tools.jinja", b"{{ x }}")
        partial.seal(shards)
    return tmp_path / "out"


@pytest.fixture
def tree():
    """{relative name: content} of a directory."""

    def read(root: Path) -> dict[str, bytes]:
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    return read


@pytest.fixture
def common_folder():
    """A temporary folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="rlmerge-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def ordinary_user():
    """A context in which permissions bind, also when the tests run as root."""

    @contextmanager
    def act():
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    return act
