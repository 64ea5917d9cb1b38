"""Chat templates of a model directory, wherever its version of transformers keeps them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.disguise import HEAD, refuse_disguise
from rlmerge.checkpoint.paths import inside, is_plain_name, read_bytes
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

FILE = "chat_template.jinja"
FOLDER = "additional_chat_templates"
OLD_FILE = "chat_template.json"

_MAX = 2**24
_MARKER = re.compile(r"<\|[^|<>\s'\"{}]{1,60}\|>|\[\|[^|\[\]\s'\"{}]{1,60}\|\]")
"""How chat formats write their control tokens: <|im_start|>, [|assistant|]."""


@frozen
class Templates:
    """The template a chat uses unless told otherwise, and further ones by name (``tool_use``, ``rag``)."""

    default: str | None = None
    named: Mapping[str, str] = field(default_factory=dict[str, str])

    def __bool__(self) -> bool:
        return self.default is not None or bool(self.named)

    def says_same(self, other: Templates) -> bool:
        """Whether two are the same but for blanks around the texts, which some files end with and others do not."""
        return _stripped(self) == _stripped(other)

    @property
    def texts(self) -> list[str]:
        """All of them."""
        return [*([self.default] if self.default is not None else []), *self.named.values()]

    def files(self) -> dict[str, bytes]:
        """The files that hold them, by name."""
        found = {} if self.default is None else {FILE: self.default.encode("utf-8", "replace")}
        return found | {f"{FOLDER}/{name}.jinja": text.encode("utf-8", "replace") for name, text in self.named.items()}


def read_templates(root: Path, names: list[str], config: Mapping[str, Any]) -> Templates:
    """The templates of a directory with the entries ``names``, and of its tokenizer_config.json's content.

    As transformers reads them: separate files win over the configuration; the file of old processors comes last.
    """
    named: dict[str, str] = {}
    if FOLDER in names and (root / FOLDER).is_dir():
        inside(root, FOLDER)
        for name in entries(root / FOLDER):
            if name.endswith(".jinja"):
                named[name.removesuffix(".jinja")] = _text(inside(root, f"{FOLDER}/{name}", nested=True))
    default = _text(inside(root, FILE)) if FILE in names else None
    if default is not None or named:
        return Templates(default, named)
    found = _listed(config.get("chat_template"), str(root / "tokenizer_config.json"))
    if not found and OLD_FILE in names:
        path = inside(root, OLD_FILE)
        content = strictjson.parse(read_bytes(path, _MAX), str(path), unique_keys=False)
        found = _listed(content.get("chat_template"), str(path)) if isinstance(content, dict) else found
    return found


def _stripped(templates: Templates) -> tuple[str | None, dict[str, str]]:
    default = None if templates.default is None else templates.default.strip()
    return default, {name: text.strip() for name, text in templates.named.items()}


def markers(text: str) -> set[str]:
    """What looks like a control token in a template."""
    return set(_MARKER.findall(text))


def _listed(value: Any, where: str) -> Templates:
    """One text, a mapping of names to texts, or a list of objects with ``name`` and ``template``."""
    if isinstance(value, str):
        return Templates(value)
    if isinstance(value, list):
        pairs = [(entry.get("name"), entry.get("template")) for entry in value if isinstance(entry, dict)]
    else:
        pairs = list(value.items()) if isinstance(value, dict) else []
    named = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    strange = next((name for name in named if not is_plain_name(name)), None)
    if strange is not None:
        hint = "A chat template's name becomes a file name; give it a plain one."
        raise CheckpointError(f"{strange[:40]!r} cannot name a chat template", where=where, hint=hint)
    return Templates(named.pop("default", None), named)


def _text(path: Path) -> str:
    data = read_bytes(path, _MAX)
    refuse_disguise(data[:HEAD], str(path))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "Save the template as UTF-8."
        raise CheckpointError(f"is not UTF-8 text (byte {error.start})", where=str(path), hint=hint) from None
