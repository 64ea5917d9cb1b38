"""Safetensors files that are almost right, the verdict of the safetensors library, and where ours may be stricter."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors

from rlmerge.checkpoint.header import MAX_NAME, MAX_RANK, read_header
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BY_CODE

BITS = {code: 8 * dtype.itemsize for code, dtype in BY_CODE.items()}
UNKNOWN = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
"""Types of the library that we do not read, and their bits."""

NAMES = ["w", "", "a.b", "é", "模", "layers.0.w", "x" * 1024, "x" * 1025, "a\x1b[2J", "a\nb", "\u202e", "__metadata__"]
SIZES = [0, 1, 2, 3, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, -1, -0.0, 0.0, 1.0, 1.5,
         True, None, "1", [], {}]  # fmt: skip


def sound(rng: random.Random) -> tuple[dict[str, Any], int]:
    """A header that is right, and the bytes of its data."""
    header: dict[str, Any] = {}
    if rng.random() < 0.5:
        header["__metadata__"] = {"format": "pt"} | ({"a}": '{"b": [1]}'} if rng.random() < 0.3 else {})
    offset = 0
    for index in range(rng.choice([0, 1, 1, 2, 3, 5])):
        code = rng.choice(list(BITS))
        shape = [rng.choice([0, 1, 1, 2, 3]) for _ in range(rng.choice([0, 1, 2, 2, 3]))]
        nbytes = math.prod(shape) * BITS[code] // 8
        header[f"t{index}"] = {"dtype": code, "shape": shape, "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    return header, offset


def _entry(rng: random.Random, header: dict[str, Any]) -> dict[str, Any]:
    entries = [value for name, value in header.items() if name != "__metadata__" and isinstance(value, dict)]
    return rng.choice(entries) if entries else {}


def _shape(rng: random.Random, header: dict[str, Any]) -> None:
    entry = _entry(rng, header)
    kind = rng.randrange(4)
    if kind == 0:
        entry["shape"] = [rng.choice(SIZES) for _ in range(rng.randrange(4))]
    elif kind == 1:
        entry["shape"] = [rng.choice([1, 1, 2**62, 2**20])] * rng.choice([1, 2, 63, 64, 65, 300])
    elif kind == 2 and isinstance(entry.get("shape"), list):
        entry["shape"].insert(rng.randrange(len(entry["shape"]) + 1), rng.choice([0, 1, 2**62]))
    else:
        entry["shape"] = rng.choice(SIZES)


def _offsets(rng: random.Random, header: dict[str, Any]) -> None:
    entry = _entry(rng, header)
    offsets = entry.get("data_offsets")
    if isinstance(offsets, list) and offsets and rng.random() < 0.7:
        index = rng.randrange(len(offsets))
        offsets[index] = rng.choice([*SIZES, offsets[0], offsets[-1], 1, 8])
    else:
        entry["data_offsets"] = rng.choice([[0], [0, 0, 0], [], {}, 0, [8, 0], [0, 2**70], [[0, 0]]])


def _dtype(rng: random.Random, header: dict[str, Any]) -> None:
    _entry(rng, header)["dtype"] = rng.choice([*BITS, *UNKNOWN, "bf16", "", 0, None, ["F32"], "F32\n", "x" * 70_000])


def _fields(rng: random.Random, header: dict[str, Any]) -> None:
    entry = _entry(rng, header)
    if entry and rng.random() < 0.5:
        del entry[rng.choice(list(entry))]
    else:
        entry[rng.choice(["x", "dtype ", "Shape", ""])] = rng.choice(SIZES)


def _rename(rng: random.Random, header: dict[str, Any]) -> None:
    if header:
        header[rng.choice(NAMES)] = header.pop(rng.choice(list(header)))


def _metadata(rng: random.Random, header: dict[str, Any]) -> None:
    header["__metadata__"] = rng.choice(
        [
            None,
            {},
            [],
            0,
            "x",
            {"a": 1},
            {"a": None},
            {"a": {}},
            {"a": []},
            {"\x00": "\x1b"},
            {"a" * 5000: "b"},
            [["a"]],
        ]
    )


def _value(rng: random.Random, header: dict[str, Any]) -> None:
    header[rng.choice([*header, "new"])] = rng.choice(
        [None, [], {}, 0, "x", ["U8", [0], [0, 0]], {"a": {"b": {}}}, [[[[]]]]]
    )


CHANGES: tuple[Callable[[random.Random, dict[str, Any]], None], ...] = (
    _shape, _shape, _offsets, _dtype, _fields, _rename, _metadata, _value,
)  # fmt: skip

TEXTS = [
    ("0", "-0"), ("0", "00"), ("1", "1e0"), ("1", "1.0"), ("1", "0x1"), ("2", "+2"), ("0", "NaN"), ("0", "1e999"),
    ('"w', '"\\u0077'), ('"dtype"', '"d\\u0074ype"'), ('"dtype"', '"dtype":"U8","dtype"'), ("t0", "\\ud800"),
    ("t0", "\\ud83d\\ude00"), ("t0", "\\x"), ("pt", "\\udc00"), ("t1", "t0"), ("t0", "__metadata__"), ("{", "{ \n\t\r"),
    (",", ",,"), ("}", "},"), ("}", "}}"), ("]", ",]"), ("[", "[["), (":", "::"), ('"', "'"), ("{", "{/**/"),
    ("t0", "t\x00"), ("t0", "t\x1f"), ("t0", "t\x7f"), ("{", "\ufeff{"),
]  # fmt: skip
"""Text of JSON, and what to put into its place once."""


def attack(rng: random.Random) -> bytes:
    """The octets of a file: a sound one with some changes of its structure, its text, its length or its bytes."""
    header, size = sound(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        rng.choice(CHANGES)(rng, header)
    text = json.dumps(header, separators=rng.choice([(",", ":"), (", ", ": ")]), ensure_ascii=rng.random() < 0.5)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        old, new = rng.choice(TEXTS)
        places = [i for i in range(len(text)) if text.startswith(old, i)]
        if places:
            place = rng.choice(places)
            text = text[:place] + new + text[place + len(old) :]
    raw = text.encode("utf-8", "surrogatepass") + rng.choice([b"", b"", b"   ", b"\n", b"\0", b"x"])
    if rng.random() < 0.1 and raw:
        changed = bytearray(raw)
        changed[rng.randrange(len(changed))] = rng.randrange(256)
        raw = bytes(changed)
    if rng.random() < 0.05:
        raw = raw[: rng.randrange(len(raw) + 1)]
    length = len(raw) + (rng.choice([-1, 1, 8, 2**40, 2**63]) if rng.random() < 0.05 else 0)
    size = max(0, size + (rng.choice([-1, 1, 7]) if rng.random() < 0.05 else 0))
    whole = (max(length, 0) % 2**64).to_bytes(8, "little") + raw + bytes(size)
    return whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.02 else whole


Tensors = dict[str, tuple[str, tuple[int, ...], int]]
"""By name: type code, shape, and bytes."""


def of_library(octets: bytes) -> Tensors | None:
    """What the safetensors library reads; None if it refuses."""
    try:
        found = safetensors.deserialize(octets)
    except safetensors.SafetensorError:
        return None
    return {name: (tensor["dtype"], tuple(tensor["shape"]), len(tensor["data"])) for name, tensor in found}


def of_rlmerge(file: Path) -> Tensors | None:
    """What we read; None if we refuse, with a message of a sensible length."""
    try:
        header = read_header(file)
    except CheckpointError as error:
        assert len(str(error)) < len(str(file)) + 500, f"{len(str(error))} characters"
        assert str(error).isascii() or str(error).replace("\n", "").isprintable()
        return None
    return {name: (tensor.dtype.code, tensor.shape, tensor.nbytes) for name, tensor in header.tensors.items()}


def stricter(octets: bytes) -> str | None:
    """Why docs/guarantees.md lets us refuse what the library reads; None if it does not."""
    raw = octets[8 : 8 + int.from_bytes(octets[:8], "little")]
    if not raw.startswith(b"{"):
        return "does not begin with a brace"
    twice: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(found)) < len(found):
            twice.append("key")
        return dict(found)

    content = json.loads(raw, object_pairs_hook=pairs)
    if twice:
        return "a key appears twice"
    for name, entry in content.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            return "fields beside the three, or a list in place of an object"
        if len(name) > MAX_NAME or not name.isprintable():
            return "the name is long or invisible"
        if entry["dtype"] in UNKNOWN:
            return "a type that is not read"
        if len(entry["shape"]) > MAX_RANK:
            return "many dimensions"
        if math.prod(size or 1 for size in entry["shape"]) * BITS[entry["dtype"]] // 8 >= 2**63:
            return "huge dimensions"
    return None


def check(octets: bytes, file: Path) -> str:
    """Write ``octets`` to ``file`` and compare the two verdicts; what was seen. AssertionError where they differ."""
    file.write_bytes(octets)
    theirs, ours = of_library(octets), of_rlmerge(file)
    if ours is not None:
        assert ours == theirs, f"we read {ours}, the library {theirs}: {octets[:2000]!r}"
        return "read by both"
    if theirs is None:
        return "refused by both"
    reason = stricter(octets)
    assert reason is not None, f"the library reads {theirs}: {octets[:2000]!r}"
    return f"refused by us: {reason}"
