"""A weighted sum of adapters, kept as an adapter: exact by joining their factors, or brought to a rank.

For methods that are linear in the updates: base + Σ c_k·τ_k. Full weights of such a sum that are rounded to 16 bits
lose a third of a small update and more of a smaller one; its factors lose nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import xxhash

from rlmerge._version import __version__
from rlmerge.adapters.dense import row_pieces, sum_pieces
from rlmerge.adapters.factors import Product
from rlmerge.adapters.gather import Coefficients, Gathered, gather
from rlmerge.adapters.result import AdapterResult, ModuleResult
from rlmerge.checkpoint.formats.adapter_output import NewAdapter, NewTensor, write_adapter
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.errors import RequestError
from rlmerge.kernels import ARITHMETIC
from rlmerge.kernels.dtypes import FLOAT32, DType
from rlmerge.progress import Progress


def write_adapter_merge(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    coefficients: Coefficients,
    out: str | PathLike[str],
    *,
    rank: int | None = None,
    dtype: DType = FLOAT32,
    base_name: str | None = None,
    task: str | None = None,
    files: Mapping[str, bytes] | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> AdapterResult:
    """Write base + Σ c_k·τ_k as a PEFT adapter of ``base`` to the new directory ``out``.

    ``experts`` are adapters opened on this very ``base``; ``coefficients`` gives for a tensor one c per expert. Updates
    of low rank are joined, exactly up to the rounding to ``dtype``, or brought to ``rank`` where that is less; what was
    trained as a whole (norms, biases, embeddings, rows) is added up and stored whole. ``base_name`` is what the
    configuration calls the base, its reference by default; ``files`` are written beside it.

    RequestError if an expert is no adapter of ``base``, or its update is no sum of factors (DoRA), or the adapters
    change a module in ways that have no common form.
    """
    if rank is not None and rank < 1:
        raise RequestError(f"the rank must be at least 1, not {rank}")
    gathered = gather(base, experts, coefficients)
    adapter, reported = _new_adapter(gathered, base_name or base.reference, task, rank, dtype)
    if not adapter.ranks:
        hint = "Merge to full weights instead."
        raise RequestError("no update of low rank is left to write, and an adapter needs one", hint=hint)
    settings = [__version__, ARITHMETIC, rank, dtype.name, base_name, task]
    identity = [base.edition, *(expert.edition for expert in experts)]
    weights = {name: list(coefficients(name)) for name in gathered.tensors}
    digest = xxhash.xxh3_128_hexdigest(json.dumps([settings, identity, weights], sort_keys=True).encode())
    names = [name.removesuffix(".weight") for name, tensor in base.tensors.items() if len(tensor.shape) > 1]
    stats = write_adapter(out, adapter, names, digest, resume=resume, force=force, progress=progress, files=files)
    results = tuple(ModuleResult(**stats[name]) for name in reported)
    return AdapterResult(Path(out), adapter.base or "", results, adapter.nbytes)


def _new_adapter(
    gathered: Gathered, base_name: str, task: str | None, rank: int | None, dtype: DType
) -> tuple[NewAdapter, list[str]]:
    """What to write, and the tensors that tell what is lost of each module."""
    adapter = NewAdapter(base_name, task)
    reported: list[str] = []
    for name, group in gathered.products.items():
        product = Product(name, group.terms, rank)
        first, second = _EMBEDDING if product.like.is_embedding else _LAYER
        stats = partial(_product_stats, product, rank is not None)
        adapter.tensors += [
            NewTensor(f"{group.module}.{first}", product.a_shape, dtype, product.a_pieces),
            NewTensor(f"{group.module}.{second}", product.b_shape, dtype, product.b_pieces, stats),
        ]
        reported.append(f"{group.module}.{second}")
        adapter.ranks[name] = product.rank
        adapter.fan_in_fan_out |= group.is_transposed
        if group.is_parameter:
            adapter.parameters.append(name)
    for dense in gathered.dense:
        stats = partial(_whole_stats, dense.name)
        adapter.tensors.append(NewTensor(dense.name, dense.table.shape, dtype, partial(sum_pieces, dense), stats))
        reported.append(dense.name)
    for rows in gathered.rows:
        shape = (len(rows.indices), rows.table.columns)
        name = f"{rows.module}.token_adapter.trainable_tokens_delta"
        stats = partial(_whole_stats, rows.module)
        adapter.tensors.append(NewTensor(name, shape, dtype, partial(row_pieces, rows), stats))
        adapter.tokens[rows.module] = rows.indices
        reported.append(name)
    adapter.whole += gathered.whole
    adapter.has_bias = gathered.has_bias
    return adapter, reported


def _product_stats(product: Product, measure: bool) -> Mapping[str, Any]:
    return asdict(product.result(measure))


def _whole_stats(name: str) -> Mapping[str, Any]:
    return asdict(ModuleResult(name, None, None, 0.0, 0.0))


_LAYER = ("lora_A.weight", "lora_B.weight")
_EMBEDDING = ("lora_embedding_A", "lora_embedding_B")
