"""The small files that make weights a usable model: configuration, tokenizer, chat template, processor, licence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.disguise import HEAD, refuse_disguise
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.paths import inside, unreadable
from rlmerge.errors import CheckpointError

TEMPLATES = "additional_chat_templates"

MAX_SIDE_FILE = 2**30
"""Bytes of the largest file that is copied."""

_NAMES = re.compile(
    r"""config\.json | generation_config\.json | configuration\.json | params\.json | dtypes\.json
      | .*processor_config\.json | preprocessor_config\.json | feature_extractor_config\.json
      | .*tokenizer.*\.json | special_tokens_map\.json | added_tokens\.json | tekken\.json
      | .*vocab.*\.(json|txt) | .*merges.*\.txt | bpe\.codes | dict.*\.txt | unigram\.json | normalizer\.json
      | .*\.tiktoken | .*\.spm | .*\.model(\.v\d+)?
      | chat_template.*\.(json|jinja)
      | modules\.json | sentence_.*config\.json | config_sentence_transformers\.json""",
    re.VERBOSE,
)

_LEGAL = re.compile(
    r"([\w-]*[-_.])?(licen[cs]e|notice|copying|copyright|(acceptable_)?use_policy|patents|attribution|model_card)"
    r"([-_.][\w.-]*)?",
    re.IGNORECASE,
)
"""What redistribution of a model may ask for, whatever its extension."""

_LEGAL_KINDS = ("", ".txt", ".md", ".rst", ".pdf", ".html")

_PARTS = re.compile(r"\d+_[A-Za-z]+")
"""Folders of sentence-transformers: 1_Pooling, 2_Normalize."""

_CHECKED = re.compile(r".*config.*\.json|special_tokens_map\.json|added_tokens\.json|modules\.json|chat_template\.json")

_NO_LOSS = re.compile(
    r"""\..* | .*\.(safetensors|bin|pt|pth|ckpt|pkl|gguf|distcp|npz|h5|msgpack|onnx|py|log|lock|ya?ml|csv|png|jpe?g)
      | .*\.svg | README.* | .*\.index\.json | MANIFEST\.json | .*results.*\.json | trainer_state\.json
      | scheduler\..* | rng_state.* | training_.* | optimizer.* | adapter_.* | fsdp_config\.json | ds_config.*
      | deepspeed.* | .*quant.*config\.json | latest | zero_to_fp32\.py | events\.out.* | wandb | runs
      | checkpoint-\d+ | global_step.* | original | assets | onnx | openvino | figures | images""",
    re.VERBOSE | re.IGNORECASE,
)
"""What a merge makes itself, or what no reader of a model misses."""

_PICKLE_STARTS = (b"\x80", b"PK")


def find_side_files(root: Path) -> tuple[Path, ...]:
    """Files to copy byte for byte beside merged weights, sorted: never weights, code, pickles or training state.

    The paths are absolute. CheckpointError if one of them is a link that leaves the directory.
    """
    root = root.resolve()
    found: list[str] = []
    for name in entries(root):
        if is_wanted(name):
            found.append(name)
        elif (name == TEMPLATES or _PARTS.fullmatch(name)) and (root / name).is_dir():
            inside(root, name)
            kinds = (".jinja",) if name == TEMPLATES else (".json", ".txt")
            found += [f"{name}/{file}" for file in entries(root / name) if file.endswith(kinds) and file[0] != "."]
    paths = (inside(root, name, nested=True) for name in sorted(found))
    return tuple(path for path in paths if path.is_file() and not _is_pickle(path))


def left_behind(root: Path, copied: Sequence[str]) -> list[str]:
    """Names in a model directory that are not copied and that somebody could miss; folders end in ``/``."""
    found: list[str] = []
    for name in entries(root):
        folder = (root / name).is_dir()
        if folder and any(other.startswith(f"{name}/") for other in copied):
            inner = [f"{name}/{file}" for file in entries(root / name) if file[0] != "."]
            found += [file for file in inner if file not in copied]
        elif name not in copied and not _NO_LOSS.fullmatch(name):
            found.append(f"{name}/" if folder else name)
    return found


def open_side_file(path: Path) -> InputFile:
    """A file to be copied, with its stamp taken.

    CheckpointError if it cannot be read, is larger than ``MAX_SIDE_FILE``, is a Git LFS pointer or a saved web page, or
    is a configuration that is no JSON: what is copied would not load.
    """
    file = InputFile(path)
    if file.size > MAX_SIDE_FILE:
        raise CheckpointError(f"is {file.size} bytes long; at most {MAX_SIDE_FILE} are copied", where=str(path))
    head = file.copy(0, min(HEAD, file.size))
    if not _LEGAL.fullmatch(path.name):
        refuse_disguise(head, str(path))
    if _CHECKED.fullmatch(path.name):
        strictjson.parse(file.copy(0, file.size), str(path), unique_keys=False)
    return file


def is_wanted(name: str) -> bool:
    """Whether a file at the top of a model directory is copied, by its name."""
    legal = _LEGAL.fullmatch(name) is not None and Path(name).suffix.lower() in _LEGAL_KINDS
    return not name.startswith(".") and (legal or _NAMES.fullmatch(name) is not None)


def _is_pickle(path: Path) -> bool:
    """Whether a ``.model`` file, by custom a SentencePiece protobuf, is a pickle or torch archive instead."""
    if path.suffix != ".model":
        return False
    try:
        with path.open("rb") as handle:
            return handle.read(2).startswith(_PICKLE_STARTS)
    except OSError as error:
        raise unreadable(path, error) from error
