"""Sparse weight deltas as TRL's delta weight sync lays them out: ``deltas/step_000011.safetensors``.

Each changed tensor has ``NAME.indices`` (int32, flat) and ``NAME.values`` (the new values). Nothing in these files says
which model they change, nor what the result's checksum is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.formats import Format, Opened
from rlmerge.checkpoint.formats.delta_chain import Cursor, Patch, Patches, Places, patched
from rlmerge.checkpoint.formats.delta_zstd import Check
from rlmerge.checkpoint.header import Header, read_header
from rlmerge.checkpoint.paths import inside
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BY_NAME

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

NAME = "a sparse weight delta of TRL"
_FILE = re.compile(r"step_(\d+)\.safetensors")
_AGAIN = "It is damaged; publish or download it again."


@frozen
class _Indexed(Patch):
    """Flat positions and new values."""

    indices: Source
    values: Source

    @property
    def parts(self) -> tuple[Source, ...]:
        return (self.indices, self.values)

    def begin(self, base: Source) -> Cursor:
        if self.values.dtype is not base.dtype:
            what = f"holds values of {self.values.dtype.name}; the base has {base.dtype.name}"
            raise CheckpointError(what, where=self.values.where, hint="Name the model that the training began with.")
        read = [0, 0]

        def following(position: int, source: Source, n: int) -> np.ndarray:
            read[position] += n
            return source.read(read[position] - n, read[position])

        return Places(
            self.indices.numel,
            base.dtype.itemsize,
            base.numel,
            lambda n: following(0, self.indices, n).astype(np.int64),
            lambda n: following(1, self.values, n).view(np.uint8),
            self.indices.where,
        )


def _steps(root: Path, names: Sequence[str]) -> dict[int, Path]:
    """The deltas of a directory, or of ``deltas`` in it, by step."""
    here = {int(match[1]): root / name for name in names if (match := _FILE.fullmatch(name))}
    if here or "deltas" not in names or not (root / "deltas").is_dir():
        return here
    return _steps(root / "deltas", entries(root / "deltas"))


def _recognises(root: Path, names: Sequence[str]) -> bool:
    return bool(_steps(root, names))


def _open(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    assert base is not None
    steps = _steps(root, names)
    first, last = min(steps), max(steps)
    missing = [step for step in range(first, last) if step not in steps]
    if missing:
        what = f"lacks step {missing[0]} between {first} and {last}"
        hint = "Each step holds what changed since the one before; bring it back, or begin with a later full model."
        raise CheckpointError(what, where=str(steps[last].parent), hint=hint)
    changes = [(step, _patches(steps[step])) for step in sorted(steps)]
    warning = (
        f"{steps[last].parent}: nothing in these files says which model step {first} changes, or what must come of it; "
        f"that {base.reference} is the right base cannot be checked"
    )
    return Opened(NAME, patched(base, changes), (warning,), side_root=base.side_root, config=base.config)


def _patches(file: Path) -> Patches:
    header = read_header(inside(file.parent.resolve(), file.name))
    if header.metadata.get("sparse", "").lower() != "true":
        raise CheckpointError("is not marked as sparse", where=str(file), hint="Name a directory of sparse steps.")
    found: dict[str, tuple[Patch, Check | None]] = {}
    for key, indices in header.tensors.items():
        name = key.removesuffix(".indices")
        if name == key:
            if key.removesuffix(".values") == key or f"{key.removesuffix('.values')}.indices" not in header.tensors:
                raise _wrong(header, f"tensor {key!r} is neither indices nor their values")
            continue
        values = header.tensors.get(f"{name}.values")
        vectors = values is not None and len(indices.shape) == 1 and indices.shape == values.shape
        if values is None or not vectors or indices.dtype is not BY_NAME["int32"]:
            raise _wrong(header, f"{key!r} must be int32, with as many {name}.values")
        found[name] = _Indexed(indices, values), None
    return found


def _wrong(header: Header, what: str) -> CheckpointError:
    return CheckpointError(what, where=str(header.file), hint=_AGAIN)


FORMATS = (Format(NAME, _recognises, _open, needs_base=True),)
