"""mergekit's command-line options: taken so that its commands run unchanged, and told apart by what they change."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from rlmerge.cli.arguments import Size

Command = TypeVar("Command", bound=Callable[..., Any])

_SWITCHES = (
    "cuda", "low-cpu-memory", "read-to-gpu", "multi-gpu", "lazy-unpickle", "clone-tensors",
    "async-write", "allow-crimes", "copy-tokenizer", "safe-serialization", "write-model-card",
    "unsafe-truncate-embeddings",
)  # fmt: skip
_VALUES = ("device", "transformers-cache", "lora-merge-cache", "lora-merge-dtype", "write-threads")

_WARNINGS = {
    ("copy_tokenizer", False): "--no-copy-tokenizer is ignored: the tokenizer is copied",
    ("safe_serialization", False): "--no-safe-serialization is ignored: weights are written as safetensors",
    ("write_model_card", False): "--no-write-model-card is ignored: the model card is written",
    ("unsafe_truncate_embeddings", True): (
        "--unsafe-truncate-embeddings is ignored: where vocabularies differ, say `tokenizer_source: base` or `union`"
    ),
}
"""What somebody who gives an option with this value should know."""

_PARAMETERS = re.compile(r"([0-9]{1,15})([KMB]?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


class _ShardSize(Size):
    """mergekit's size of a shard: ``5B`` or ``500M``, which it counts in bytes although it speaks of parameters."""

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _PARAMETERS.fullmatch(value.strip())
        if found is None:
            return super().convert(value, param, ctx)
        if int(found[1]) < 1:
            self.fail(f"'{value}' is not a positive number of bytes", param, ctx)
        return int(found[1]) * _UNITS[found[2].upper()]


def mergekit_options(command: Command) -> Command:
    """Add mergekit's options to a click command, out of sight of its help; ``translate`` takes their values."""
    hidden: dict[str, Any] = {"hidden": True, "default": None}
    options = [
        *(click.option(f"--{name}/--no-{name}", **hidden) for name in _SWITCHES),
        *(click.option(f"--{name}", metavar="TEXT", **hidden) for name in _VALUES),
        click.option("--gpu-rich", is_flag=True, hidden=True),
        click.option("-v", "verbosity", count=True, hidden=True),
        click.option("-j", "--num-threads", type=click.IntRange(min=1), **hidden),
        click.option("--trust-remote-code/--no-trust-remote-code", **hidden),
        click.option("--random-seed", type=click.IntRange(0, 2**64 - 1), **hidden),
        click.option("--out-shard-size", type=_ShardSize(), **hidden),
    ]
    for add in reversed(options):
        command = add(command)
    return command


_OURS = {
    "random_seed": "seed",
    "out_shard_size": "shard_size",
    "num_threads": "workers",
    "trust_remote_code": "trust_code",
}
"""Options of mergekit that are ours under another name."""


def translate(request: Mapping[str, Any], given: set[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request without mergekit's options, those that are ours renamed, and what to warn of.

    ``given`` holds the options that the command line itself names; ours are added to it under their own names.
    UsageError where it gives both names of one option and they differ.
    """
    ignored = [each.replace("-", "_") for each in (*_SWITCHES, *_VALUES, "gpu-rich", "verbosity")]
    warnings = [_WARNINGS[name, request[name]] for name in ignored if (name, request[name]) in _WARNINGS]
    rest = {name: value for name, value in request.items() if name not in ignored and name not in _OURS}
    for theirs, ours in _OURS.items():
        value = request[theirs]
        if value is None:
            continue
        if ours in given and request[ours] != value:
            flags = f"--{theirs.replace('_', '-')} and --{ours.replace('_', '-')}"
            raise click.UsageError(f"{flags} say different things; give one", click.get_current_context())
        rest[ours] = value
        given.add(ours)
    return rest, tuple(warnings)
