"""Plans and writes a model that has another's tokenizer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

from rlmerge._version import __version__
from rlmerge.checkpoint import Checkpoint, Source, open_checkpoint
from rlmerge.checkpoint.config import with_rows
from rlmerge.checkpoint.identity import Identity, plan_identity
from rlmerge.checkpoint.license import read_license
from rlmerge.checkpoint.picked_rows import MIX, PADDING, ZERO, Mixes, PickedRows, Rows
from rlmerge.checkpoint.tables import is_head, same_table
from rlmerge.checkpoint.vocabulary import Member, TokenizerSpec, rows_of, unused_rows
from rlmerge.errors import CheckpointError, RequestError, did_you_mean
from rlmerge.frozen import frozen
from rlmerge.merging.composed import write_composed
from rlmerge.merging.place import check_place
from rlmerge.progress import Progress, Quiet

from .fit import nearest, pursue

Fill = Literal["omp", "nearest", "mean", "zero"]
FILLS: tuple[str, ...] = get_args(Fill)
"""How a new token gets its rows: as a sum of up to ``terms`` shared ones, as the one most like it, as the mean of all
shared ones, or as zeros."""

_FEW = 0.1
"""Share of the output's tokens below which the model knows too few of them for its rows to say much."""


@frozen
class Transplant:
    """What was done: ``shared`` tokens kept their rows, ``made`` ones got theirs by ``fill``; ``rows`` with padding."""

    out: str
    model: str
    donor: str
    fill: str
    tokens: int
    shared: int
    made: int
    rows: int
    bytes_written: int
    seconds: float
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)


def transplant(
    model: str | os.PathLike[str],
    donor: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    fill: Fill = "omp",
    terms: int = 64,
    pad_to_multiple_of: int | None = None,
    shard_size: int = 5 * 10**9,
    force: bool = False,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> Transplant:
    """Write to ``out`` what ``model`` computes with the tokenizer, chat template and stop tokens of ``donor``.

    Tokens that both have keep the model's rows, bit for bit. Memory does not grow with the models: tables are read in
    blocks. CheckpointError or RequestError, with nothing written, if a model has no tokenizer.json, the two share no
    token, or ``out`` may not be created.
    """
    began, progress = time.perf_counter(), progress or Quiet()
    if fill not in FILLS:
        raise RequestError(f"unknown fill '{fill}'", hint=did_you_mean(fill, FILLS))
    if terms < 1 or (pad_to_multiple_of is not None and pad_to_multiple_of < 1):
        raise RequestError("terms and multiples are at least 1", hint="Give a positive number.")
    target, giver = open_checkpoint(model), open_checkpoint(donor)
    check_place(Path(out), [target, giver], force)
    identity = plan_identity(target, [], tokenizer=TokenizerSpec(giver), trust_code=trust_code)
    own, lender = identity.vocabulary.members[0], identity.vocabulary.donor
    size = _size(identity, lender, pad_to_multiple_of)
    rows = rows_of(own, identity.vocabulary.ids, size)
    free = unused_rows(identity.vocabulary.ids, size)
    shared, made = int((rows >= 0).sum()), int(((rows < 0) & ~free).sum())
    if not own.tables:
        hint = "Embeddings are found by their names and by vocab_size in config.json."
        raise CheckpointError("has no embedding to give rows to", where=own.name, hint=hint)
    if not shared and made:
        hint = "Use --fill zero to start the new vocabulary from nothing."
        if fill != "zero":
            raise CheckpointError(f"has no token of {lender.name}", where=own.name, hint=hint)
    warnings = list(identity.warnings)
    if made and shared < _FEW * (shared + made):
        warnings.append(f"only {shared:,} of {shared + made:,} tokens are known to {own.name}; train it before use")
    tables = _tables(own, lender, rows, free, fill, terms, progress)
    files = dict(identity.with_config(with_rows(identity.config, size) if identity.config else None))
    files["README.md"] = _card(target, giver, fill, shared, made)
    tensors = {name: tables.get(name, tensor) for name, tensor in target.tensors.items()}
    written = write_composed(
        tensors, files, Path(out), f"transplant {__version__}", shard_size=shard_size, force=force, progress=progress
    )
    return Transplant(
        str(out),
        target.reference,
        giver.reference,
        fill,
        shared + made,
        shared,
        made,
        size,
        written,
        time.perf_counter() - began,
        tuple(warnings),
        identity.notes,
    )


def _size(identity: Identity, lender: Member, multiple: int | None) -> int:
    """Rows of the output: those of the donor, so that the two fit together, or as many as its tokens need."""
    tokens = identity.vocabulary.tokens
    if multiple is not None:
        return -(-tokens // multiple) * multiple
    return max(tokens, lender.rows)


def _tables(
    own: Member, lender: Member, rows: np.ndarray, free: np.ndarray, fill: str, terms: int, progress: Progress
) -> dict[str, Source]:
    """Each vocabulary table of the model in the rows of the output."""
    fits: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    found: dict[str, Source] = {}
    for name, table in own.tables.items():
        beside = same_table(name, lender.tables, lender.checkpoint.tied_embeddings)
        if beside is None:
            beside = next((other for key, other in lender.tables.items() if not is_head(key)), None)
        seen = np.arange(len(rows)) < (beside.shape[0] if beside is not None else 0)
        shared, new = np.flatnonzero((rows >= 0) & seen), np.flatnonzero((rows < 0) & ~free & seen)
        index = np.where(rows >= 0, 0, ZERO if fill == "zero" else PADDING)
        index[free] = PADDING
        row, mixes = np.maximum(rows, 0), None
        if fill in ("omp", "nearest") and beside is not None and len(beside.shape) == len(table.shape) == 2:
            if beside.name not in fits:
                progress.start(f"match {beside.name}", len(new), "tokens")
                fits[beside.name] = _fit(beside, shared, new, fill, terms, progress.advance)
                progress.done()
            start, atoms, weights = fits[beside.name]
            index[new], row[new] = MIX, np.arange(len(new))
            picked = rows[shared[atoms]]
            mixes = Mixes(start, np.zeros(len(picked), int), picked, weights, np.ones(len(new)))
        kinds = (index.astype(np.int16), row.astype(np.int32))
        found[name] = PickedRows(table, [table], Rows(*kinds, mixes) if mixes is not None else Rows(*kinds))
    return found


def _fit(
    table: Source, shared: np.ndarray, new: np.ndarray, fill: str, terms: int, advance: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if fill == "nearest":
        return nearest(table, shared, new, advance)
    return pursue(table, shared, new, terms, advance)


def _card(model: Checkpoint, donor: Checkpoint, fill: str, shared: int, made: int) -> bytes:
    """README.md of the output."""
    names = [each.reference if each.revision else each.path.name for each in (model, donor)]
    matter: dict[str, Any] = {"base_model": names[0], "library_name": "transformers", "tags": ["rlmerge"]}
    license = read_license(model.side_root)
    if license is not None:
        matter["license"] = license
    ways = {
        "omp": "sums of them, as orthogonal matching pursuit finds in the donor",
        "nearest": "those of the most similar of them in the donor",
        "mean": "their mean",
        "zero": "zeros",
    }
    parts = [
        f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---",
        f"# {names[0]} with the tokenizer of {names[1]}",
        f"Made with rlmerge {__version__}. {shared:,} tokens keep their rows; the rows of {made:,} new ones are "
        f"{ways[fill]}. All other weights are unchanged.",
        "`rlmerge verify` checks this directory against `MANIFEST.json`.",
    ]
    return ("\n\n".join(parts) + "\n").encode()
