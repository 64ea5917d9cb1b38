"""Published weight deltas as slime, SkyRL, grail and TRL lay them out, from arrays of storage values."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xxhash
import zstandard
from safetensors import TensorSpec, serialize_file

Arrays = Mapping[str, np.ndarray]
"""Tensors by name: uint16 stands for bfloat16."""

_TYPES = {"uint16": "bfloat16", "float32": "float32", "uint8": "uint8", "int32": "int32"}


def save(file: Path, tensors: Arrays, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file."""
    arrays = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    specs = {
        name: TensorSpec(dtype=_TYPES[str(x.dtype)], shape=list(x.shape), data_ptr=x.ctypes.data, data_len=x.nbytes)
        for name, x in arrays.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    serialize_file(specs, file, metadata or {})


def model(folder: Path, tensors: Arrays) -> Path:
    """A model directory."""
    save(folder / "model.safetensors", tensors, {"format": "pt"})
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def octets(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


def digest(algorithm: str, data: bytes) -> str:
    """As the trainers spell it."""
    known = {"xxh3-128": xxhash.xxh3_128_hexdigest, "adler32": lambda x: f"{zlib.adler32(x):08x}"}
    return known[algorithm](data) if algorithm in known else hashlib.new(algorithm, data).hexdigest()


def frame(data: bytes | np.ndarray) -> np.ndarray:
    return np.frombuffer(zstandard.ZstdCompressor(level=1).compress(bytes(data)), np.uint8)


def slime(
    base: Arrays, new: Arrays, folder: Path, encoding: str, version: int = 1, algorithm: str = "xxh3-128"
) -> Path:
    """``weight_v000001`` in ``folder``; tensors that did not change are absent."""
    root = folder / f"weight_v{version:06d}"
    payload, digests = {}, {}
    for name in new:
        one, other = octets(base[name]), octets(new[name])
        mask = one != other
        places = np.flatnonzero(mask).astype("<u4")
        content = (one ^ other).tobytes()
        if encoding == "overwrite":
            content = struct.pack("<I", len(places)) + places.tobytes() + other[mask].tobytes()
        if mask.any():
            payload[name], digests[name] = frame(content), digest(algorithm, other.tobytes())
    save(root / "model-00000-of-00001.safetensors", payload, digests)
    metadata = {"version": f"{version:06d}", "base_version": f"{version - 1:06d}", "delta_encoding": encoding}
    metadata |= {"compression_format": "zstd", "checksum_format": algorithm}
    placed = dict.fromkeys(payload, "model-00000-of-00001.safetensors")
    (root / "model.safetensors.index.json").write_text(json.dumps({"metadata": metadata, "weight_map": placed}))
    return root


def skyrl(base: Arrays, new: Arrays, folder: Path, version: int = 1) -> Path:
    """``delta-00000001`` in ``folder``."""
    root, file = folder / f"delta-{version:08d}", "delta-rank00000-file000000.safetensors"
    payload, records = {}, []
    for name in new:
        one, other = octets(base[name]), octets(new[name])
        if (one != other).any():
            payload[name] = frame((one ^ other).tobytes())
            record = {"name": name, "dtype": _TYPES[str(new[name].dtype)], "shape": list(new[name].shape)}
            record |= {"payload_file": file, "payload_key": name, "checksum": digest("xxh3-128", other.tobytes())}
            records.append(record | {"checksum_algorithm": "xxh3-128"})
    save(root / file, payload)
    content = {"version": version, "base_version": version - 1, "tensors": records}
    (root / "manifest.json").write_text(json.dumps(content))
    return root


def trl(base: Arrays, new: Arrays, folder: Path, step: int = 1) -> Path:
    """``deltas/step_000001.safetensors`` in ``folder``."""
    tensors = {}
    for name in new:
        places = np.flatnonzero(base[name].reshape(-1) != new[name].reshape(-1))
        if len(places):
            tensors[f"{name}.indices"] = places.astype(np.int32)
            tensors[f"{name}.values"] = new[name].reshape(-1)[places]
    file = folder / "deltas" / f"step_{step:06d}.safetensors"
    save(file, tensors, {"sparse": "True", "model_version": str(step)})
    return file


def grail(base: Arrays, new: Arrays, folder: Path, window: int = 30, before: int = 0, layout: int = 31) -> Path:
    """``checkpoint-30/DELTA`` in ``folder``, in layout 2 (flat gaps), 3 (int32 gaps of rows and columns) or 31."""
    root = folder / f"checkpoint-{window}" / "DELTA"
    root.mkdir(parents=True)
    records, chunks, offset = [], [], 0
    for name in sorted(new):
        flat = np.flatnonzero(base[name].reshape(-1) != new[name].reshape(-1))
        if not len(flat):
            continue
        rows, columns = flat // (width := max(1, new[name].size // new[name].shape[0])), flat % width
        gaps = np.diff(rows, prepend=0)
        within = np.diff(columns, prepend=0)
        within[gaps != 0] = columns[gaps != 0]
        within[0] = columns[0]
        small = ("u1" if gaps.max() < 256 else "i4", "u2" if within.max() < 65536 else "i4")
        kinds = small if layout == 31 else ("i4", "i4")
        indices = [gaps.astype(kinds[0]).tobytes(), within.astype(kinds[1]).tobytes()]
        if layout == 2:
            indices = [np.diff(flat, prepend=0).astype("i4").tobytes()]
        values = new[name].reshape(-1)[flat].tobytes()
        spelt = {"u1": "uint8", "u2": "uint16", "i4": "int32"}
        record = {"name": name, "shape": list(new[name].shape), "num_nonzero": len(flat)}
        record |= {"value_dtype": _TYPES[str(new[name].dtype)], "indices_offset": offset}
        record |= {"indices_size": sum(map(len, indices)), "values_offset": offset + sum(map(len, indices))}
        record |= {"values_size": len(values)}
        if layout == 31:
            record |= {"row_dtype": spelt[kinds[0]], "col_dtype": spelt[kinds[1]]}
        records.append(record)
        chunks += [*indices, values]
        offset += sum(map(len, [*indices, values]))
    header = json.dumps({"version": layout, "tensors": records}).encode()
    payload = frame(struct.pack("<I", len(header)) + header + b"".join(chunks)).tobytes()
    (root / "delta_sparse.bin.zst").write_bytes(payload)
    weights = xxhash.xxh3_128()
    for name in sorted(new):
        weights.update(octets(new[name]).tobytes())
    content = {"window": window, "prev_window": before, "weights_hash": weights.hexdigest()}
    content["file_manifest"] = {"delta_sparse.bin.zst": hashlib.sha256(payload).hexdigest()}
    (root / "metadata.json").write_text(json.dumps(content))
    return root
