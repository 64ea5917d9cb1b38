"""The tokenizer of a model directory: its tokens, its special tokens, its chat templates, and the files they are in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.chat import Templates, read_templates
from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.disguise import HEAD, refuse_disguise
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.token_table import AddedToken, TokenTable, added_token, plain_table, read_table
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

FAST = "tokenizer.json"
CONFIG = "tokenizer_config.json"

MAX_TOKENIZER = 2**28
"""Bytes of the largest tokenizer file that is read; the largest in use have 35 MB."""

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LOOSE_ROLES = ("sep_token", "pad_token", "cls_token", "mask_token")
"""Roles that change neither how text becomes tokens nor where generation stops."""
_SETTINGS = ("add_bos_token", "add_eos_token", "add_prefix_space")
"""Switches of tokenizer_config.json that change which tokens a text becomes."""

_FILES = re.compile(
    r""".*tokenizer.*\.json | .*\.model(\.v\d+)? | .*\.spm | .*\.tiktoken | tekken\.json
      | .*vocab.*\.(json|txt) | .*merges.*\.txt | bpe\.codes | dict.*\.txt | unigram\.json | normalizer\.json
      | special_tokens_map\.json | added_tokens\.json
      | chat_template.*\.(json|jinja) | additional_chat_templates/.*\.jinja""",
    re.VERBOSE,
)


@frozen(eq=False)
class Tokenizer:
    """What one directory says about text and tokens.

    ``table`` is None where tokens are kept in a format that is not read, such as a SentencePiece model; ``digest`` then
    stands for it. ``special`` maps roles to token text, and switches to their values. ``file`` is what the tokens were
    read from; only a tokenizer.json can be edited.
    """

    root: Path
    file: Path
    table: TokenTable | None
    digest: str
    config: Mapping[str, Any]
    special: Mapping[str, str | bool]
    templates: Templates

    @property
    def editable(self) -> bool:
        """Whether tokens can be added to it."""
        return self.file.name == FAST

    def id(self, role: str) -> int | None:
        """The id of the token with a role such as ``eos_token``."""
        token = self.special.get(role)
        return self.table.ids.get(token) if self.table and isinstance(token, str) else None


@dataclass
class TokenizerReader:
    """Reads tokenizers; equal files are parsed once."""

    _tables: dict[str, TokenTable] = field(default_factory=dict[str, TokenTable])

    def read(self, root: Path) -> Tokenizer | None:
        """The tokenizer of a directory, None where there is none; CheckpointError if its files are malformed."""
        names = entries(root)
        config = _json(root, CONFIG, names)
        added = _added_tokens(root, names, config)
        found = self._fast(root, names, config) or self._plain(root, names, added) or _opaque(root, names, added)
        if found is None:
            return None
        file, table, digest = found
        special = _special(config, _json(root, "special_tokens_map.json", names))
        return Tokenizer(root, file, table, digest, config, special, read_templates(root, names, config))

    def _fast(self, root: Path, names: list[str], config: Mapping[str, Any]) -> tuple[Path, TokenTable, str] | None:
        if FAST not in names:
            return None
        path = inside(root, FAST)
        data = read_bytes(path, MAX_TOKENIZER)
        # transformers adds what its own configuration lists and the file lacks.
        further = _decoder(config, str(path.with_name(CONFIG)))
        key = hashlib.sha256(data + repr(further).encode("utf-8", "surrogatepass")).hexdigest()
        if key not in self._tables:
            table = read_table(data, str(path))
            lacking = [entry for entry in further if entry[0].content not in table.ids]
            self._tables[key] = read_table(data, str(path), lacking) if lacking else table
        table = self._tables[key]
        return path, table, table.rules

    def _plain(
        self, root: Path, names: list[str], added: list[tuple[AddedToken, int]]
    ) -> tuple[Path, TokenTable, str] | None:
        name = next((name for name in ("vocab.json", "vocab.txt") if name in names), None)
        if name is None:
            return None
        path = inside(root, name)
        data = read_bytes(path, MAX_TOKENIZER)
        if name.endswith(".json"):
            vocabulary = strictjson.parse(data, str(path), unique_keys=False)
        else:
            lines = _text(data, path).splitlines()
            vocabulary = {token: index for index, token in enumerate(lines)}
        merges = read_bytes(inside(root, "merges.txt"), MAX_TOKENIZER) if "merges.txt" in names else b""
        return path, plain_table(vocabulary, added, str(path)), hashlib.sha256(merges).hexdigest()


def is_tokenizer_file(name: str) -> bool:
    """Whether a side file belongs to the tokenizer, and so goes with it."""
    return _FILES.fullmatch(name) is not None


def _opaque(root: Path, names: list[str], added: list[tuple[AddedToken, int]]) -> tuple[Path, None, str] | None:
    """A SentencePiece model, a tiktoken or tekken file: told from another by its bytes alone."""
    kinds = (".model", ".spm", ".tiktoken")
    found = [name for name in names if is_tokenizer_file(name) and (name.endswith(kinds) or name == "tekken.json")]
    if not found:
        return None
    digest = hashlib.sha256(repr([(token, id) for token, id in added]).encode("utf-8", "surrogatepass"))
    paths = [inside(root, name) for name in found]
    for path in paths:
        data = read_bytes(path, MAX_TOKENIZER)
        refuse_disguise(data[:HEAD], str(path))
        digest.update(data)
    return paths[0], None, digest.hexdigest()


def _added_tokens(root: Path, names: list[str], config: Mapping[str, Any]) -> list[tuple[AddedToken, int]]:
    """Tokens beside a vocabulary that has no tokenizer.json, with the ids that are stated."""
    listed = _json(root, "added_tokens.json", names)
    where = str(root / "added_tokens.json")
    found = {token.content: (token, id) for token, id in _decoder(config, str(root / CONFIG))}
    for content, id in listed.items():
        if type(id) is not int or id < 0:
            raise CheckpointError("must map tokens to ids", where=where, hint=_SAVE_AGAIN)
        found.setdefault(content, (AddedToken(content), id))
    return sorted(found.values(), key=lambda entry: entry[1])


def _decoder(config: Mapping[str, Any], where: str) -> list[tuple[AddedToken, int]]:
    """The tokens of tokenizer_config.json's ``added_tokens_decoder``, by id."""
    listed = config.get("added_tokens_decoder") or {}
    found: list[tuple[AddedToken, int]] = []
    for id, entry in listed.items() if isinstance(listed, dict) else ():
        if (
            not id.isdecimal()
            or len(id) > 10
            or not isinstance(entry, dict)
            or not isinstance(entry.get("content"), str)
        ):
            raise CheckpointError("added_tokens_decoder must map ids to tokens", where=where, hint=_SAVE_AGAIN)
        found.append((added_token(entry), int(id)))
    return sorted(found, key=lambda entry: entry[1])


def _special(config: Mapping[str, Any], mapped: Mapping[str, Any]) -> dict[str, str | bool]:
    """Roles and switches, from tokenizer_config.json or else from special_tokens_map.json."""
    found: dict[str, str | bool] = {}
    for role in ROLES:
        entry = config.get(role, mapped.get(role))
        content = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(content, str):
            found[role] = content
    return found | {name: config[name] for name in _SETTINGS if isinstance(config.get(name), bool)}


def _json(root: Path, name: str, names: list[str]) -> Mapping[str, Any]:
    if name not in names:
        return {}
    path = inside(root, name)
    content = strictjson.parse(read_bytes(path, MAX_TOKENIZER), str(path), unique_keys=False)
    if not isinstance(content, dict):
        raise CheckpointError("must hold a JSON object", where=str(path), hint=_SAVE_AGAIN)
    return content


def _text(data: bytes, path: Path) -> str:
    refuse_disguise(data[:HEAD], str(path))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"is not UTF-8 text (byte {error.start})", where=str(path), hint=_SAVE_AGAIN) from None


_SAVE_AGAIN = "The file is damaged or is something else; download or save the tokenizer again."
