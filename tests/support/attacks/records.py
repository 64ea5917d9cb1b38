"""Manifests, journals, locks and recipes that are almost right: plain data with changes of structure, then of text."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import xxhash
import yaml

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, float("nan"), float("inf"), 2**63, 2**64, 10**400, "", "x", "0", "true",
    "~", "../x", "/etc/passwd", "a/b", ".", "x" * 3000, "\x1b[2J", "\u202e", "\ud800", "a\nb", "<b>|`", "{0}", "%s", [],
    {}, [[]], [None], {"a": 1}, ["x", 1], {"": {}}, "2024-13-45", "0x" + "f" * 400, "9" * 5000, "1e999", "nan", "1:30",
    "!!python/object:x", "*a", "&a", "<<", "=", "[", "{", "- x",
)  # fmt: skip
"""What is put into the place of a value."""

_WORDS = (
    "models", "model", "parameters", "weight", "density", "filter", "value", "merge_method", "base_model", "slices",
    "sources", "layer_range", "dtype", "tokenizer", "chat_template", "files", "tensors", "shape", "stats", "plan",
    "modules", "default", "<<", "seed", "inputs", "fingerprint", "revision", "rlmerge_lock",
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within a value."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in items:
        found += _places(entry, (*path, key))
    return found


def _change(rng: random.Random, root: Any) -> Any:
    """``root`` with one value replaced, taken away, doubled, wrapped, or moved."""
    path = rng.choice(_places(root))
    if not path:
        return copy.deepcopy(rng.choice(ODD)) if rng.random() < 0.2 else root
    parent = root
    for key in path[:-1]:
        parent = parent[key]
    key, kind = path[-1], rng.randrange(7)
    if kind <= 2:
        parent[key] = copy.deepcopy(rng.choice(ODD))
    elif kind == 3:
        del parent[key]
    elif kind == 4:
        parent[key] = (
            [parent[key]] * rng.choice([1, 2, 40]) if rng.random() < 0.5 else {rng.choice(_WORDS): parent[key]}
        )
    elif isinstance(parent, dict):
        new = rng.choice([*_WORDS, *(x for x in ODD if isinstance(x, str | int | float | type(None)))])
        parent[new] = parent.pop(key) if kind == 5 else copy.deepcopy(parent[key])
    else:
        parent.insert(key, copy.deepcopy(rng.choice(ODD)))
    return root


def changed(rng: random.Random, value: Any, most: int = 3) -> Any:
    """A copy of ``value`` with some changes, none among them."""
    value = copy.deepcopy(value)
    for _ in range(rng.randrange(most + 1)):
        value = _change(rng, value)
    return value


def _battered(rng: random.Random, octets: bytes, marks: bytes) -> bytes:
    """``octets``, some of them with a byte changed, a mark put in, or the end cut off."""
    data = bytearray(octets)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        place, kind = rng.randrange(len(data) + 1), rng.randrange(4)
        if kind == 0 and place < len(data):
            data[place] = rng.randrange(256)
        elif kind == 1:
            data[place:place] = bytes([rng.choice(marks)]) * rng.choice([1, 1, 1, 2, 200])
        elif kind == 2:
            del data[place : place + rng.choice([1, 5, 50])]
        elif rng.random() < 0.3:
            del data[place:]
    return bytes(data)


def as_json(rng: random.Random, value: Any) -> bytes:
    """JSON of a changed ``value``, battered."""
    text = json.dumps(changed(rng, value), indent=rng.choice([None, 1]), default=str)
    return _battered(rng, text.encode(), b'{}[]:,"\\-0 \n\x00\xff')


def as_journal(rng: random.Random, lines: list[Any]) -> bytes:
    """Lines of a journal, changed; nine in ten have a valid checksum."""
    out = b""
    for line in lines:
        text = as_json(rng, line).replace(b"\n", b" ") if rng.random() < 0.7 else json.dumps(line).encode()
        digest = xxhash.xxh3_64_hexdigest(text).encode() if rng.random() < 0.9 else b"0" * 16
        out += (
            digest + rng.choice([b" "] * 20 + [b"  ", b""]) + text + rng.choice([b"\n"] * 20 + [b"\r\n", b"", b"\n\n"])
        )
    return out


def as_yaml(rng: random.Random, value: Any) -> bytes:
    """YAML of a changed ``value``, battered."""
    value = changed(rng, value)
    try:
        text = yaml.safe_dump(value, sort_keys=False, default_flow_style=rng.choice([None, True, False]), width=200)
    except (yaml.YAMLError, TypeError, ValueError):
        text = repr(value)
    return _battered(rng, text.encode("utf-8", "surrogatepass"), b"{}[]:,\"'\\-&*!|>%@`#?~<= \n\t\x00\x85\xff")


_E1_WEIGHTS = [{"filter": "mlp", "value": [0, 0.5]}, {"value": 1}]
_RANGE = [0, 2]

RECIPES: tuple[dict[str, Any], ...] = (
    {
        "merge_method": "ties",
        "base_model": "base",
        "models": [{"model": "e0", "parameters": {"weight": 0.5}}, {"model": "e1"}],
        "parameters": {"density": 0.5, "normalize": True},
        "dtype": "float32",
    },
    {
        "merge_method": "linear",
        "models": [
            {"model": "e0", "parameters": {"weight": [0.0, 1.0]}},
            {"model": "e1", "parameters": {"weight": _E1_WEIGHTS}},
        ],
    },
    {
        "slices": [{"sources": [{"model": "e0", "layer_range": _RANGE}, {"model": "e1", "layer_range": _RANGE}]}],
        "merge_method": "slerp",
        "base_model": "e0",
        "parameters": {"t": [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": 0.5}]},
        "dtype": "bfloat16",
    },
    {
        "merge_method": "dare_ties",
        "base_model": {"model": "base"},
        "models": ["e0", "e1"],
        "chat_template": "chatml",
        "tokenizer": {"source": "base"},
        "parameters": {"lambda": 1.0, "density": 0.3},
        "compat": "mergekit",
    },
)


def lock_of(recipe: dict[str, Any]) -> dict[str, Any]:
    """A lock file's content around a recipe of two experts and a base."""
    return {
        "rlmerge_lock": 1,
        "recipe": recipe,
        "options": {"seed": 0, "dtype": None, "out_dtype": None, "rounding": "nearest", "shard_size": 5000000000,
                    "on_nonfinite": "error"},
        "inputs": [{"model": name, "revision": None, "fingerprint": "0" * 32} for name in ("base", "e0", "e1")],
        "versions": {"rlmerge": "0.1.0", "python": "3.11.0", "numpy": "2.0", "llvmlite": "0.45"},
    }  # fmt: skip


def recipe(rng: random.Random) -> bytes:
    """A recipe, or one time in three a lock."""
    chosen = rng.choice(RECIPES)
    return as_yaml(rng, lock_of(RECIPES[0]) if rng.random() < 0.33 else chosen)


JOURNAL: list[Any] = [
    {"plan": "0" * 64},
    *(
        {"tensor": f"t{k}", "shard": "model.safetensors", "xxh3": f"{k:016x}",
         "stats": {"counts": [1] * 10, "sums": [0.5] * 10, "notes": ["x"], "report": {"share of {0}": [1, 2, 1]}}}
        for k in range(3)
    ),
]  # fmt: skip

Check = Callable[[bytes], str]
"""Uses what an attack made; says in a word what came of it, and raises what should not be raised."""
