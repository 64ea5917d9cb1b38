"""One list of hostile models, and one of places to write to: every verb is given all of them."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
FILES = (WEIGHTS, CONFIG, TOKENIZER)
INDEX = "model.safetensors.index.json"

Spoil = Callable[[Path], object]
"""Makes a model directory hostile."""


def header(content: object) -> bytes:
    """A safetensors file of 32 bytes of data under any header."""
    octets = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(octets)) + octets + bytes(32)


def of(name: str, shape: object) -> bytes:
    """A file of one tensor."""
    return header({name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 32]}})


def put(name: str, content: bytes | str) -> Spoil:
    """The file ``name`` holds something else."""

    def spoil(model: Path) -> None:
        octets = content.encode(errors="surrogateescape") if isinstance(content, str) else content
        (model / name).write_bytes(octets)

    return spoil


def instead(name: str, make: Callable[[Path], object]) -> Spoil:
    """Something else is in place of the file ``name``."""

    def spoil(model: Path) -> None:
        (model / name).unlink(missing_ok=True)
        make(model / name)

    return spoil


def huge(name: str, size: int) -> Spoil:
    """The file ``name`` says that it is ``size`` bytes long."""
    return instead(name, lambda path: (path.touch(), os.truncate(path, size)))


def alone(make: Callable[[Path], object]) -> Spoil:
    """Something else is in place of the directory."""

    def spoil(model: Path) -> None:
        for file in model.iterdir():
            file.unlink()
        model.rmdir()
        make(model)

    return spoil


def sharded(content: bytes | str) -> Spoil:
    """An index stands in place of the weights."""

    def spoil(model: Path) -> None:
        (model / WEIGHTS).unlink()
        put(INDEX, content)(model)

    return spoil


def only(name: str, content: bytes) -> Spoil:
    """Weights of another format stand in place of the weights."""

    def spoil(model: Path) -> None:
        (model / WEIGHTS).unlink()
        put(name, content)(model)

    return spoil


DEEP = "[" * 100_000
BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))])
MODELS: dict[str, Spoil] = {
    "not there": alone(lambda path: None),
    "empty": alone(lambda path: path.mkdir()),
    "a file": alone(lambda path: path.write_text("x")),
    "a pipe": alone(os.mkfifo),
    "a dangling link": alone(lambda path: path.symlink_to("absent")),
    "a link to itself": alone(lambda path: path.symlink_to(path)),
    **{f"{name} is a pipe": instead(name, os.mkfifo) for name in (*FILES, INDEX, "README.md")},
    **{f"{name} is a directory": instead(name, Path.mkdir) for name in FILES},
    **{
        f"{name} is a device": instead(name, lambda p: p.symlink_to("/dev/zero"))
        for name in (WEIGHTS, CONFIG, TOKENIZER)
    },
    **{
        f"{name} is no link's end": instead(name, lambda p: p.symlink_to("gone"))
        for name in (WEIGHTS, CONFIG, TOKENIZER)
    },
    **{f"{name} is huge": huge(name, (1 << 28) + 1) for name in (CONFIG, TOKENIZER, INDEX, "adapter_config.json")},
    "weights that are zeros": huge(WEIGHTS, 1 << 20),
    "weights that are nothing": put(WEIGHTS, b""),
    "weights cut short": lambda model: os.truncate(model / WEIGHTS, 600),
    "300 dimensions": put(WEIGHTS, of("w", [2**62] * 300)),
    "many dimensions": put(WEIGHTS, of("w", [2**62] * 50_000)),
    "a product beyond all numbers": put(WEIGHTS, of("w", [2**62, 2**62, 0])),
    "a header that nests": put(WEIGHTS, header(DEEP.encode())),
    "a header longer than the file": put(WEIGHTS, struct.pack("<Q", 2**63)),
    "a name that is half a character": put(WEIGHTS, of("\ud800", [16])),
    "a name that is no text": put(WEIGHTS, header(b'{"\xff":{"dtype":"BF16","shape":[16],"data_offsets":[0,32]}}')),
    "a name that steers a terminal": put(WEIGHTS, of("\x1b]0;x\x07", [16])),
    "a layer of 5000 digits": put(WEIGHTS, of(f"model.layers.{'9' * 5000}.w", [16])),
    "no tensors": put(WEIGHTS, header({})),
    "a file whose name is no text": lambda model: (model / os.fsdecode(b"\xff.json")).write_text("{}"),
    "a configuration that is a list": put(CONFIG, "[]"),
    "a configuration that nests": put(CONFIG, DEEP),
    "a configuration that is no text": put(CONFIG, b"\xff\xfe\x00"),
    "a configuration with half a character": put(CONFIG, '{"model_type": "llama", "x": "\\ud800"}'),
    "a configuration with a number of 5000 digits": put(CONFIG, f'{{"vocab_size": {"9" * 5000}}}'),
    "a configuration of other types": put(
        CONFIG, '{"architectures": 5, "model_type": [], "vocab_size": "x", "text_config": 7, "torch_dtype": {}}'
    ),
    "a configuration with NaN": put(CONFIG, '{"vocab_size": NaN}'),
    "a tokenizer that nests": put(TOKENIZER, DEEP),
    "a tokenizer that is a list": put(TOKENIZER, "[]"),
    "a tokenizer of other types": put(TOKENIZER, '{"model": {"vocab": {"a": -1, "b": "x"}}, "added_tokens": {}}'),
    "a tokenizer with half a character": put(TOKENIZER, '{"model": {"vocab": {"\\ud800": 0}}}'),
    "an index that leads out": sharded('{"weight_map": {"w": "../base/model.safetensors"}}'),
    "an index with a null byte": sharded('{"weight_map": {"w": "a\\u0000b"}}'),
    "an index that is a list": sharded("[]"),
    "an index that nests": sharded(DEEP),
    "an index of a shard that is not there": sharded('{"weight_map": {"w": "model-00001-of-00002.safetensors"}}'),
    "an adapter of nothing": put("adapter_config.json", "{}"),
    "an adapter of other types": put("adapter_config.json", '{"r": "x", "peft_type": [], "target_modules": 5}'),
    "an adapter of itself": put("adapter_config.json", '{"base_model_name_or_path": ".", "peft_type": "LORA", "r": 1}'),
    "a pickle": only("pytorch_model.bin", b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."),
    "an archive cut short": only("pytorch_model.bin", b"PK\x03\x04" + bytes(60)),
    "a card that is a bomb": put("README.md", f"---\n{BOMB}\n---\n"),
    "a manifest that nests": put("MANIFEST.json", DEEP),
    "a manifest of other types": put("MANIFEST.json", '{"files": [5], "tensors": "x"}'),
    "a manifest that is a pipe": instead("MANIFEST.json", os.mkfifo),
}
"""Model directories that are none, or lie; each spoils a copy of a sound one."""

OUTPUTS = {
    "250 characters": "x" * 250,
    "no text": os.fsdecode(b"\xff\xfe"),
    "below nothing": "new/deeper/out",
    "a long path": "/".join(["x" * 250] * 20),
    "here": ".",
    "root": "/",
    "empty": "",
    "an input": "base",
    "in an input": "base/out",
    "a file": "file",
    "below a file": "file/out",
    "a foreign directory": "foreign",
    "a closed directory": "closed/out",
    "a loop": "loop",
    "below a loop": "loop/out",
    "a dangling link": "dangling",
    "a device": "/dev/full",
    "below a device": "/dev/null/out",
    "below proc": "/proc/1/out",
    "a pipe": "pipe",
    "nobody's home": "~nobody-of-this-name/out",
}
"""Names to write to, most of which cannot be."""


def furnish(folder: Path) -> None:
    """Make what ``OUTPUTS`` speaks of."""
    (folder / "file").write_text("precious")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "thesis.tex").write_text("precious")
    (folder / "closed").mkdir(mode=0o500)
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("absent")
    os.mkfifo(folder / "pipe")


def state(folder: Path) -> dict[str, tuple[int, ...]]:
    """Everything in a folder: its kind, size, inode and time of change. Nothing is opened."""
    found: dict[str, tuple[int, ...]] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(place, name))  # noqa: PTH118 - names may be no text
            size = 0 if name in folders else status.st_size
            found[os.path.relpath(os.path.join(place, name), folder)] = (  # noqa: PTH118
                status.st_mode,
                size,
                status.st_ino,
                0 if name in folders else status.st_mtime_ns,
            )
    return found
