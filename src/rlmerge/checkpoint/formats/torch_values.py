"""What torch.save writes, as inert values: tensors as views of storages, every other object as a record."""

from __future__ import annotations

import math
from typing import Any

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats.pickles import MAX_PICKLE, interpret
from rlmerge.checkpoint.formats.records import Malformed, Name, Record, sizes
from rlmerge.checkpoint.formats.torch_archive import Archive
from rlmerge.checkpoint.source import Extent, Source
from rlmerge.checkpoint.strided import Strided
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BY_NAME, DType

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}

_TENSOR = "torch.distributed.tensor"
_OLD_TENSOR = "torch.distributed._tensor"
_SHARDED = "torch.distributed._shard.sharded_tensor"
_DCP = "torch.distributed.checkpoint"
_PLACEMENTS = ("Shard", "Replicate", "_StridedShard", "Partial")
_SPECS = ("DTensorSpec", "TensorMeta", "ShardOrderEntry")

_NAMES: dict[str, tuple[str, ...]] = {
    "collections": ("OrderedDict", "defaultdict"),
    "torch": (*_STORAGES, *BY_NAME, "Size", "device", "Tensor", "strided"),
    "torch.storage": ("UntypedStorage",),
    "torch._utils": (
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
        "_rebuild_parameter",
        "_rebuild_wrapper_subclass",
    ),
    "torch._tensor": ("_rebuild_from_type_v2",),
    "torch.nn.parameter": ("Parameter",),
    "torch.serialization": ("_get_layout",),
    "torch.distributed.device_mesh": ("DeviceMesh",),
    f"{_OLD_TENSOR}.device_mesh": ("DeviceMesh",),
    "torch.distributed._mesh_layout": ("_MeshLayout", "_FlatLayout"),
    _TENSOR: ("DTensor",),
    f"{_TENSOR}._api": ("DTensor",),
    f"{_TENSOR}._dtensor_spec": _SPECS,
    f"{_TENSOR}.placement_types": _PLACEMENTS,
    _OLD_TENSOR: ("DTensor",),
    f"{_OLD_TENSOR}.api": ("DTensor",),
    f"{_OLD_TENSOR}.placement_types": (*_PLACEMENTS, *_SPECS),
    f"{_OLD_TENSOR}._dtensor_spec": _SPECS,
    _SHARDED: ("ShardedTensor",),
    f"{_SHARDED}.api": ("ShardedTensor",),
    f"{_SHARDED}.metadata": ("ShardedTensorMetadata", "TensorProperties", "MEM_FORMAT_ENCODING"),
    "torch.distributed._shard.metadata": ("ShardMetadata",),
    "torch.distributed._shard.sharding_spec.chunk_sharding_spec": ("ChunkShardingSpec",),
    "torch.distributed._shard.sharding_spec.api": ("EnumerableShardingSpec",),
    "torch.distributed.remote_device": ("_remote_device",),
    f"{_DCP}.metadata": (
        "Metadata",
        "MetadataIndex",
        "TensorStorageMetadata",
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "TensorProperties",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    ),
    f"{_DCP}.filesystem": ("_StorageInfo", "_StoragePrefix"),
    "pathlib": ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"),
    "deepspeed.runtime.fp16.loss_scaler": ("LossScaler", "DynamicLossScaler"),
    "deepspeed.runtime.zero.config": ("ZeroStageEnum",),
    "deepspeed.utils.tensor_fragment": ("fragment_address",),
    # What client states and training arguments beside the weights hold.
    "_codecs": ("encode",),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "argparse": ("Namespace",),
}

_VOCABULARY = {(module, name): name for module, names in _NAMES.items() for name in names}
# A shard of the older sharded tensors shares its name with a placement; enum members are got by getattr.
_VOCABULARY[f"{_SHARDED}.shard", "Shard"] = "LocalShard"
_VOCABULARY["__builtin__", "getattr"] = _VOCABULARY["builtins", "getattr"] = "member"
_VOCABULARY["__builtin__", "set"] = _VOCABULARY["builtins", "set"] = "set"
_VOCABULARY["__builtin__", "bytearray"] = _VOCABULARY["builtins", "bytearray"] = "bytearray"


@frozen(slots=True)
class Storage:
    """The member ``data/<key>`` of an archive, ``count`` elements; bytes where ``dtype`` is None."""

    dtype: DType | None
    key: str
    count: int


@frozen(slots=True)
class Dense:
    """A tensor: elements of a storage from ``offset`` on, ``stride`` elements from one to the next."""

    dtype: DType
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        """Its elements."""
        return math.prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie in row-major order without gaps."""
        step = 1
        for n, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if n != 1 and stride != step:
                return False
            step *= n
        return True


@frozen(slots=True)
class Saved:
    """The object that an archive holds, and the archive in which its storages lie."""

    value: Any
    archive: Archive

    @property
    def file(self) -> InputFile:
        return self.archive.file

    def source(self, name: str, tensor: Dense) -> Source:
        """A tensor of this file; CheckpointError if it does not lie in its storage or that is not there."""
        begin, end = self.archive.span(f"data/{tensor.storage.key}")
        size, where = tensor.dtype.itemsize, f"{self.file}: {name}"
        count = (end - begin) // size
        if tensor.is_contiguous:
            first = begin + tensor.offset * size
            last = first + tensor.count * size
            if last > end:
                raise CheckpointError("reaches beyond its storage", where=where, hint=_DAMAGED)
            return Extent(name, tensor.dtype, tensor.shape, self.file, first, last)
        storage = Extent(name, tensor.dtype, (count,), self.file, begin, begin + count * size)
        try:
            return Strided(name, storage, tensor.offset, tensor.shape, tensor.stride)
        except ValueError as error:
            raise CheckpointError(f"cannot be read: {error}", where=where, hint=_DAMAGED) from None


def load(archive: Archive, known: dict[bytes, Any] | None = None) -> Saved:
    """What torch.save wrote to an archive; CheckpointError if it cannot be read safely.

    ``known`` keeps what pickles mean, for archives that hold equal ones.
    """
    where = str(archive.file)
    if "byteorder" in archive and archive.content("byteorder", 16) != b"little":
        raise CheckpointError("was written on a big-endian machine", where=where, hint=_DAMAGED)
    pickle = archive.content("data.pkl", MAX_PICKLE)
    if known is None:
        return Saved(read_pickle(pickle, where), archive)
    if pickle not in known:
        known[pickle] = read_pickle(pickle, where)
    return Saved(known[pickle], archive)


def read_pickle(data: bytes, where: str) -> Any:
    """A pickle of torch as inert values; CheckpointError if it cannot be read safely."""
    return interpret(data, where, _VOCABULARY, _called, _persistent)


def _called(kind: str, args: tuple[Any, ...]) -> Any:
    """What a call in the pickle makes: dictionaries, tensors, and records of everything else."""
    if kind == "OrderedDict" and not args:
        return {}
    if kind == "Size":
        return _sizes(args[0] if args else None)
    if kind in ("_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        return _dense(kind, args)
    if kind == "_rebuild_parameter" and args and isinstance(args[0], Dense | Record):
        return args[0]
    if kind == "_rebuild_from_type_v2":
        return _of_type(args)
    return Record(kind, args)


def _of_type(args: tuple[Any, ...]) -> Any:
    """A tensor of a subclass: a plain tensor of ``torch.Tensor``, a record with its state of any other."""
    if len(args) != 4 or not isinstance(args[0], Name) or not isinstance(args[1], Name) or type(args[2]) is not tuple:
        raise Malformed("a tensor is malformed")
    function, kind, inner, state = args
    if function.kind in ("_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        return _dense(function.kind, inner)
    if isinstance(state, tuple) and len(state) == 2 and state[0] is None and isinstance(state[1], dict):
        state = state[1]  # of a class with slots
    return Record(kind.kind, inner, state)


def _sizes(values: Any) -> tuple[int, ...]:
    found = sizes(values)
    if found is None:
        raise Malformed("the sizes of a tensor are not whole numbers")
    return found


def _dense(kind: str, args: tuple[Any, ...]) -> Dense:
    if len(args) < 4 or not isinstance(args[0], Storage) or type(args[1]) is not int or not 0 <= args[1] < 1 << 62:
        raise Malformed("a tensor is malformed")
    storage, offset, shape, stride = args[0], args[1], _sizes(args[2]), _sizes(args[3])
    dtype = storage.dtype
    if kind == "_rebuild_tensor_v3":
        named = args[6] if len(args) > 6 else None
        dtype = BY_NAME.get(named.kind) if isinstance(named, Name) else None
    if dtype is None or len(shape) != len(stride):
        raise Malformed("a tensor is malformed")
    return Dense(dtype, storage, offset, shape, stride)


def _persistent(value: Any) -> Storage:
    if isinstance(value, tuple) and len(value) == 5 and value[0] == "storage":
        _, kind, key, _, count = value
        if isinstance(kind, Name) and isinstance(key, str) and type(count) is int and 0 <= count < 1 << 62:
            if kind.kind == "UntypedStorage":
                return Storage(None, key, count)
            if kind.kind in _STORAGES:
                return Storage(BY_NAME[_STORAGES[kind.kind]], key, count)
    raise Malformed("it refers to something that is no storage")


_DAMAGED = "The file is damaged or was written by a faulty tool; save it again."
