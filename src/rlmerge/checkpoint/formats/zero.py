"""DeepSpeed ZeRO checkpoints: ``global_step*/`` with the float32 weights in flat pieces, one optimizer file a process.

ZeRO-1 and -2 lay all parameters of a group one after the other and cut the result into as many pieces as there are
processes; ZeRO-3 cuts every parameter. The names and shapes are in the model files. The script zero_to_fp32.py beside
them does the same by running the pickles; neither those nor that script is ever run here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlmerge.checkpoint.compose import Block, Pieces, Renamed
from rlmerge.checkpoint.directory import entries, first_missing, has_file, has_folder
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats import Format, Opened
from rlmerge.checkpoint.formats.locate import find_home, with_parents
from rlmerge.checkpoint.formats.records import Record, sizes
from rlmerge.checkpoint.formats.state_dict import config_of, find_side_root, finish
from rlmerge.checkpoint.formats.torch_archive import Archive
from rlmerge.checkpoint.formats.torch_values import Dense, Saved, load
from rlmerge.checkpoint.paths import inside, is_plain_name, read_bytes
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

_OPTIMIZER = re.compile(r"(bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
_MODEL = re.compile(r"(zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")
_MAX_TAG = 4096


def holds(root: Path, names: Sequence[str]) -> bool:
    """Whether ``names`` are files of a ZeRO checkpoint, or ``latest`` and the folder it names."""
    return any(_MODEL.fullmatch(name) for name in names) or _latest(root, names) is not None


def _latest(root: Path, names: Sequence[str]) -> str | None:
    """The folder that the file ``latest`` names."""
    if "latest" not in names or not has_file(root / "latest"):
        return None
    tag = read_bytes(inside(root, "latest"), _MAX_TAG).decode("utf-8", "replace").strip()
    if not is_plain_name(tag) or tag not in names or not has_folder(root / tag):
        return None
    return tag if any(_MODEL.fullmatch(name) for name in entries(inside(root, tag))) else None


def _recognises(root: Path, names: Sequence[str]) -> bool:
    return find_home(root, names, holds) is not None


def _open(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    home = find_home(root, names, holds)
    assert home is not None
    above, files = home
    folder, tag = above, _latest(*home)
    if tag is not None:
        folder = above / tag
        files = entries(folder)
    side = find_side_root((above, *with_parents(folder, root)))
    optimizer, models = _files(folder, files)
    states = [load(Archive(InputFile(inside(folder, name)))) for name in models]
    if optimizer:
        found, warnings = _from_optimizer(
            folder, states, [load(Archive(InputFile(inside(folder, name)))) for name in optimizer]
        )
    else:
        found, warnings = _from_model(folder, states[0])
    return Opened("a DeepSpeed ZeRO checkpoint", finish(found, config_of(side), folder), warnings, side_root=side)


FORMATS = (Format("a DeepSpeed ZeRO checkpoint", _recognises, _open),)


def _files(folder: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Optimizer files and model files, by rank; CheckpointError for what is cut in other ways than ZeRO cuts."""
    if any(("_expert_" in name and name.endswith("_states.pt")) or re.match(r"expp_rank_", name) for name in names):
        what = "holds experts that DeepSpeed spreads over processes, which are not read"
        raise CheckpointError(what, where=str(folder), hint=_CONVERT)
    optimizer = {int(m[2]): name for name in names if (m := _OPTIMIZER.fullmatch(name))}
    models = {int(m[2] or 0): name for name in names if (m := _MODEL.fullmatch(name))}
    parallel = [name for name in names if (m := _OPTIMIZER.fullmatch(name) or _MODEL.fullmatch(name)) and int(m[3])]
    if parallel or any(re.fullmatch(r"layer_\d+-model_.*\.pt", name) for name in names):
        what = "is cut by tensor or pipeline parallelism beside ZeRO, which is not read"
        raise CheckpointError(what, where=str(folder), hint=_CONVERT)
    for kind, found in (("optimizer", optimizer), ("model", models)):
        missing = first_missing(found, 0, max(found, default=-1))
        if missing is not None:
            what = f"lacks the {kind} file of rank {missing}, but has that of rank {max(found)}"
            raise CheckpointError(what, where=str(folder), hint=_INCOMPLETE)
    return [optimizer[rank] for rank in sorted(optimizer)], [models[rank] for rank in sorted(models)]


@frozen
class _Vector:
    """Vectors of one type laid one after the other; nothing of them is read."""

    parts: tuple[Source, ...]

    @property
    def count(self) -> int:
        return sum(part.numel for part in self.parts)

    def cut(self, first: int, last: int, at: int) -> list[Block]:
        """Its elements [first, last) as blocks that begin at element ``at`` of another vector."""
        blocks: list[Block] = []
        ends = accumulate(part.numel for part in self.parts)
        for part, end in zip(self.parts, ends, strict=True):
            begin = end - part.numel
            low, high = max(first, begin), min(last, end)
            if low < high:
                blocks.append(Block(part, (at + low - first,), (low - begin,), (high - low,)))
        return blocks


def _from_optimizer(
    folder: Path, models: Sequence[Saved], optimizer: Sequence[Saved]
) -> tuple[dict[str, Source], tuple[str, ...]]:
    """The float32 weights that the optimizer works on."""
    states = [_dict(_dict(saved.value, saved).get("optimizer_state_dict"), saved) for saved in optimizer]
    stage = _number(states[0].get("zero_stage"))
    if stage not in (1, 2, 3):
        what = f"is of ZeRO stage {stage}" if stage else "holds no ZeRO optimizer state"
        raise CheckpointError(what, where=str(optimizer[0].file), hint=_CONVERT)
    for state, saved in zip(states, optimizer, strict=True):
        if _number(state.get("zero_stage")) != stage or _world(state) != len(optimizer):
            what = f"is one of {_world(state)} optimizer files of a checkpoint, but {len(optimizer)} are here"
            raise CheckpointError(what, where=str(saved.file), hint=_INCOMPLETE)
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    groups = [_groups(state.get(key), saved) for state, saved in zip(states, optimizer, strict=True)]
    if len({len(group) for group in groups}) > 1:
        raise CheckpointError("holds optimizer files of several runs", where=str(folder), hint=_INCOMPLETE)
    first = _dict(models[0].value, models[0])
    shapes = _shapes(first.get("param_shapes"), models[0])
    if stage == 3:
        if len(models) != len(optimizer):
            what = f"holds {len(models)} model files, but {len(optimizer)} optimizer files"
            raise CheckpointError(what, where=str(folder), hint=_INCOMPLETE)
        every = {name: shape for group in shapes for name, shape in group.items()}
        streams = [_Vector(tuple(group)) for group in groups]
        found = _cut_by_parameter(every, streams, folder)
    else:
        padding = states[0].get("param_alignment_paddings")
        found = _cut_by_group(shapes, groups, padding, folder)
    found |= _frozen(stage, models) | _buffers(first, models[0])
    return found | _shared(first, found), ()


def _cut_by_parameter(
    shapes: Mapping[str, tuple[int, ...]], streams: Sequence[_Vector], folder: Path
) -> dict[str, Source]:
    """ZeRO-3: of every parameter each process holds an equal part, the last ones padded, one after the other."""
    found: dict[str, Source] = {}
    begin = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        part = -(-count // len(streams))
        blocks: list[Block] = []
        for rank, stream in enumerate(streams):
            at = min(rank * part, count)
            blocks += stream.cut(begin, begin + min(part, count - at), at)
        found[name] = Renamed(Pieces(name, (count,), blocks), name, shape)
        begin += part
    _check_used(begin, [stream.count for stream in streams], 1, folder)
    return found


def _cut_by_group(
    shapes: Sequence[Mapping[str, tuple[int, ...]]], groups: Sequence[Sequence[Source]], padding: Any, folder: Path
) -> dict[str, Source]:
    """ZeRO-1 and -2: the parameters of a group lie one after the other, over the pieces of all processes."""
    if len(shapes) != len(groups[0]):
        what = f"describes {len(shapes)} groups of parameters, but its optimizer has {len(groups[0])}"
        raise CheckpointError(what, where=str(folder), hint=_INCOMPLETE)
    found: dict[str, Source] = {}
    for number, group in enumerate(shapes):
        whole = _Vector(tuple(pieces[number] for pieces in groups))
        gaps = sizes(padding[number]) if isinstance(padding, list) and number < len(padding) else None
        if gaps is None or len(gaps) != len(group):
            gaps = (0,) * len(group)
        begin = 0
        for (name, shape), gap in zip(group.items(), gaps, strict=True):
            count = math.prod(shape)
            found[name] = Renamed(Pieces(name, (count,), whole.cut(begin, begin + count, 0)), name, shape)
            begin += count + gap
        # The whole is padded to a multiple of twice the number of processes, and so may each piece be.
        _check_used(begin, [whole.count], 2 * len(groups), folder)
    return found


def _check_used(used: int, available: Sequence[int], align: int, folder: Path) -> None:
    """CheckpointError unless the shapes use up the vectors, but for padding to a multiple of ``align``."""
    for count in available:
        if used > count or -(-count // align) != -(-used // align):
            what = f"its parameters take {used} elements of vectors of {count}; names and weights do not fit"
            raise CheckpointError(what, where=str(folder), hint=_INCOMPLETE)


def _frozen(stage: int, models: Sequence[Saved]) -> dict[str, Source]:
    """Parameters that were not trained, which the model files hold: whole, or for ZeRO-3 a part in each."""
    states = [_dict(saved.value, saved) for saved in models]
    shapes = states[0].get("frozen_param_shapes")
    found: dict[str, Source] = {}
    for name, shape in (_shapes([shapes], models[0])[0] if shapes else {}).items():
        parts: list[Source] = []
        for state, saved in list(zip(states, models, strict=True))[: len(models) if stage == 3 else 1]:
            fragment = _dict(state.get("frozen_param_fragments"), saved).get(name)
            if not isinstance(fragment, Dense):
                raise CheckpointError(f"lacks the frozen parameter {name!r}", where=str(saved.file), hint=_INCOMPLETE)
            part = saved.source(name, fragment)
            parts.append(Renamed(part, name, (part.numel,)))
        count, whole = math.prod(shape), _Vector(tuple(parts))
        found[name] = Renamed(Pieces(name, (count,), whole.cut(0, count, 0)), name, shape)
    return found


def _buffers(state: Mapping[str, Any], saved: Saved) -> dict[str, Source]:
    """Tensors of the model that are no parameters."""
    named, module = state.get("buffer_names"), state.get("module")
    wanted = named if isinstance(named, list) and isinstance(module, dict) else []
    tensors = {name: module.get(name) for name in wanted if isinstance(name, str)} if isinstance(module, dict) else {}
    return {name: saved.source(name, tensor) for name, tensor in tensors.items() if isinstance(tensor, Dense)}


def _shared(state: Mapping[str, Any], found: Mapping[str, Source]) -> dict[str, Source]:
    """Parameters that are another one under a further name."""
    told = state.get("shared_params")
    pairs = told.items() if isinstance(told, dict) else ()
    return {name: Renamed(found[of], name) for name, of in pairs if _is_name(name) and _is_name(of) and of in found}


def _from_model(folder: Path, saved: Saved) -> tuple[dict[str, Source], tuple[str, ...]]:
    """Without optimizer files: the weights that the model ran with, which only ZeRO-1 and -2 keep whole."""
    module = _dict(_dict(saved.value, saved).get("module"), saved)
    tensors = {name: tensor for name, tensor in module.items() if _is_name(name) and isinstance(tensor, Dense)}
    if not tensors or any(tensor.shape == (0,) for tensor in tensors.values()):
        what = "lacks the optimizer files (*_optim_states.pt), which hold the weights"
        raise CheckpointError(what, where=str(folder), hint=_INCOMPLETE)
    warning = f"{folder} has no optimizer files; the weights that the model ran with are used, rounded as they are"
    return {name: saved.source(name, tensor) for name, tensor in tensors.items()}, (warning,)


def _groups(value: Any, saved: Saved) -> list[Source]:
    """The flat vectors of one process, a group each."""
    vectors = value if isinstance(value, list) else []
    found = [saved.source(f"group {i}", vector) for i, vector in enumerate(vectors) if isinstance(vector, Dense)]
    if not found or len(found) < len(vectors) or any(len(vector.shape) != 1 for vector in found):
        raise CheckpointError("holds no float32 weights of ZeRO", where=str(saved.file), hint=_CONVERT)
    return found


def _shapes(groups: Any, saved: Saved) -> list[dict[str, tuple[int, ...]]]:
    """Shape by name for each group of parameters."""
    found: list[dict[str, tuple[int, ...]]] = []
    for group in [groups] if isinstance(groups, dict) else groups if isinstance(groups, list) else [None]:
        described = _dict(group, saved)
        shapes = {name: sizes(shape) for name, shape in described.items() if isinstance(name, str)}
        known = {name: shape for name, shape in shapes.items() if shape is not None}
        if len(known) < len(described):
            raise CheckpointError("describes its parameters in an unknown form", where=str(saved.file), hint=_CONVERT)
        found.append(known)
    return found


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _world(state: Mapping[str, Any]) -> int | None:
    count = state.get("partition_count")
    counts = sizes(count if isinstance(count, list) else [count])
    return max(counts) if counts else None


def _number(value: Any) -> int | None:
    """A whole number, or an enum member of one."""
    if isinstance(value, Record):
        value = value.args[0] if len(value.args) == 1 else None
    return value if type(value) is int else None


def _dict(value: Any, saved: Saved) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise CheckpointError("is no file of a ZeRO checkpoint", where=str(saved.file), hint=_CONVERT)
    return value


_INCOMPLETE = "Each node saves the files of its own processes; copy those of all nodes into this directory."
_CONVERT = "Convert it where you trust its files: python zero_to_fp32.py . OUTPUT --safe_serialization"
