"""The small files that make weights a usable model: configuration, tokenizer, chat template, processor."""

from __future__ import annotations

import re
from pathlib import Path

from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.paths import inside, unreadable

TEMPLATES = "additional_chat_templates"

_NAMES = re.compile(
    r"""config\.json | generation_config\.json
      | .*processor_config\.json | preprocessor_config\.json | feature_extractor_config\.json
      | .*tokenizer.*\.(json|model) | special_tokens_map\.json | added_tokens\.json | tekken\.json
      | .*vocab.*\.(json|txt) | .*merges.*\.txt | .*\.tiktoken
      | .*sentencepiece.*\.model | .*spiece.*\.model | .*\.bpe\.model
      | chat_template.*\.(json|jinja)""",
    re.VERBOSE,
)

_PICKLE_STARTS = (b"\x80", b"PK")


def find_side_files(root: Path) -> tuple[Path, ...]:
    """Files to copy byte for byte beside merged weights, sorted: never weights, code, pickles or training state.

    The paths are absolute. CheckpointError if one of them is a link that leaves the directory.
    """
    root = root.resolve()
    names = [name for name in entries(root) if _NAMES.fullmatch(name)]
    if (root / TEMPLATES).is_dir():
        inside(root, TEMPLATES)
        names += [f"{TEMPLATES}/{name}" for name in entries(root / TEMPLATES) if name.endswith(".jinja")]
    paths = (inside(root, name, nested=True) for name in sorted(names))
    return tuple(path for path in paths if path.is_file() and not _is_pickle(path))


def _is_pickle(path: Path) -> bool:
    """Whether a ``.model`` file, by custom a SentencePiece protobuf, is a pickle or torch archive instead."""
    if path.suffix != ".model":
        return False
    try:
        with path.open("rb") as handle:
            return handle.read(2).startswith(_PICKLE_STARTS)
    except OSError as error:
        raise unreadable(path, error) from error
