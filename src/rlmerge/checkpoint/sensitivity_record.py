"""``sensitivity.json``: of which model, on which data and how a sensitivity was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

RECORD = "sensitivity.json"
FORMAT_VERSION = 2
"""1 ended every response with one more end of sequence, also where the data had written it."""

GRAM = ".gram"
"""Suffix of a stored Gram matrix, after the name of the first tensor whose layer it belongs to."""

_MAX_BYTES = 64 * 2**20


@frozen(kw_only=True)
class SensitivityRecord:
    """Everything that identifies a measurement.

    ``model_digest`` is the checkpoint's fingerprint, ``data_digest`` a sha256. ``tokens`` counts the differentiated
    response tokens of the ``sequences``; ``truncated`` of them were cut and ``dropped`` further examples had nothing
    left. ``eos_appended`` of them got the end of sequence that the data did not write. ``sampled`` responses were drawn
    (0 in mode empirical). ``uncovered`` names stored tensors that are not parameters. ``grams`` maps the tensor names
    of linear layers to the stored Gram matrix of their inputs, summed over ``gram_tokens`` tokens.
    """

    model: str
    model_digest: str
    data: str
    data_digest: str
    mode: str
    reward: str | None
    sequences: int
    tokens: int
    truncated: int
    dropped: int
    eos_appended: int
    sampled: int
    max_length: int
    max_new_tokens: int
    batch_size: int
    seed: int
    dtype: str
    device: str
    versions: Mapping[str, str]
    uncovered: tuple[str, ...]
    grams: Mapping[str, str]
    gram_tokens: int

    def to_json(self) -> bytes:
        """The file's content; the same record gives the same bytes."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=2).encode() + b"\n"


@frozen
class SensitivityResult:
    """What a measurement did; ``peak_memory`` is the process's largest resident size so far, in bytes."""

    out: Path
    record: SensitivityRecord
    tensors: int
    passes: int
    seconds: float
    peak_memory: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "out": str(self.out)}


def read_record(directory: Path) -> SensitivityRecord:
    """The record of ``directory``; CheckpointError when it is absent, malformed or of an unknown version."""
    path = inside(directory.resolve(), RECORD)
    if not path.exists():
        hint = "Name a directory written by 'rlmerge sensitivity'."
        raise CheckpointError(f"is not a sensitivity directory (it has no {RECORD})", where=str(directory), hint=hint)
    content = strictjson.parse(read_bytes(path, _MAX_BYTES), str(path))
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        hint = "Measure again with this version of rlmerge."
        raise CheckpointError(f"format_version is {version!r}, not {FORMAT_VERSION}", where=str(path), hint=hint)
    kinds = {field.name: _KINDS[str(field.type)] for field in fields(SensitivityRecord)}
    wrong = [name for name, kind in kinds.items() if name not in content or not isinstance(content[name], kind)]
    wrong += [name for name in ("grams", "versions") if name not in wrong and not _are_strings(content[name].values())]
    wrong += [name for name in ("uncovered",) if name not in wrong and not _are_strings(content[name])]
    if wrong or len(content) > len(kinds):
        what = f"'{wrong[0]}' is missing or of the wrong type" if wrong else "it has unknown keys"
        raise CheckpointError(what, where=str(path), hint="Measure again.")
    values: dict[str, Any] = {**content, "uncovered": tuple(content["uncovered"])}
    return SensitivityRecord(**values)


_KINDS: Mapping[str, Any] = {
    "str": str,
    "str | None": str | None,
    "int": int,
    "tuple[str, ...]": list,
    "Mapping[str, str]": dict,
}


def _are_strings(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
