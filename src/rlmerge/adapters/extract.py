"""An adapter from a full model: the factors nearest to what training changed of a base, and how far they miss it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from rlmerge._version import __version__
from rlmerge.adapters.dense import DenseSum, squared_distance, sum_pieces
from rlmerge.adapters.differences import Difference, differences
from rlmerge.adapters.lowrank import ROUNDS, Extracted, extract
from rlmerge.adapters.result import AdapterResult, ModuleResult
from rlmerge.checkpoint.formats.adapter_names import BaseNames, is_embedding
from rlmerge.checkpoint.formats.adapter_output import NewAdapter, NewTensor, write_adapter
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.checkpoint.source import Source
from rlmerge.errors import RequestError
from rlmerge.kernels import ARITHMETIC
from rlmerge.kernels.dtypes import FLOAT32, MERGEABLE, DType
from rlmerge.progress import Progress, Quiet

_TRANSPOSED_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
_TRANSPOSED_LAYERS = {"c_attn", "c_proj", "c_fc", "q_attn"}
"""Layers that these models store as [in, out]."""


def extract_lora(
    base: Checkpoint,
    expert: Checkpoint,
    out: str | PathLike[str],
    *,
    rank: int = 16,
    exclude: Sequence[str] = (),
    whole_embeddings: bool = False,
    dtype: DType = FLOAT32,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> AdapterResult:
    """Write what ``expert`` changed of ``base`` as a PEFT adapter to the new directory ``out``.

    Matrices are brought to ``rank``; norms and biases are kept whole, and with ``whole_embeddings`` embeddings too.
    Tensors whose name fits a pattern of ``exclude`` (with ``*`` and ``?``) stay as in the base. The result tells for
    each module what share of its change is lost; training in bfloat16 makes changes that are not of low rank.

    RequestError if the two differ in tensors or shapes, if no matrix changed, or if stacked experts changed, which
    versions of PEFT read differently.
    """
    if rank < 1:
        raise RequestError(f"the rank must be at least 1, not {rank}")
    progress = progress or Quiet()
    changed = differences(base, expert)
    left = [pair for pair in changed if any(fnmatchcase(pair.name, pattern) for pattern in exclude)]
    taken = [pair for pair in changed if pair not in left]
    stack = next((pair for pair in taken if ".experts." in pair.name and len(pair.before.shape) == 3), None)
    if stack is not None:
        what = "changed, and holds all experts of a layer; versions of PEFT disagree how an adapter of it is read"
        hint = "Leave the experts as in the base with --exclude '*.experts.*', or keep the full model."
        raise RequestError(what, where=stack.after.where, hint=hint)
    left += [pair for pair in taken if not _is_held(pair)]
    planner = _Planner(base, expert, rank, dtype, whole_embeddings, progress)
    planner.add([pair for pair in taken if _is_held(pair)])
    adapter = planner.adapter
    if not adapter.ranks:
        where, hint = expert.reference, "Check that base and expert are the models you mean."
        raise RequestError("changes no matrix of the base, and an adapter needs one", where=where, hint=hint)
    settings = [
        __version__,
        ARITHMETIC,
        rank,
        dtype.name,
        sorted(exclude),
        whole_embeddings,
        base.edition,
        expert.edition,
    ]
    digest = xxhash.xxh3_128_hexdigest(json.dumps(settings).encode())
    names = [name.removesuffix(".weight") for name, tensor in base.tensors.items() if len(tensor.shape) > 1]
    progress.start("extract", planner.nbytes)
    stats = write_adapter(out, adapter, names, digest, resume=resume, force=force)
    progress.done()
    modules = [ModuleResult(**stats[name]) for name in planner.reported]
    modules += [_left_out(pair) for pair in left]
    return AdapterResult(Path(out), base.reference, tuple(modules), adapter.nbytes, _warnings(left))


def _is_held(pair: Difference) -> bool:
    """Whether an adapter has a place for the tensor: it is a module's weight or bias."""
    return pair.name.endswith((".weight", ".bias")) and pair.before.dtype in MERGEABLE


def _left_out(pair: Difference) -> ModuleResult:
    is_number = pair.before.dtype in MERGEABLE
    lost = squared_distance(pair.after, pair.before) if is_number else 0.0
    return ModuleResult(pair.name, 0, None, lost, lost)


def _warnings(left: Sequence[Difference]) -> tuple[str, ...]:
    if not left:
        return ()
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    return (f"the adapter leaves {left[0].name}{more} as in the base, though the expert changed it",)


class _Planner:
    """The tensors of an adapter, and which of them tell what is lost of their module."""

    def __init__(
        self,
        base: Checkpoint,
        expert: Checkpoint,
        rank: int,
        dtype: DType,
        whole_embeddings: bool,
        progress: Progress,
    ) -> None:
        self.adapter = NewAdapter(base.reference)
        self.reported: list[str] = []
        self.nbytes = 0
        self._tensors = base.tensors
        self._after = expert.tensors
        self._names = BaseNames(base, base.reference)
        self._rank = rank
        self._dtype = dtype
        self._whole_embeddings = whole_embeddings
        self._progress = progress
        self._is_transposed = (base.config or {}).get("model_type") in _TRANSPOSED_MODELS
        self._written: set[str] = set()

    def add(self, pairs: Iterable[Difference]) -> None:
        """Plan what holds ``pairs``: factors first, as a bias is named by what becomes of its weight."""
        rest: list[Difference] = []
        for pair in pairs:
            if self._has_factors(pair):
                self._add_factors(pair)
            else:
                rest.append(pair)
        for pair in rest:
            self._add_whole(pair.name, pair.after)
            if pair.head is not None:
                self._add_whole(pair.head, pair.after)

    def _has_factors(self, pair: Difference) -> bool:
        is_table = is_embedding(pair.name) or self._names.is_head(pair.name)
        is_router = pair.module.endswith(".router")
        return len(pair.before.shape) == 2 and not is_router and not (is_table and self._whole_embeddings)

    def _add_factors(self, pair: Difference) -> None:
        solver = _Solver(pair, self._rank, self._progress)
        self.nbytes += (ROUNDS + 1) * pair.nbytes
        if is_embedding(pair.name):
            self._add_pair(pair.module, solver, "lora_embedding_A", "lora_embedding_B", turned=True)
        else:
            turned = self._is_transposed and pair.module.rpartition(".")[2] in _TRANSPOSED_LAYERS
            self.adapter.fan_in_fan_out |= turned
            self._add_pair(pair.module, solver, "lora_A.weight", "lora_B.weight", turned=turned)
        if pair.head is not None:
            head = pair.head.rpartition(".")[0]
            self._add_pair(head, solver, "lora_A.weight", "lora_B.weight", turned=False)

    def _add_pair(self, module: str, solver: _Solver, first: str, second: str, *, turned: bool) -> None:
        rows, columns = solver.pair.before.shape
        outputs, inputs = (columns, rows) if turned else (rows, columns)
        solver.uses += 1
        stats = partial(solver.finish, module)
        self.adapter.tensors += [
            NewTensor(f"{module}.{first}", (self._rank, inputs), self._dtype, partial(solver.a, turned)),
            NewTensor(f"{module}.{second}", (outputs, self._rank), self._dtype, partial(solver.b, turned), stats),
        ]
        self.adapter.ranks[module] = self._rank
        self.reported.append(f"{module}.{second}")

    def _add_whole(self, name: str, value: Source) -> None:
        """Plan ``value`` as it is: a bias by itself, a weight with everything else that its module holds."""
        module, _, parameter = name.rpartition(".")
        if name in self._written:
            return
        is_factored = module in self.adapter.ranks
        if parameter == "bias":
            self.adapter.has_bias = True
            self._write(name, f"{module}.base_layer.bias" if is_factored else name, value)
            return
        self.adapter.whole.append(module)
        self._write(name, name, value)
        for other in self._tensors:
            if other.startswith(f"{module}.") and other not in self._written:
                self._write(other, other, self._after[other])

    def _write(self, name: str, key: str, value: Source) -> None:
        self._written.add(name)
        pieces = partial(sum_pieces, DenseSum(key, value, ()))
        stats = partial(_whole_stats, name, value, self._tensors.get(name))
        self.adapter.tensors.append(NewTensor(key, value.shape, self._dtype, pieces, stats))
        self.reported.append(key)


class _Solver:
    """The factors of one difference, found when first asked for and forgotten after their ``uses``."""

    def __init__(self, pair: Difference, rank: int, progress: Progress) -> None:
        self.pair = pair
        self.uses = 0
        self._rank = rank
        self._progress = progress
        self._found: Extracted | None = None

    def a(self, turned: bool) -> Iterator[np.ndarray]:
        """Factor A [rank, in] of a matrix that is stored as [out, in], or ``turned``."""
        yield self._factors().b.T if turned else self._factors().a

    def b(self, turned: bool) -> Iterator[np.ndarray]:
        """Factor B [out, rank]."""
        yield self._factors().a.T if turned else self._factors().b

    def finish(self, name: str) -> Mapping[str, Any]:
        """What is lost of the difference, kept as the change of module ``name``."""
        found, (rows, columns) = self._factors(), self.pair.before.shape
        self.uses -= 1
        if not self.uses:
            self._found = None
        return asdict(ModuleResult(name, self._rank, min(rows, columns), found.lost, found.total))

    def _factors(self) -> Extracted:
        if self._found is None:
            rows, columns = self.pair.before.shape
            seed = xxhash.xxh3_64_intdigest(self.pair.name.encode())
            self._found = extract(partial(self.pair.rows, self._progress), (rows, columns), self._rank, seed)
        return self._found


def _whole_stats(name: str, after: Source, before: Source | None) -> Mapping[str, Any]:
    total = squared_distance(after, before) if before is not None else 0.0
    return asdict(ModuleResult(name, None, None, 0.0, total))
