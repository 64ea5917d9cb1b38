"""Files as torch.save writes them, made without torch: any pickle one could think of, in a zip archive."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

STORAGE = {
    "<f4": "FloatStorage",
    "<i8": "LongStorage",
    "<i4": "IntStorage",
    "<f8": "DoubleStorage",
    "<f2": "HalfStorage",
}


@dataclass
class Obj:
    """An object of class ``name`` of ``module``, made of arguments and given a state; or the class itself."""

    module: str
    name: str
    args: tuple = ()
    state: Any = None
    called: bool = False
    bare: bool = False


@dataclass
class Tensor:
    """A tensor whose storage is ``values``; shape and strides may differ from the array's, as may the type's name."""

    values: np.ndarray
    shape: tuple | None = None
    stride: tuple | None = None
    offset: int = 0
    storage: str | None = None


@dataclass
class _Writer:
    out: bytearray = field(default_factory=bytearray)
    storages: list[np.ndarray] = field(default_factory=list)

    def put(self, value: Any) -> None:
        out = self.out
        if value is None or isinstance(value, bool):
            out += {None: b"N", True: b"\x88", False: b"\x89"}[value]
        elif isinstance(value, int):
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            out += b"\x8a" + bytes([len(data)]) + data
        elif isinstance(value, float):
            out += b"G" + struct.pack(">d", value)
        elif isinstance(value, str):
            data = value.encode()
            out += b"X" + struct.pack("<I", len(data)) + data
        elif isinstance(value, dict):
            out += b"}("
            for key, item in value.items():
                self.put(key)
                self.put(item)
            out += b"u"
        elif isinstance(value, list | tuple):
            out += b"](" if isinstance(value, list) else b"("
            for item in value:
                self.put(item)
            out += b"e" if isinstance(value, list) else b"t"
        elif isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, Obj):
            self._object(value)
        else:
            raise TypeError(value)

    def _object(self, value: Obj) -> None:
        self.out += f"c{value.module}\n{value.name}\n".encode()
        if value.bare:
            return
        self.put(tuple(value.args))
        self.out += b"R" if value.called else b"\x81"
        if value.state is not None:
            self.put(value.state)
            self.out += b"b"

    def _tensor(self, value: Tensor) -> None:
        array = np.ascontiguousarray(value.values)
        key = next((i for i, known in enumerate(self.storages) if known is value.values), len(self.storages))
        if key == len(self.storages):
            self.storages.append(value.values)
        shape = array.shape if value.shape is None else value.shape
        stride = value.stride
        if stride is None:
            stride = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
        kind = value.storage or STORAGE[array.dtype.str]
        self.out += b"ctorch._utils\n_rebuild_tensor_v2\n("
        self.out += b"("
        self.put("storage")
        self.out += f"ctorch\n{kind}\n".encode()
        for item in (str(key), "cpu", array.size):
            self.put(item)
        self.out += b"tQ"
        for item in (value.offset, tuple(shape), tuple(stride), False, {}):
            self.put(item)
        self.out += b"tR"


def pickled(value: Any) -> bytes:
    """A protocol-2 pickle of plain data, Objs and Tensors."""
    writer = _Writer()
    writer.put(value)
    return b"\x80\x02" + bytes(writer.out) + b"."


def save(path: Path, value: Any, *, folder: str = "archive", byteorder: bytes = b"little") -> Path:
    """Like torch.save of ``value``, which may hold Objs and Tensors."""
    writer = _Writer()
    writer.put(value)
    members = {"data.pkl": b"\x80\x02" + bytes(writer.out) + b".", "byteorder": byteorder}
    members |= {f"data/{i}": np.ascontiguousarray(array).tobytes() for i, array in enumerate(writer.storages)}
    return save_members(path, {f"{folder}/{name}": content for name, content in members.items()})


def save_members(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """A zip archive of the given members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def dtensor(local: Tensor, shape: tuple, placements: list[Obj], mesh: Obj, **spec: Any) -> Obj:
    """A DTensor as torch >= 2.5 saves it."""
    package = "torch.distributed.tensor"
    meta = Obj(f"{package}._dtensor_spec", "TensorMeta", (Obj("torch", "Size", (shape,), called=True), (), None))
    state = {"mesh": mesh, "placements": tuple(placements), "tensor_meta": meta, **spec}
    return wrapped(
        package,
        "DTensor",
        {"_local_tensor": local, "_spec": Obj(f"{package}._dtensor_spec", "DTensorSpec", state=state)},
    )


def wrapped(module: str, name: str, state: Any) -> Obj:
    """A tensor of a subclass, with its state."""
    function = Obj("torch._utils", "_rebuild_wrapper_subclass", bare=True)
    kind = Obj(module, name, bare=True)
    return Obj("torch._tensor", "_rebuild_from_type_v2", (function, kind, (), state), called=True)


def mesh(ranks: Any, rank: int | None = None, **state: Any) -> Obj:
    """A DeviceMesh as torch before 2.9 saves it: an array of ranks, and where this one is."""
    array = np.asarray(ranks, "<i8")
    coordinate = None if rank is None else [int(i) for i in np.argwhere(array == rank)[0]]
    return Obj(
        "torch.distributed.device_mesh",
        "DeviceMesh",
        state={"device_type": "cuda", "mesh": Tensor(array), "_coordinate_on_dim": coordinate, **state},
    )


def shard(dim: int) -> Obj:
    """A placement along dimension ``dim``."""
    return Obj("torch.distributed.tensor.placement_types", "Shard", state={"dim": dim})


def replicate() -> Obj:
    """A placement of whole copies."""
    return Obj("torch.distributed.tensor.placement_types", "Replicate", state={})
