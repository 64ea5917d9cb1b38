"""How to run a merge: what does not belong in a recipe because it changes no formula."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from typing import Any, Literal

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.frozen import frozen

MIN_MEMORY = 32 * 2**20


@frozen(kw_only=True)
class Options:
    """Resources and policies of one run.

    ``memory`` is the budget of anonymous memory for tiles and statistics, in bytes, on top of the interpreter.
    ``workers`` is the number of computing threads (None: one per usable core, at most 16). ``seed`` feeds every random
    number. ``dtype`` and ``out_dtype`` override the recipe's. ``shard_size`` is in bytes. ``on_nonfinite`` says whether
    NaN and infinity in a model stop the merge, pass through, or count as 0. ``cache`` keeps statistics between runs.
    ``trust_code`` copies the Python files that a model's configuration names.
    Only ``seed``, ``dtype``, ``out_dtype``, ``rounding``, ``shard_size`` and ``on_nonfinite`` decide output bytes.
    """

    memory: int = 512 * 2**20
    workers: int | None = None
    seed: int = 0
    dtype: str | None = None
    out_dtype: str | None = None
    rounding: Literal["nearest", "stochastic"] = "nearest"
    shard_size: int = 5 * 10**9
    resume: bool = False
    force: bool = False
    on_nonfinite: Literal["error", "keep", "zero"] = "error"
    cache: bool = True
    trust_code: bool = False

    @classmethod
    def of(cls, **given: Any) -> Options:
        """The options a caller spells out: sizes may be text such as "2GB". RequestError for an unknown name."""
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise RequestError(f"unknown option '{name}'", hint=did_you_mean(name, names))
        for name in ("memory", "shard_size"):
            if isinstance(given.get(name), str):
                try:
                    given[name] = parse_size(given[name])
                except ValueError as error:
                    raise RequestError(f"{name}: {error}") from None
        return cls(**given)

    def __post_init__(self) -> None:
        """RequestError for values no run could use."""
        for name in ("memory", "seed", "shard_size", "workers"):
            value = getattr(self, name)
            if (isinstance(value, bool) or not isinstance(value, int)) and not (name == "workers" and value is None):
                raise RequestError(f"{name} must be a whole number, not {value!r}")
        for name in ("dtype", "out_dtype"):
            if not isinstance(getattr(self, name), str | None):
                raise RequestError(f"{name} must be the name of a type, not {getattr(self, name)!r}")
        for name in ("resume", "force", "cache", "trust_code"):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.memory < MIN_MEMORY:
            raise RequestError(f"a memory budget of {self.memory} bytes is too small", hint="Give at least 32MiB.")
        if self.workers is not None and not 1 <= self.workers <= 256:
            raise RequestError(f"workers must be between 1 and 256, not {self.workers}")
        if self.shard_size < 1:
            raise RequestError(f"a shard size of {self.shard_size} bytes is too small", hint="Give a size such as 5GB.")
        for name, value, known in (
            ("rounding", self.rounding, ("nearest", "stochastic")),
            ("on_nonfinite", self.on_nonfinite, ("error", "keep", "zero")),
        ):
            if value not in known:
                raise RequestError(f"{name} cannot be '{value}'", hint=did_you_mean(value, known))

    @property
    def threads(self) -> int:
        """Computing threads of this run."""
        if self.workers is not None:
            return self.workers
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(16, usable)


_PREFIXES = "kmgtp"
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(?:([kmgtp])(i)?)?b", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes in ``5GB`` (5·10⁹), ``512MiB`` (512·2²⁰), ``1.5 GB`` or ``64B``; ValueError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"'{text}' is not a size; write a number with a unit, like 2GB, 512MiB or 4096B")
    number, prefix, binary = found.groups()
    power = _PREFIXES.index(prefix.lower()) + 1 if prefix else 0
    whole, _, part = number.partition(".")
    size, rest = divmod(int(whole + part) * (1024 if binary else 1000) ** power, 10 ** len(part))
    if rest or size == 0:
        raise ValueError(f"'{text}' is not a whole, positive number of bytes")
    return size
